// The small numeric parts of actor/env that have an answer of their own; how they work together is
// checked by suite_fixture_test.cc.
#include "actor/env/numerics.h"

#include <vector>

#include "actor/env/random_state.h"
#include "actor/env/tasks/spline_zoom.h"
#include "actor/env/tolerance.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace pompc::dmc {
namespace {

// Expected values: numpy.random.RandomState(0).
TEST(RandomStateTest, DrawsAsNumpy) {
  RandomState rand(0), randn(0), randint(0), word(0);
  for (const double expected : {0.5488135039273248, 0.7151893663724195, 0.6027633760716439}) {
    EXPECT_DOUBLE_EQ(rand.Rand(), expected);
  }
  for (const double expected : {1.764052345967664, 0.4001572083672233, 0.9787379841057392}) {
    EXPECT_DOUBLE_EQ(randn.Randn(), expected);
  }
  for (const uint32_t expected : {5u, 0u, 3u, 3u, 7u, 9u, 3u, 5u, 2u, 4u}) {
    EXPECT_EQ(randint.Randint(10), expected);
  }
  EXPECT_EQ(word.NextWord(), 2357136044u);
}

TEST(RandomStateTest, ContinuesFromASavedStateWithItsCachedGaussian) {
  RandomState original(5), copy(6);
  original.Randn();
  std::vector<uint32_t> words;
  original.Save(&words);
  ASSERT_TRUE(copy.Load(words));
  for (int i = 0; i < 1000; ++i) ASSERT_EQ(copy.Randn(), original.Randn());
  words.pop_back();
  EXPECT_FALSE(copy.Load(words));
}

TEST(ToleranceTest, IsOneInsideAndValueAtMarginOneMarginAway) {
  for (const Sigmoid sigmoid : {Sigmoid::kGaussian, Sigmoid::kLinear, Sigmoid::kQuadratic,
                                Sigmoid::kLongTail, Sigmoid::kReciprocal}) {
    const Tolerance tolerance(
        {.lower = 1, .upper = 2, .margin = 3, .sigmoid = sigmoid, .value_at_margin = 0.25});
    EXPECT_EQ(tolerance(1), 1);
    EXPECT_EQ(tolerance(2), 1);
    EXPECT_NEAR(tolerance(-2), 0.25, 1e-12);
    EXPECT_NEAR(tolerance(5), 0.25, 1e-12);
    EXPECT_LT(tolerance(3), 1);
    EXPECT_NEAR(tolerance.Mean({1., 5.}), 0.625, 1e-12);
  }
}

TEST(ToleranceTest, IsAnIndicatorWithoutMargin) {
  const Tolerance tolerance({.lower = 1, .upper = 2});
  EXPECT_EQ(tolerance(1.5), 1);
  EXPECT_EQ(tolerance(2.0001), 0);
}

TEST(SplineZoomTest, PassesThroughTheSamples) {
  RandomState random(0);
  constexpr int kInput = 6, kOutput = 2 * kInput - 1;
  std::vector<double> image(kInput * kInput);
  random.Uniform(-1, 1, absl::MakeSpan(image));
  const std::vector<double> zoomed = SplineZoom(image, kInput, kOutput);
  ASSERT_EQ(zoomed.size(), static_cast<size_t>(kOutput * kOutput));
  for (int i = 0; i < kInput; ++i) {
    for (int j = 0; j < kInput; ++j) {
      EXPECT_NEAR(zoomed[2 * i * kOutput + 2 * j], image[i * kInput + j], 1e-12);
    }
  }
}

TEST(SplineZoomTest, KeepsAConstant) {
  EXPECT_THAT(SplineZoom(std::vector<double>(16, 0.5), 4, 9),
              ::testing::Each(::testing::DoubleNear(0.5, 1e-12)));
}

}  // namespace
}  // namespace pompc::dmc
