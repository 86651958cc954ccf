// The learner's batch over the columns that replay drew.
#ifndef POMPC_LEARNER_SERVICE_BATCH_VIEW_H_
#define POMPC_LEARNER_SERVICE_BATCH_VIEW_H_

#include "absl/status/statusor.h"
#include "common/model/tensor.h"
#include "learner/core/losses.h"
#include "proto/pompc/v1/learner.pb.h"
#include "replay/client/sampler.h"

namespace pompc {

struct BatchShape {
  int64_t transitions = 0;  // T; a window has T + 1 rows.
  int64_t windows = 0;      // B
  v1::TaskSizes sizes;
  double importance_exponent = 0;  // ReplayConfig.importance_exponent; of batches with priorities.
};

// The tensors are the columns' memory, without a copy: they are valid, and writes to them show in
// `columns`, until it is reused. INTERNAL: a column is missing or has another size.
absl::StatusOr<Batch> ViewBatch(const BatchShape& shape, ColumnBatch& columns);

// Mean over the window's decisions of updates - the updates behind the row's parameters.
double MeanStaleness(const BatchShape& shape, const ColumnBatch& columns, int64_t updates);

// Writes planner priors of the batch's first windows back to the rows that they belong to. Returns
// what ReplaySampler::Update() does.
absl::StatusOr<v1::UpdateResponse> WriteBack(const ReanalyzedPrior& prior, const BatchShape& shape,
                                             const ColumnBatch& columns, ReplaySampler& sampler);

// Makes the TD errors [B] the priorities of the batch's windows, as ReplayConfig.priority_exponent
// tells. Returns what ReplaySampler::UpdatePriorities() does.
absl::StatusOr<v1::UpdateResponse> WritePriorities(const at::Tensor& td_error,
                                                   const ColumnBatch& columns,
                                                   ReplaySampler& sampler);

}  // namespace pompc

#endif  // POMPC_LEARNER_SERVICE_BATCH_VIEW_H_
