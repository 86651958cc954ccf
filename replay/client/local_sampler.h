// LocalSampler: a ReplaySampler over a Replay in this process, without a socket.
#ifndef POMPC_REPLAY_CLIENT_LOCAL_SAMPLER_H_
#define POMPC_REPLAY_CLIENT_LOCAL_SAMPLER_H_

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "common/base/clock.h"
#include "replay/client/sampler.h"
#include "replay/server/replay.h"

namespace pompc {

// Batches are drawn when Next() is called, straight into the caller's memory.
// Thread-safety: thread-safe.
class LocalSampler final : public ReplaySampler {
 public:
  // `replay` and `clock` must outlive this. batch_size >= 1.
  LocalSampler(int32_t batch_size, Replay* replay, Clock* clock)
      : batch_size_(batch_size), replay_(replay), clock_(clock) {}

  // UNAVAILABLE as well, when the replay is not configured or closed.
  absl::Status Next(absl::Time deadline, ColumnBatch* batch) override;
  absl::StatusOr<v1::UpdateResponse> Update(absl::Span<const uint64_t> keys,
                                            absl::Span<const NamedRows> columns) override;
  absl::StatusOr<v1::UpdateResponse> UpdatePriorities(absl::Span<const uint64_t> keys,
                                                      absl::Span<const float> priorities) override;
  absl::StatusOr<v1::InfoResponse> Info() override { return replay_->Info(); }

 private:
  const int32_t batch_size_;
  Replay* const replay_;
  Clock* const clock_;
};

}  // namespace pompc

#endif  // POMPC_REPLAY_CLIENT_LOCAL_SAMPLER_H_
