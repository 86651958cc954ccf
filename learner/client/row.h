// The rows of a run as columns in replay, declared once for who writes them (actors) and who reads
// them (the learner).
//
// Row t of an episode holds obs[t] and what was decided there: action[t], the planner prior at
// obs[t], reward[t] and terminated[t] that the action led to. The last row of an episode holds
// only an observation; its other columns are zero.
//
// Shapes: O observation size, A action size. Little-endian.
// Thread-safety: functions without state.
#ifndef POMPC_LEARNER_CLIENT_ROW_H_
#define POMPC_LEARNER_CLIENT_ROW_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "absl/types/span.h"
#include "proto/pompc/v1/learner.pb.h"
#include "proto/pompc/v1/replay.pb.h"

namespace pompc {

// Index of each column in the schema.
enum class RowColumn {
  kObservation,  // "observation" float32 [O]
  kAction,       // "action" float32 [A], in [-1, 1].
  kReward,       // "reward" float32 [], summed over the action repeat.
  kTerminated,   // "terminated" float32 []: 1 where the task ended (not: was cut off), else 0.
  kPriorMean,    // "prior_mean" float32 [A], centre of the planner prior; 0 for random actions.
  kPriorStd,     // "prior_std" float32 [A], its std; 1 for random actions.
  kUpdates,      // "updates" int64 []: learner updates of the parameters that decided.
  kCount,
};
inline constexpr size_t kNumRowColumns = static_cast<size_t>(RowColumn::kCount);

// "observation", ...
std::string_view RowColumnName(RowColumn column);

v1::TableSchema RowSchema(const v1::TaskSizes& sizes);

// One row, in the caller's memory.
struct Row {
  absl::Span<const float> observation;            // [O]
  absl::Span<const float> action;                 // [A]
  float reward = 0;                               //
  float terminated = 0;                           // 0 or 1.
  absl::Span<const float> prior_mean, prior_std;  // [A] each.
  int64_t updates = 0;
};

// The last row of an episode. zeros: A zeros.
Row LastRow(absl::Span<const float> observation, absl::Span<const float> zeros);

// The bytes of each column, as EpisodeWriter takes them. They point into `row` and its memory.
std::array<std::string_view, kNumRowColumns> RowBytes(const Row& row);

}  // namespace pompc

#endif  // POMPC_LEARNER_CLIENT_ROW_H_
