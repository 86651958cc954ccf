#include "learner/service/batch_view.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "learner/client/row.h"

namespace pompc {
namespace {

// Added to each TD error, in rewards, of which dm_control gives 1 a control step at most: smaller
// errors are not told apart. Schaul et al. (below, section 3.3) add "a small positive constant"
// lest a window is never drawn again. 1e-6, as is often chosen, does not do it: with an exponent of
// 0.6 a window of error 0 is drawn 4,000 times less often than one of error 1, and when it is, the
// rest of its batch has importance weights of 0.04 (exponent 0.4). With this it is 16 times, and
// 0.33.
constexpr double kLeastPriority = 0.01;

// (probability * windows)^-exponent, divided by its largest in the batch (Schaul et al.,
// "Prioritized experience replay", ICLR 2016, section 3.4). [B]; the number of windows cancels.
at::Tensor ImportanceWeights(const std::vector<double>& probabilities, double exponent) {
  const double smallest = *std::min_element(probabilities.begin(), probabilities.end());
  const at::Tensor weights = at::empty({static_cast<int64_t>(probabilities.size())}, at::kFloat);
  for (size_t b = 0; b < probabilities.size(); ++b) {
    weights.data_ptr<float>()[b] =
        static_cast<float>(std::pow(probabilities[b] / smallest, -exponent));
  }
  return weights;
}

}  // namespace

absl::StatusOr<Batch> ViewBatch(const BatchShape& shape, ColumnBatch& columns) {
  const int64_t rows = shape.transitions + 1;
  if (columns.columns.size() != kNumRowColumns) {
    return absl::InternalError(
        absl::StrCat("replay sent ", columns.columns.size(), " columns, not ", kNumRowColumns));
  }
  // -> [rows_used, B, dims...]
  const auto view = [&](RowColumn column, int64_t rows_used,
                        std::vector<int64_t> dims) -> absl::StatusOr<at::Tensor> {
    std::string& bytes = columns.columns[static_cast<size_t>(column)];
    dims.insert(dims.begin(), {rows, shape.windows});
    size_t elements = 1;
    for (const int64_t size : dims) elements *= static_cast<size_t>(size);
    if (bytes.size() != elements * sizeof(float)) {
      return absl::InternalError(absl::StrCat("replay sent ", bytes.size(), " bytes of ",
                                              std::string(RowColumnName(column)), ", not ",
                                              elements * sizeof(float)));
    }
    return at::from_blob(bytes.data(), dims, at::kFloat).narrow(0, 0, rows_used);
  };
  const int64_t steps = shape.transitions, action_dim = shape.sizes.action_dim();
  Batch batch;
  POMPC_ASSIGN_OR_RETURN(batch.obs,
                         view(RowColumn::kObservation, rows, {shape.sizes.observation_dim()}));
  POMPC_ASSIGN_OR_RETURN(batch.action, view(RowColumn::kAction, steps, {action_dim}));
  POMPC_ASSIGN_OR_RETURN(batch.reward, view(RowColumn::kReward, steps, {}));
  POMPC_ASSIGN_OR_RETURN(batch.terminated, view(RowColumn::kTerminated, steps, {}));
  POMPC_ASSIGN_OR_RETURN(batch.prior_mean, view(RowColumn::kPriorMean, steps, {action_dim}));
  POMPC_ASSIGN_OR_RETURN(batch.prior_std, view(RowColumn::kPriorStd, steps, {action_dim}));
  if (!columns.probabilities.empty()) {
    batch.weights = ImportanceWeights(columns.probabilities, shape.importance_exponent);
  }
  return batch;
}

double MeanStaleness(const BatchShape& shape, const ColumnBatch& columns, int64_t updates) {
  const std::string& bytes = columns.columns[static_cast<size_t>(RowColumn::kUpdates)];
  const int64_t count = shape.transitions * shape.windows;
  double sum = 0;
  for (int64_t i = 0; i < count; ++i) {
    int64_t of_row;
    std::memcpy(&of_row, bytes.data() + i * sizeof(of_row), sizeof(of_row));
    sum += static_cast<double>(updates - of_row);
  }
  return sum / static_cast<double>(count);
}

absl::StatusOr<v1::UpdateResponse> WriteBack(const ReanalyzedPrior& prior, const BatchShape& shape,
                                             const ColumnBatch& columns, ReplaySampler& sampler) {
  const at::Tensor mean = prior.mean.to(at::kCPU, at::kFloat).contiguous();
  const at::Tensor std = prior.std.to(at::kCPU, at::kFloat).contiguous();
  const int64_t windows = mean.size(1);
  std::vector<uint64_t> keys;
  for (int64_t t = 0; t < mean.size(0); ++t) {
    for (int64_t b = 0; b < windows; ++b) keys.push_back(columns.keys[t * shape.windows + b]);
  }
  const auto bytes = [](const at::Tensor& tensor) {
    return std::string_view(static_cast<const char*>(tensor.const_data_ptr()), tensor.nbytes());
  };
  const NamedRows updated[] = {
      {std::string(RowColumnName(RowColumn::kPriorMean)), bytes(mean)},
      {std::string(RowColumnName(RowColumn::kPriorStd)), bytes(std)},
  };
  return sampler.Update(keys, updated);
}

absl::StatusOr<v1::UpdateResponse> WritePriorities(const at::Tensor& td_error,
                                                   const ColumnBatch& columns,
                                                   ReplaySampler& sampler) {
  const at::Tensor priorities = td_error.to(at::kCPU, at::kFloat).add(kLeastPriority).contiguous();
  const size_t windows = static_cast<size_t>(priorities.numel());
  return sampler.UpdatePriorities({columns.keys.data(), windows},
                                  {priorities.const_data_ptr<float>(), windows});
}

}  // namespace pompc
