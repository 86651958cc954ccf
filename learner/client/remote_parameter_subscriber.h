// ParameterSubscriber over gRPC: one thread reads the stream and opens it again when it breaks.
#ifndef POMPC_LEARNER_CLIENT_REMOTE_PARAMETER_SUBSCRIBER_H_
#define POMPC_LEARNER_CLIENT_REMOTE_PARAMETER_SUBSCRIBER_H_

#include <cstdint>
#include <memory>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "common/base/clock.h"
#include "common/base/thread.h"
#include "common/metrics/metrics.h"
#include "grpcpp/channel.h"
#include "grpcpp/client_context.h"
#include "learner/client/parameter_subscriber.h"
#include "proto/pompc/v1/learner.grpc.pb.h"

namespace pompc {

// The next snapshot is asked for when the last one has been stored, so at most one is on its way.
// One whose checksum or size is wrong is dropped and counted, and the stream is opened anew.
class RemoteParameterSubscriber final : public ParameterSubscriber {
 public:
  // channel: of CreateChannel() (common/rpc/channel.h). backoff_seed: of the pauses' jitter,
  // another one in each process. `clock` and `metrics` must outlive this.
  RemoteParameterSubscriber(std::shared_ptr<grpc::Channel> channel, uint64_t backoff_seed,
                            Clock* clock, MetricsRegistry* metrics);
  // Cancels the stream.
  ~RemoteParameterSubscriber() override;

  SnapshotPtr Newest() const override;
  absl::StatusOr<SnapshotPtr> WaitForNewer(int64_t version, absl::Time deadline) override;
  int64_t streams() const override;
  int64_t dropped_snapshots() const override;
  absl::Status status() const override;
  void Close() override;

 private:
  void ReadLoop(uint64_t backoff_seed);
  // Reads one stream until it breaks or a snapshot is damaged; why it did. Calls `received` after
  // each good snapshot.
  template <typename Received>
  absl::Status ReadStream(Received received);
  absl::Status Store(SnapshotPtr snapshot, bool first_of_stream);

  const std::unique_ptr<v1::Learner::Stub> stub_;
  Clock* const clock_;
  Counter* const reconnects_;
  Event closed_;

  mutable absl::Mutex mu_;
  SnapshotPtr newest_ ABSL_GUARDED_BY(mu_);
  grpc::ClientContext* context_ ABSL_GUARDED_BY(mu_) = nullptr;  // Of the open stream.
  int64_t streams_ ABSL_GUARDED_BY(mu_) = 0;
  int64_t dropped_ ABSL_GUARDED_BY(mu_) = 0;
  absl::Status status_ ABSL_GUARDED_BY(mu_) = absl::UnavailableError("not connected yet");

  Thread thread_;  // Last: it uses all of the above.
};

}  // namespace pompc

#endif  // POMPC_LEARNER_CLIENT_REMOTE_PARAMETER_SUBSCRIBER_H_
