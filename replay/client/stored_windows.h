// StoredWindows: what a run's replay holds, to look at and to write on beside the learner. Nothing
// here counts in the run's limits.
#ifndef POMPC_REPLAY_CLIENT_STORED_WINDOWS_H_
#define POMPC_REPLAY_CLIENT_STORED_WINDOWS_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "proto/pompc/v1/replay.pb.h"
#include "replay/client/sampler.h"

namespace pompc {

// Thread-safety: none.
class StoredWindows {
 public:
  virtual ~StoredWindows() = default;

  // Draws B windows as the learner's batches are drawn; `seed` names the draws. Blocks for a few
  // seconds at most. UNAVAILABLE: none are stored yet, or replay is away. Others: replay refuses.
  virtual absl::StatusOr<v1::SampleResponse> Peek(int32_t windows, uint64_t seed) = 0;

  // ReplaySampler::Update() for rows of the last Peek().
  virtual absl::StatusOr<v1::UpdateResponse> Update(absl::Span<const uint64_t> keys,
                                                    absl::Span<const NamedRows> columns) = 0;
};

}  // namespace pompc

#endif  // POMPC_REPLAY_CLIENT_STORED_WINDOWS_H_
