#include "learner/client/row.h"

#include <initializer_list>

namespace pompc {
namespace {

template <typename T>
std::string_view BytesOf(absl::Span<const T> values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)};
}

}  // namespace

std::string_view RowColumnName(RowColumn column) {
  static constexpr std::string_view kNames[kNumRowColumns] = {
      "observation", "action", "reward", "terminated", "prior_mean", "prior_std", "updates"};
  return kNames[static_cast<size_t>(column)];
}

v1::TableSchema RowSchema(const v1::TaskSizes& sizes) {
  v1::TableSchema schema;
  const auto add = [&schema](RowColumn column, v1::DataType type,
                             std::initializer_list<int64_t> shape) {
    v1::Column* added = schema.add_columns();
    added->set_name(std::string(RowColumnName(column)));
    added->set_type(type);
    for (int64_t size : shape) added->add_shape(size);
  };
  add(RowColumn::kObservation, v1::FLOAT32, {sizes.observation_dim()});
  add(RowColumn::kAction, v1::FLOAT32, {sizes.action_dim()});
  add(RowColumn::kReward, v1::FLOAT32, {});
  add(RowColumn::kTerminated, v1::FLOAT32, {});
  add(RowColumn::kPriorMean, v1::FLOAT32, {sizes.action_dim()});
  add(RowColumn::kPriorStd, v1::FLOAT32, {sizes.action_dim()});
  add(RowColumn::kUpdates, v1::INT64, {});
  return schema;
}

Row LastRow(absl::Span<const float> observation, absl::Span<const float> zeros) {
  return {.observation = observation, .action = zeros, .prior_mean = zeros, .prior_std = zeros};
}

std::array<std::string_view, kNumRowColumns> RowBytes(const Row& row) {
  return {BytesOf(row.observation),
          BytesOf(row.action),
          BytesOf(absl::MakeConstSpan(&row.reward, 1)),
          BytesOf(absl::MakeConstSpan(&row.terminated, 1)),
          BytesOf(row.prior_mean),
          BytesOf(row.prior_std),
          BytesOf(absl::MakeConstSpan(&row.updates, 1))};
}

}  // namespace pompc
