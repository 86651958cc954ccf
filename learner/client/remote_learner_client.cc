#include "learner/client/remote_learner_client.h"

#include <algorithm>
#include <utility>

#include "common/base/rng.h"
#include "common/base/status_macros.h"
#include "common/rpc/retry.h"

namespace pompc {

RemoteLearnerClient::RemoteLearnerClient(std::shared_ptr<grpc::Channel> channel,
                                         uint64_t backoff_seed, Clock* clock,
                                         MetricsRegistry* metrics)
    : stub_(v1::Learner::NewStub(std::move(channel))),
      backoff_seed_(backoff_seed),
      clock_(clock),
      metrics_(metrics) {}

absl::Status RemoteLearnerClient::Call(
    absl::Time deadline, const std::function<grpc::Status(grpc::ClientContext*)>& attempt) {
  RetryPolicy policy;
  policy.give_up_after = deadline - clock_->Now();
  if (policy.give_up_after <= absl::ZeroDuration()) {
    return absl::DeadlineExceededError("the deadline has passed");
  }
  policy.attempt_timeout = std::min(policy.attempt_timeout, policy.give_up_after);
  UnaryCaller caller(policy, Rng(backoff_seed_, RngRole::kBackoff, 0, calls_++), clock_, &closed_,
                     metrics_);
  return caller.Call(attempt);
}

absl::StatusOr<v1::GetConfigResponse> RemoteLearnerClient::GetConfig(absl::Time deadline) {
  v1::GetConfigResponse response;
  POMPC_RETURN_IF_ERROR(Call(deadline, [&](grpc::ClientContext* context) {
    return stub_->GetConfig(context, v1::GetConfigRequest(), &response);
  }));
  return response;
}

absl::StatusOr<v1::JoinResponse> RemoteLearnerClient::Join(const v1::JoinRequest& request,
                                                           absl::Time deadline) {
  v1::JoinResponse response;
  POMPC_RETURN_IF_ERROR(Call(deadline, [&](grpc::ClientContext* context) {
    return stub_->Join(context, request, &response);
  }));
  return response;
}

absl::StatusOr<v1::ReportEpisodesResponse> RemoteLearnerClient::ReportEpisodes(
    const v1::ReportEpisodesRequest& request, absl::Time deadline) {
  v1::ReportEpisodesResponse response;
  POMPC_RETURN_IF_ERROR(Call(deadline, [&](grpc::ClientContext* context) {
    return stub_->ReportEpisodes(context, request, &response);
  }));
  return response;
}

absl::StatusOr<v1::RunStatus> RemoteLearnerClient::GetStatus(absl::Time deadline) {
  v1::RunStatus response;
  POMPC_RETURN_IF_ERROR(Call(deadline, [&](grpc::ClientContext* context) {
    return stub_->GetStatus(context, v1::GetStatusRequest(), &response);
  }));
  return response;
}

}  // namespace pompc
