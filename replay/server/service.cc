#include "replay/server/service.h"

#include "common/base/status_macros.h"
#include "common/rpc/answer.h"
#include "grpcpp/impl/codegen/proto_utils.h"
#include "replay/server/append_stream.h"
#include "replay/server/batch_encoding.h"
#include "replay/server/sample_stream.h"

namespace pompc {
namespace {

absl::StatusOr<grpc::ByteBuffer> DrawPart(Replay& replay, const grpc::ByteBuffer& message) {
  v1::DrawRequest request;
  grpc::ByteBuffer bytes = message;  // Parsing consumes it.
  if (!grpc::SerializationTraits<v1::DrawRequest>::Deserialize(&bytes, &request).ok()) {
    return absl::InvalidArgumentError("request: not a DrawRequest");
  }
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

}  // namespace

grpc::ServerUnaryReactor* ReplayService::Configure(grpc::CallbackServerContext* context,
                                                   const v1::ConfigureRequest* request,
                                                   v1::ConfigureResponse* /*response*/) {
  return Answer(context, replay_->Configure(*request));
}

grpc::ServerBidiReactor<v1::AppendRequest, v1::AppendResponse>* ReplayService::Append(
    grpc::CallbackServerContext* /*context*/) {
  return AppendStream::Start(replay_, writers_);
}

grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>* ReplayService::Sample(
    grpc::CallbackServerContext* /*context*/) {
  return SampleStream::Start(replay_);
}

grpc::ServerUnaryReactor* ReplayService::Draw(grpc::CallbackServerContext* context,
                                              const grpc::ByteBuffer* request,
                                              grpc::ByteBuffer* response) {
  return Answer(context, DrawPart(*replay_, *request), response);
}

grpc::ServerUnaryReactor* ReplayService::Update(grpc::CallbackServerContext* context,
                                                const v1::UpdateRequest* request,
                                                v1::UpdateResponse* response) {
  return Answer(context, replay_->Update(*request), response);
}

grpc::ServerUnaryReactor* ReplayService::Checkpoint(grpc::CallbackServerContext* context,
                                                    const v1::CheckpointRequest* request,
                                                    v1::CheckpointResponse* response) {
  return Answer(context, replay_->Checkpoint(*request), response);
}

grpc::ServerUnaryReactor* ReplayService::Info(grpc::CallbackServerContext* context,
                                              const v1::InfoRequest* /*request*/,
                                              v1::InfoResponse* response) {
  *response = replay_->Info();
  return Answer(context, absl::OkStatus());
}

}  // namespace pompc
