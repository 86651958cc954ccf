// LearnerClient over gRPC.
#ifndef POMPC_LEARNER_CLIENT_REMOTE_LEARNER_CLIENT_H_
#define POMPC_LEARNER_CLIENT_REMOTE_LEARNER_CLIENT_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>

#include "common/base/clock.h"
#include "common/metrics/metrics.h"
#include "grpcpp/channel.h"
#include "grpcpp/client_context.h"
#include "learner/client/learner_client.h"
#include "proto/pompc/v1/learner.grpc.pb.h"

namespace pompc {

// An attempt has no answer for 10 s at most; Close() lets one that is under way finish.
class RemoteLearnerClient final : public LearnerClient {
 public:
  // channel: of CreateChannel() (common/rpc/channel.h). backoff_seed: of the pauses' jitter,
  // another one in each process. `clock` and `metrics` must outlive this.
  RemoteLearnerClient(std::shared_ptr<grpc::Channel> channel, uint64_t backoff_seed, Clock* clock,
                      MetricsRegistry* metrics);

  absl::StatusOr<v1::GetConfigResponse> GetConfig(absl::Time deadline) override;
  absl::StatusOr<v1::JoinResponse> Join(const v1::JoinRequest& request,
                                        absl::Time deadline) override;
  absl::StatusOr<v1::ReportEpisodesResponse> ReportEpisodes(
      const v1::ReportEpisodesRequest& request, absl::Time deadline) override;
  absl::StatusOr<v1::RunStatus> GetStatus(absl::Time deadline) override;
  void Close() override { closed_.Notify(); }

 private:
  absl::Status Call(absl::Time deadline,
                    const std::function<grpc::Status(grpc::ClientContext*)>& attempt);

  const std::unique_ptr<v1::Learner::Stub> stub_;
  const uint64_t backoff_seed_;
  Clock* const clock_;
  MetricsRegistry* const metrics_;
  std::atomic<uint64_t> calls_{0};
  Event closed_;
};

}  // namespace pompc

#endif  // POMPC_LEARNER_CLIENT_REMOTE_LEARNER_CLIENT_H_
