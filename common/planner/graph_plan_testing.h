// What tests of plans on a GPU share.
#ifndef POMPC_COMMON_PLANNER_GRAPH_PLAN_TESTING_H_
#define POMPC_COMMON_PLANNER_GRAPH_PLAN_TESTING_H_

#include <ATen/ATen.h>

#include <limits>
#include <optional>

#include "common/model/noise.h"
#include "gtest/gtest.h"

namespace pompc {

inline constexpr float kInfinity = std::numeric_limits<float>::infinity();

inline double MaxError(const at::Tensor& actual, const at::Tensor& expected) {
  return (actual.to(at::kDouble) - expected.to(at::kDouble)).abs().max().item<double>();
}

// Skipped without a GPU.
class GpuTest : public testing::Test {
 protected:
  void SetUp() override {
    if (!at::hasCUDA()) GTEST_SKIP() << "this machine has no GPU";
    noise_.emplace(5, gpu_);
  }
  at::Tensor Normal(at::IntArrayRef shape) { return noise_->Normal(shape); }

  const at::TensorOptions gpu_ = at::TensorOptions(at::kFloat).device(at::kCUDA);
  std::optional<GeneratorNoise> noise_;  // Of the test, not of plans.
};

}  // namespace pompc

#endif  // POMPC_COMMON_PLANNER_GRAPH_PLAN_TESTING_H_
