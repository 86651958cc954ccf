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

absl::StatusOr<grpc::ByteBuffer> DrawPart(Replay& replay, const grpc::ByteBuffer& message) {
  POMPC_ASSIGN_OR_RETURN(const v1::DrawRequest request, Parse<v1::DrawRequest>(message));
  POMPC_ASSIGN_OR_RETURN(const Replay::Layout layout, replay.layout());
  if (request.windows() == 0) {
    POMPC_ASSIGN_OR_RETURN(const Replay::Drawn drawn, replay.Draw(request, layout, {}));
    const grpc::Slice counts(CountsOf(drawn).SerializeAsString());
    return grpc::ByteBuffer(&counts, 1);
  }
  POMPC_ASSIGN_OR_RETURN(const BatchEncoding part,
                         BatchEncoding::Create(layout, request.windows()));
  POMPC_ASSIGN_OR_RETURN(const Replay::Drawn drawn, replay.Draw(request, layout, part.buffers()));
  return part.Finish(drawn);
}

absl::StatusOr<grpc::ByteBuffer> PeekAt(Replay& replay, const grpc::ByteBuffer& message) {
  POMPC_ASSIGN_OR_RETURN(const v1::PeekRequest request, Parse<v1::PeekRequest>(message));
  POMPC_ASSIGN_OR_RETURN(const Replay::Layout layout, replay.layout());
  POMPC_ASSIGN_OR_RETURN(const BatchEncoding windows,
                         BatchEncoding::Create(layout, request.windows()));
  POMPC_ASSIGN_OR_RETURN(const Replay::Drawn drawn,
                         replay.Peek(request, layout, windows.buffers()));
  return windows.Finish(drawn);
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
  const absl::StatusOr<Replay*> replay = tables_->Find(CalledPart(*context));
  if (!replay.ok()) return Answer(context, replay.status());
  return Answer(context, DrawPart(**replay, *request), response);
}

grpc::ServerUnaryReactor* ReplayService::Peek(grpc::CallbackServerContext* context,
                                              const grpc::ByteBuffer* request,
                                              grpc::ByteBuffer* response) {
  const absl::StatusOr<Replay*> replay = tables_->Find(CalledPart(*context));
  if (!replay.ok()) return Answer(context, replay.status());
  return Answer(context, PeekAt(**replay, *request), response);
}

grpc::ServerUnaryReactor* ReplayService::Update(grpc::CallbackServerContext* context,
                                                const v1::UpdateRequest* request,
                                                v1::UpdateResponse* response) {
  const absl::StatusOr<Replay*> replay = tables_->Find(CalledPart(*context));
  if (!replay.ok()) return Answer(context, replay.status());
  return Answer(context, (*replay)->Update(*request), response);
}

grpc::ServerUnaryReactor* ReplayService::Checkpoint(grpc::CallbackServerContext* context,
                                                    const v1::CheckpointRequest* request,
                                                    v1::CheckpointResponse* response) {
  const absl::StatusOr<Replay*> replay = tables_->Find(CalledPart(*context));
  if (!replay.ok()) return Answer(context, replay.status());
  return Answer(context, (*replay)->Checkpoint(*request), response);
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
