// Relay: serves a learner's service again, so that parameters reach many subscribers through a tree
// of relays. Whoever is given a relay's address instead of the learner's notices no difference.
//
// Parameters come in one stream from upstream, however many subscribers there are, and go out in
// the bytes that they came in. The newest alone is kept, and an older one for as long as a slow
// subscriber is receiving it. While upstream is away subscribers keep their streams and what they
// hold; when it is back they get what it has, whatever its version.
//
// The unary calls are forwarded, with the caller's deadline and 10 s at most; errors come back with
// their code and message. Rows do not pass a relay: where Join answers that they go to the
// learner's own address, the relay names it. Upstream may be another relay, which has named it
// already.
//
// Thread-safety: thread-safe. Besides gRPC's threads there is the one that reads from upstream.
#ifndef POMPC_LEARNER_RELAY_RELAY_H_
#define POMPC_LEARNER_RELAY_RELAY_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "common/base/clock.h"
#include "common/metrics/metrics.h"
#include "grpcpp/channel.h"
#include "learner/client/remote_learner_client.h"
#include "learner/client/snapshot_reader.h"
#include "learner/service/learner_service.h"
#include "learner/service/publisher.h"
#include "proto/pompc/v1/learner.grpc.pb.h"

namespace pompc {

class Relay final : public LearnerServiceBase {
 public:
  // upstream: address of the learner or of another relay; actors must be able to reach the
  // learner's too. channel: to it, of common/rpc/channel.h. backoff_seed: as SnapshotReader.
  // `clock` and `metrics` must outlive this, and this the server that it is registered with.
  Relay(const std::string& upstream, const std::shared_ptr<grpc::Channel>& channel,
        uint64_t backoff_seed, Clock* clock, MetricsRegistry* metrics);

  // Blocks until the run is finished and all subscribers have left, or `stop` is raised: OK.
  // UNAVAILABLE: no upstream for kLearnerPatience. Others: the learner that came back refuses the
  // processes behind this relay.
  absl::Status Run(const Event& stop);

  // Ends all streams. Before the server's shutdown.
  void Close();

  // The calls that upstream answers.
  LearnerClient& upstream() { return client_; }

 private:
  grpc::ServerUnaryReactor* GetConfig(grpc::CallbackServerContext* context,
                                      const v1::GetConfigRequest* request,
                                      v1::GetConfigResponse* response) override;
  grpc::ServerUnaryReactor* Join(grpc::CallbackServerContext* context,
                                 const v1::JoinRequest* request,
                                 v1::JoinResponse* response) override;
  Publisher::Reactor* Subscribe(grpc::CallbackServerContext* context) override;
  grpc::ServerUnaryReactor* ReportEpisodes(grpc::CallbackServerContext* context,
                                           const v1::ReportEpisodesRequest* request,
                                           v1::ReportEpisodesResponse* response) override;
  grpc::ServerUnaryReactor* GetStatus(grpc::CallbackServerContext* context,
                                      const v1::GetStatusRequest* request,
                                      v1::RunStatus* response) override;

  std::optional<v1::JoinRequest> last_join() const;

  const std::string upstream_;
  Clock* const clock_;
  Counter* const received_bytes_;
  const std::unique_ptr<v1::Learner::Stub> stub_;
  RemoteLearnerClient client_;
  Publisher publisher_;

  // Of the newest snapshot.
  std::atomic<int64_t> updates_{0};
  std::atomic<bool> run_finished_{false};

  mutable absl::Mutex mu_;
  std::optional<v1::JoinRequest> last_join_ ABSL_GUARDED_BY(mu_);  // With the index given to it.

  SnapshotReader reader_;  // Last: its thread uses all of the above.
};

}  // namespace pompc

#endif  // POMPC_LEARNER_RELAY_RELAY_H_
