#include "learner/service/learner_service.h"

#include "absl/status/status.h"
#include "common/rpc/answer.h"

namespace pompc {
grpc::ServerUnaryReactor* LearnerService::GetConfig(grpc::CallbackServerContext* context,
                                                    const v1::GetConfigRequest* /*request*/,
                                                    v1::GetConfigResponse* response) {
  *response = front_->identity;
  return Answer(context, absl::OkStatus());
}

grpc::ServerUnaryReactor* LearnerService::Join(grpc::CallbackServerContext* context,
                                               const v1::JoinRequest* request,
                                               v1::JoinResponse* response) {
  return Answer(context, front_->roster.Join(*request), response);
}

grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>* LearnerService::Subscribe(
    grpc::CallbackServerContext* /*context*/) {
  return front_->publisher.Subscribe();
}

grpc::ServerUnaryReactor* LearnerService::ReportEpisodes(grpc::CallbackServerContext* context,
                                                         const v1::ReportEpisodesRequest* request,
                                                         v1::ReportEpisodesResponse* response) {
  response->set_learner_updates(front_->progress.Now().updates);
  return Answer(context, front_->episodes.Report(*request, front_->publisher.version(),
                                                 [this] { return front_->progress.Now(); }));
}

grpc::ServerUnaryReactor* LearnerService::GetStatus(grpc::CallbackServerContext* context,
                                                    const v1::GetStatusRequest* /*request*/,
                                                    v1::RunStatus* response) {
  front_->progress.FillStatus(response);
  front_->episodes.FillStatus(response);
  return Answer(context, absl::OkStatus());
}

}  // namespace pompc
