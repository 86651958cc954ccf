// ParameterSubscriber over gRPC.
#ifndef POMPC_LEARNER_CLIENT_REMOTE_PARAMETER_SUBSCRIBER_H_
#define POMPC_LEARNER_CLIENT_REMOTE_PARAMETER_SUBSCRIBER_H_

#include <cstdint>
#include <memory>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "common/base/clock.h"
#include "common/metrics/metrics.h"
#include "grpcpp/channel.h"
#include "learner/client/parameter_subscriber.h"
#include "learner/client/snapshot_reader.h"

namespace pompc {

class RemoteParameterSubscriber final : public ParameterSubscriber {
 public:
  // As SnapshotReader.
  RemoteParameterSubscriber(std::shared_ptr<grpc::Channel> channel, uint64_t backoff_seed,
                            Clock* clock, MetricsRegistry* metrics);

  SnapshotPtr Newest() const override;
  absl::StatusOr<SnapshotPtr> WaitForNewer(int64_t version, absl::Time deadline) override;
  int64_t dropped_snapshots() const override { return reader_.dropped_snapshots(); }
  absl::Status status() const override { return reader_.status(); }
  void Close() override;

 private:
  Clock* const clock_;
  mutable absl::Mutex mu_;
  SnapshotPtr newest_ ABSL_GUARDED_BY(mu_);
  bool closed_ ABSL_GUARDED_BY(mu_) = false;
  SnapshotReader reader_;  // Last: its thread uses all of the above.
};

}  // namespace pompc

#endif  // POMPC_LEARNER_CLIENT_REMOTE_PARAMETER_SUBSCRIBER_H_
