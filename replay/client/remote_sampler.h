// RemoteSampler: a ReplaySampler over one Sample stream, prefetched in the background.
//
// On every connection it first declares the table (Configure) with the number of batches received
// so far, so that batches lost with a connection are drawn again and a replay that lost its memory
// learns what to be.
#ifndef POMPC_REPLAY_CLIENT_REMOTE_SAMPLER_H_
#define POMPC_REPLAY_CLIENT_REMOTE_SAMPLER_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/base/bounded_queue.h"
#include "common/base/clock.h"
#include "common/base/thread.h"
#include "common/metrics/metrics.h"
#include "common/rpc/retry.h"
#include "grpcpp/channel.h"
#include "grpcpp/client_context.h"
#include "proto/pompc/v1/replay.grpc.pb.h"
#include "replay/client/sampler.h"

namespace pompc {

struct RemoteSamplerOptions {
  v1::TableConfig table;
  int64_t updates_done = 0;  // Updates made before this sampler, >= 0 (a resumed learner).
  int32_t batch_size = 0;    // B windows, >= 1.
  int32_t prefetch = 1;      // Batches in flight, >= 1; two more may wait here.
  RetryPolicy retry;         // Of the stream: its backoff alone, there is no end to it.
  // How long Update(), UpdatePriorities() and Info() wait for a replay that is away: their caller
  // has other things to see to.
  absl::Duration patience = absl::Seconds(5);
};

// Thread-safety: thread-safe.
class RemoteSampler final : public ReplaySampler {
 public:
  // `clock` and `metrics` must outlive this.
  RemoteSampler(const RemoteSamplerOptions& options, std::shared_ptr<grpc::Channel> channel,
                Clock* clock, MetricsRegistry* metrics);
  // Closes.
  ~RemoteSampler() override;

  absl::Status Next(absl::Time deadline, ColumnBatch* batch) override;
  absl::StatusOr<v1::UpdateResponse> Update(absl::Span<const uint64_t> keys,
                                            absl::Span<const NamedRows> columns) override;
  absl::StatusOr<v1::UpdateResponse> UpdatePriorities(absl::Span<const uint64_t> keys,
                                                      absl::Span<const float> priorities) override;
  absl::StatusOr<v1::InfoResponse> Info() override;

  // Drops what is prefetched and ends all waits with CANCELLED. May be repeated.
  void Close();

 private:
  // The background thread: receives batches until closed or refused, reconnecting in between.
  void Run();
  // One connection: declares the table, then receives. Returns why it ended.
  absl::Status Receive(Backoff* backoff);
  // Whether `context` may be used; then Close() cancels it until Release().
  bool Hold(grpc::ClientContext* context) ABSL_LOCKS_EXCLUDED(mu_);
  void Release() ABSL_LOCKS_EXCLUDED(mu_);
  absl::StatusOr<v1::UpdateResponse> CallUpdate(const v1::UpdateRequest& request);
  absl::Status Call(absl::Duration give_up_after,
                    const std::function<grpc::Status(grpc::ClientContext*)>& attempt);

  const RemoteSamplerOptions options_;
  const std::unique_ptr<v1::Replay::Stub> stub_;
  Clock* const clock_;
  MetricsRegistry* const metrics_;
  Counter* const reconnects_metric_;
  Event stop_;
  BoundedQueue<v1::SampleResponse> batches_;

  absl::Mutex mu_;
  absl::Status refused_ ABSL_GUARDED_BY(mu_);      // Why replay answers us no more.
  int64_t received_batches_ ABSL_GUARDED_BY(mu_);  // From options_.updates_done on.
  grpc::ClientContext* context_ ABSL_GUARDED_BY(mu_) = nullptr;
  uint64_t calls_ ABSL_GUARDED_BY(mu_) = 0;  // Unary ones; tells apart their random streams.

  std::optional<Thread> thread_;  // Last, so that it starts when all else is there.
};

}  // namespace pompc

#endif  // POMPC_REPLAY_CLIENT_REMOTE_SAMPLER_H_
