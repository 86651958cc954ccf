#include "replay/server/sum_tree.h"

#include <cmath>
#include <numeric>
#include <vector>

#include "common/base/check.h"
#include "common/base/rng.h"
#include "gtest/gtest.h"

namespace pompc {
namespace {

SumTree MakeTree(size_t leaves) {
  auto tree = SumTree::Create(leaves);
  POMPC_CHECK_OK(tree.status());
  return *std::move(tree);
}

double Sum(const std::vector<double>& weights) {
  return std::accumulate(weights.begin(), weights.end(), 0.0);
}

// Exact for any order of the leaves: counts how often each is found on a fine grid of points.
TEST(SumTreeTest, FindsEachLeafInProportionToItsWeight) {
  for (const size_t leaves : {1, 2, 3, 7, 8, 100}) {
    SumTree tree = MakeTree(leaves);
    Rng rng(1, RngRole::kTest, 0, leaves);
    std::vector<double> weights(leaves);
    for (size_t i = 0; i < leaves; ++i) {
      weights[i] = static_cast<double>(rng.UniformInt(5));  // Some 0.
      tree.Set(i, weights[i]);
    }
    weights[0] = 3;
    tree.Set(0, 3);
    ASSERT_EQ(tree.total(), Sum(weights));
    std::vector<double> found(leaves);
    const int points = static_cast<int>(Sum(weights)) * 16;
    for (int p = 0; p < points; ++p) {
      found[tree.Find((p + 0.5) / 16)] += 1.0 / 16;
    }
    EXPECT_EQ(found, weights) << leaves << " leaves";
  }
}

TEST(SumTreeTest, StaysExactAfterMillionsOfWrites) {
  constexpr size_t kLeaves = 1000;
  SumTree tree = MakeTree(kLeaves);
  std::vector<double> weights(kLeaves);
  Rng rng(2, RngRole::kTest, 0, 0);
  for (int write = 0; write < 3'000'000; ++write) {
    const size_t leaf = rng.UniformInt(kLeaves);
    // From 1e-12 to 1e12: sums of differences would have lost the small ones.
    weights[leaf] = std::pow(10, rng.Uniform(-12, 12));
    tree.Set(leaf, weights[leaf]);
  }
  EXPECT_NEAR(tree.total() / Sum(weights), 1, 1e-13);
  // All but the small ones go: the rest is not buried under what was there.
  for (size_t i = 0; i < kLeaves; ++i) {
    if (weights[i] > 1e-6) tree.Set(i, weights[i] = 0);
  }
  EXPECT_NEAR(tree.total() / Sum(weights), 1, 1e-13);
  for (int draw = 0; draw < 10'000; ++draw) {
    EXPECT_GT(weights[tree.Find(rng.Uniform() * tree.total())], 0);
  }
}

TEST(SumTreeTest, NeverFindsALeafOfWeightZeroAtTheEnds) {
  SumTree tree = MakeTree(5);
  for (size_t only = 0; only < 5; ++only) {
    tree.Set(only, 0.1);
    EXPECT_EQ(tree.Find(0), only);
    EXPECT_EQ(tree.Find(std::nextafter(0.1, 0.0)), only);
    tree.Set(only, 0);
  }
  EXPECT_EQ(tree.total(), 0);
}

}  // namespace
}  // namespace pompc
