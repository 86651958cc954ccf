#include "learner/service/batch_view.h"

#include <cmath>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "learner/client/row.h"

namespace pompc {
namespace {

using testing::ElementsAre;
using testing::Pointwise;

// Keeps the priorities that it is told.
class RecordingSampler final : public ReplaySampler {
 public:
  absl::Status Next(absl::Time, ColumnBatch*) override { return NotCalled(); }
  absl::StatusOr<v1::UpdateResponse> Update(absl::Span<const uint64_t>,
                                            absl::Span<const NamedRows>) override {
    return NotCalled();
  }
  absl::StatusOr<v1::UpdateResponse> UpdatePriorities(absl::Span<const uint64_t> keys,
                                                      absl::Span<const float> priorities) override {
    keys_.assign(keys.begin(), keys.end());
    priorities_.assign(priorities.begin(), priorities.end());
    return v1::UpdateResponse();
  }
  absl::StatusOr<v1::InfoResponse> Info() override { return NotCalled(); }

  const std::vector<uint64_t>& keys() const { return keys_; }
  const std::vector<float>& priorities() const { return priorities_; }

 private:
  static absl::Status NotCalled() { return absl::UnimplementedError("not called"); }

  std::vector<uint64_t> keys_;
  std::vector<float> priorities_;
};

// A window that the values fit exactly is drawn again, and does not take all weight from the rest
// of its batch when it is.
TEST(BatchViewTest, NoPriorityIsZero) {
  RecordingSampler sampler;
  ColumnBatch columns;
  columns.keys = {7, 3, 9, 8, 4, 10};  // Two rows of three windows.
  const std::vector<float> errors = {0, 1, 0.5};
  ASSERT_TRUE(WritePriorities(at::tensor(errors), columns, sampler).ok());
  EXPECT_THAT(sampler.keys(), ElementsAre(7, 3, 9));
  EXPECT_THAT(sampler.priorities(), Pointwise(testing::FloatEq(), {0.01f, 1.01f, 0.51f}));

  v1::TaskSizes sizes;
  sizes.set_observation_dim(1);
  sizes.set_action_dim(1);
  columns.columns.assign(kNumRowColumns, std::string(6 * sizeof(float), '\0'));
  const double exponent = 0.6;
  for (const float priority : sampler.priorities()) {
    columns.probabilities.push_back(std::pow(priority, exponent) / 100);
  }
  const auto batch = ViewBatch(
      {.transitions = 1, .windows = 3, .sizes = sizes, .importance_exponent = 0.4}, columns);
  ASSERT_TRUE(batch.ok()) << batch.status();
  const at::Tensor weights = batch->weights;
  EXPECT_EQ(weights[0].item<float>(), 1);
  EXPECT_GT(weights[1].item<float>(), 0.3);
  EXPECT_GT(weights[2].item<float>(), weights[1].item<float>());
}

}  // namespace
}  // namespace pompc
