#include "replay/server/service.h"

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/rpc/answer.h"
#include "common/rpc/channel.h"
#include "common/rpc/status.h"
#include "grpcpp/impl/codegen/proto_utils.h"
#include "replay/server/append_stream.h"
#include "replay/server/batch_encoding.h"
#include "replay/server/sample_stream.h"

namespace pompc {
namespace {

// A stream that ends with a status.
template <typename Request, typename Response>
class RefusedStream final : public grpc::ServerBidiReactor<Request, Response> {
 public:
  explicit RefusedStream(const absl::Status& status) { this->Finish(ToGrpc(status)); }
  void OnDone() override { delete this; }
};

template <typename Request>
absl::StatusOr<Request> Parse(const grpc::ByteBuffer& message) {
  Request request;
  grpc::ByteBuffer bytes = message;  // Parsing consumes it.
  if (!grpc::SerializationTraits<Request>::Deserialize(&bytes, &request).ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat("request: not a ", Request::descriptor()->name()));
  }
  return request;
}

// The message of `windows` windows that `draw` puts into the buffers that it is given.
template <typename Draw>
absl::StatusOr<grpc::ByteBuffer> Encode(const Replay::Layout& layout, int32_t windows,
                                        const Draw& draw) {
  POMPC_ASSIGN_OR_RETURN(const BatchEncoding batch, BatchEncoding::Create(layout, windows));
  POMPC_ASSIGN_OR_RETURN(const Replay::Drawn drawn, draw(batch.buffers()));
  return batch.Finish(drawn);
}

absl::StatusOr<grpc::ByteBuffer> DrawPart(Replay& replay, const grpc::ByteBuffer& message) {
  POMPC_ASSIGN_OR_RETURN(const v1::DrawRequest request, Parse<v1::DrawRequest>(message));
  POMPC_ASSIGN_OR_RETURN(const Replay::Layout layout, replay.layout());
  const auto draw = [&](const WindowBuffers& out) { return replay.Draw(request, layout, out); };
  if (request.windows() != 0) return Encode(layout, request.windows(), draw);
  POMPC_ASSIGN_OR_RETURN(const Replay::Drawn drawn, draw({}));
  const grpc::Slice counts(CountsOf(drawn).SerializeAsString());
  return grpc::ByteBuffer(&counts, 1);
}

absl::StatusOr<grpc::ByteBuffer> PeekAt(Replay& replay, const grpc::ByteBuffer& message) {
  POMPC_ASSIGN_OR_RETURN(const v1::PeekRequest request, Parse<v1::PeekRequest>(message));
  POMPC_ASSIGN_OR_RETURN(const Replay::Layout layout, replay.layout());
  return Encode(layout, request.windows(),
                [&](const WindowBuffers& out) { return replay.Peek(request, layout, out); });
}

// Ends a call with what `ask` has of the table that it is for.
template <typename Response, typename Ask>
grpc::ServerUnaryReactor* AnswerFrom(const ReplayTables& tables,
                                     grpc::CallbackServerContext* context, Response* response,
                                     const Ask& ask) {
  const absl::StatusOr<Replay*> replay = tables.Find(CalledPart(*context));
  if (!replay.ok()) return Answer(context, replay.status());
  return Answer(context, ask(**replay), response);
}

}  // namespace

grpc::ServerUnaryReactor* ReplayService::Configure(grpc::CallbackServerContext* context,
                                                   const v1::ConfigureRequest* request,
                                                   v1::ConfigureResponse* /*response*/) {
  const absl::StatusOr<Replay*> replay = tables_->FindOrMake(CalledPart(*context));
  return Answer(context, replay.ok() ? (*replay)->Configure(*request) : replay.status());
}

grpc::ServerBidiReactor<v1::AppendRequest, v1::AppendResponse>* ReplayService::Append(
    grpc::CallbackServerContext* context) {
  const absl::StatusOr<Replay*> replay = tables_->Find(CalledPart(*context));
  if (replay.ok()) return AppendStream::Start(*replay, writers_);
  return new RefusedStream<v1::AppendRequest, v1::AppendResponse>(replay.status());
}

grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>* ReplayService::Sample(
    grpc::CallbackServerContext* context) {
  const absl::StatusOr<Replay*> replay = tables_->Find(CalledPart(*context));
  if (replay.ok()) return SampleStream::Start(*replay);
  return new RefusedStream<grpc::ByteBuffer, grpc::ByteBuffer>(replay.status());
}

grpc::ServerUnaryReactor* ReplayService::Draw(grpc::CallbackServerContext* context,
                                              const grpc::ByteBuffer* request,
                                              grpc::ByteBuffer* response) {
  return AnswerFrom(*tables_, context, response,
                    [&](Replay& replay) { return DrawPart(replay, *request); });
}

grpc::ServerUnaryReactor* ReplayService::Peek(grpc::CallbackServerContext* context,
                                              const grpc::ByteBuffer* request,
                                              grpc::ByteBuffer* response) {
  return AnswerFrom(*tables_, context, response,
                    [&](Replay& replay) { return PeekAt(replay, *request); });
}

grpc::ServerUnaryReactor* ReplayService::Update(grpc::CallbackServerContext* context,
                                                const v1::UpdateRequest* request,
                                                v1::UpdateResponse* response) {
  return AnswerFrom(*tables_, context, response,
                    [&](Replay& replay) { return replay.Update(*request); });
}

grpc::ServerUnaryReactor* ReplayService::Checkpoint(grpc::CallbackServerContext* context,
                                                    const v1::CheckpointRequest* request,
                                                    v1::CheckpointResponse* response) {
  return AnswerFrom(*tables_, context, response,
                    [&](Replay& replay) { return replay.Checkpoint(*request); });
}

grpc::ServerUnaryReactor* ReplayService::Info(grpc::CallbackServerContext* context,
                                              const v1::InfoRequest* /*request*/,
                                              v1::InfoResponse* response) {
  // A table that nobody has configured is no error to whoever asks what there is.
  const absl::StatusOr<Replay*> replay = tables_->Find(CalledPart(*context));
  if (replay.ok()) *response = (*replay)->Info();
  for (std::string& name : tables_->Names()) response->add_tables(std::move(name));
  return Answer(context, absl::OkStatus());
}

}  // namespace pompc
