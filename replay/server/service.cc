#include "replay/server/service.h"

#include "common/rpc/answer.h"
#include "replay/server/append_stream.h"
#include "replay/server/sample_stream.h"

namespace pompc {
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

grpc::ServerUnaryReactor* ReplayService::Update(grpc::CallbackServerContext* context,
                                                const v1::UpdateRequest* request,
                                                v1::UpdateResponse* response) {
  absl::StatusOr<v1::UpdateResponse> result = replay_->Update(*request);
  if (result.ok()) *response = *std::move(result);
  return Answer(context, result.status());
}

grpc::ServerUnaryReactor* ReplayService::Checkpoint(grpc::CallbackServerContext* context,
                                                    const v1::CheckpointRequest* request,
                                                    v1::CheckpointResponse* response) {
  absl::StatusOr<v1::CheckpointResponse> result = replay_->Checkpoint(*request);
  if (result.ok()) *response = *std::move(result);
  return Answer(context, result.status());
}

grpc::ServerUnaryReactor* ReplayService::Info(grpc::CallbackServerContext* context,
                                              const v1::InfoRequest* /*request*/,
                                              v1::InfoResponse* response) {
  *response = replay_->Info();
  return Answer(context, absl::OkStatus());
}

}  // namespace pompc
