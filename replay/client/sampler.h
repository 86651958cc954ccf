// ReplaySampler: where a learner gets its batches from and writes back to.
//
// Shapes: W window_rows (T + 1), B batch_size; every column is [W, B, shape...], contiguous,
// time-major. keys[t * B + b] is the key of row t of window b.
#ifndef POMPC_REPLAY_CLIENT_SAMPLER_H_
#define POMPC_REPLAY_CLIENT_SAMPLER_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "proto/pompc/v1/replay.pb.h"

namespace pompc {

// B windows. Memory is aligned for any column type and stays in place until the batch is reused.
struct ColumnBatch {
  std::vector<std::string> columns;  // One per column of the schema, in its order.
  std::vector<uint64_t> keys;        // [W, B].
  // [B] with which each window was drawn; empty when all had the same.
  std::vector<double> probabilities;
  // When the batch was drawn:
  uint64_t newest_key = 0;         // newest_key - keys[i] is the age of a row, in rows.
  int64_t inserted_decisions = 0;  // Stored ever.
  int64_t sampled_batches = 0;     // Drawn ever, this one included.
  int64_t stored_windows = 0;
};

// New content of a column: its name, and one row per key, contiguous.
using NamedRows = std::pair<std::string, std::string_view>;

class ReplaySampler {
 public:
  virtual ~ReplaySampler() = default;

  // Blocks until the rate limiter allows one more batch, or `deadline`. Overwrites `batch`, whose
  // memory is reused. DEADLINE_EXCEEDED: no batch is lost, call again. CANCELLED: closed. Any
  // other: replay refused for good.
  virtual absl::Status Next(absl::Time deadline, ColumnBatch* batch) = 0;

  // Overwrites columns of stored rows (reanalyze). Rows no longer stored are left alone and counted
  // in the answer. INVALID_ARGUMENT, naming the field; UNAVAILABLE: no connection, nothing is
  // written or all is, may be repeated.
  virtual absl::StatusOr<v1::UpdateResponse> Update(absl::Span<const uint64_t> keys,
                                                    absl::Span<const NamedRows> columns) = 0;

  // Sets the priorities of windows, finite and >= 0. keys: of their first rows. Windows no longer
  // stored are counted in the answer. Errors: Update()'s; FAILED_PRECONDITION: the table has no
  // priorities.
  virtual absl::StatusOr<v1::UpdateResponse> UpdatePriorities(
      absl::Span<const uint64_t> keys, absl::Span<const float> priorities) = 0;

  // What replay holds.
  virtual absl::StatusOr<v1::InfoResponse> Info() = 0;
};

// The request that Update() of every sampler makes.
v1::UpdateRequest MakeUpdateRequest(absl::Span<const uint64_t> keys,
                                    absl::Span<const NamedRows> columns);

// That of UpdatePriorities().
v1::UpdateRequest MakePriorityRequest(absl::Span<const uint64_t> keys,
                                      absl::Span<const float> priorities);

}  // namespace pompc

#endif  // POMPC_REPLAY_CLIENT_SAMPLER_H_
