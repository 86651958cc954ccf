#include "actor/loop/acting_policy.h"

#include <limits>
#include <memory>

#include "actor/loop/test_config.h"
#include "common/base/check.h"
#include "gtest/gtest.h"

namespace pompc {
namespace {

constexpr int kEnvironments = 3;

std::unique_ptr<ActingPolicy> MakePolicy(const ActingOptions& options = {}) {
  auto policy = ActingPolicy::Create(TestConfig(), CartpoleSizes(), options);
  POMPC_CHECK_OK(policy.status());
  return *std::move(policy);
}

at::Tensor Obs() { return at::linspace(-1, 1, kEnvironments * 5).view({kEnvironments, 5}); }
at::Tensor Flags(bool value) { return at::full({kEnvironments}, value, at::kBool); }

Decision ActAt(ActingPolicy& policy, uint64_t step) {
  auto decision = policy.Act(Obs(), Flags(false), step);
  POMPC_CHECK_OK(decision.status());
  return *std::move(decision);
}

TEST(ActingPolicyTest, ActsAtRandomBeforeTheFirstTrainedSnapshot) {
  std::unique_ptr<ActingPolicy> policy = MakePolicy();
  const Decision before = ActAt(*policy, 0);
  EXPECT_FALSE(before.planned);
  EXPECT_TRUE(at::equal(before.prior_mean, at::zeros({kEnvironments, 1})));
  EXPECT_TRUE(at::equal(before.prior_std, at::ones({kEnvironments, 1})));
  v1::ParameterSnapshot untrained = TrainedSnapshot(TestConfig(), 0, 0);
  untrained.set_trained(false);
  ASSERT_TRUE(policy->Load(untrained).ok());
  EXPECT_EQ(policy->version(), 0);
  EXPECT_FALSE(ActAt(*policy, 1).planned);
  ASSERT_TRUE(policy->Load(TrainedSnapshot(TestConfig(), 1, 10)).ok());
  EXPECT_TRUE(ActAt(*policy, 2).planned);
}

TEST(ActingPolicyTest, RandomActionsCoverTheActionRangeAndDifferBetweenEnvironmentsAndSteps) {
  std::unique_ptr<ActingPolicy> policy = MakePolicy();
  double sum = 0, sum_of_squares = 0;
  constexpr int kSteps = 500;
  for (int step = 0; step < kSteps; ++step) {
    const at::Tensor action = ActAt(*policy, step).action;
    EXPECT_LE(action.abs().max().item<float>(), 1);
    EXPECT_NE(action[0].item<float>(), action[1].item<float>());
    sum += action.sum().item<double>();
    sum_of_squares += action.square().sum().item<double>();
  }
  // Uniform on [-1, 1]: mean 0, second moment 1/3; three standard errors of 1500 draws.
  EXPECT_NEAR(sum / (kSteps * kEnvironments), 0, 0.045);
  EXPECT_NEAR(sum_of_squares / (kSteps * kEnvironments), 1. / 3, 0.024);
}

TEST(ActingPolicyTest, AnEnvironmentsRandomActionsDoNotDependOnTheActorThatRunsIt) {
  std::unique_ptr<ActingPolicy> first = MakePolicy();
  std::unique_ptr<ActingPolicy> second = MakePolicy({.first_environment = 2});
  EXPECT_EQ(ActAt(*first, 5).action[2].item<float>(), ActAt(*second, 5).action[0].item<float>());
}

TEST(ActingPolicyTest, EqualSeedsAndStepsGiveBitEqualPlans) {
  std::unique_ptr<ActingPolicy> a = MakePolicy(), b = MakePolicy();
  ASSERT_TRUE(a->Load(TrainedSnapshot(TestConfig(), 1, 10)).ok());
  ASSERT_TRUE(b->Load(TrainedSnapshot(TestConfig(), 1, 10)).ok());
  for (uint64_t step : {3, 4}) {
    const Decision x = ActAt(*a, step), y = ActAt(*b, step);
    EXPECT_TRUE(at::equal(x.action, y.action));
    EXPECT_TRUE(at::equal(x.prior_mean, y.prior_mean));
    EXPECT_TRUE(at::equal(x.prior_std, y.prior_std));
  }
  EXPECT_FALSE(at::equal(ActAt(*a, 5).action, ActAt(*b, 6).action));
}

TEST(ActingPolicyTest, UsesTheParametersOfAnotherVersionAndIgnoresTheOneItHolds) {
  std::unique_ptr<ActingPolicy> a = MakePolicy(), b = MakePolicy();
  ASSERT_TRUE(a->Load(TrainedSnapshot(TestConfig(), 2, 10, /*seed=*/1)).ok());
  ASSERT_TRUE(b->Load(TrainedSnapshot(TestConfig(), 2, 10, /*seed=*/1)).ok());
  ASSERT_TRUE(b->Load(TrainedSnapshot(TestConfig(), 2, 10, /*seed=*/2)).ok());
  EXPECT_EQ(b->version(), 2);
  EXPECT_TRUE(at::equal(ActAt(*a, 0).action, ActAt(*b, 0).action));
  ASSERT_TRUE(b->Load(TrainedSnapshot(TestConfig(), 3, 20, /*seed=*/2)).ok());
  EXPECT_EQ(b->version(), 3);
  EXPECT_EQ(b->updates(), 30);
  EXPECT_FALSE(at::equal(ActAt(*a, 1).action, ActAt(*b, 1).action));
}

TEST(ActingPolicyTest, RefusesASnapshotThatDoesNotFitAndKeepsTheOldOne) {
  std::unique_ptr<ActingPolicy> policy = MakePolicy();
  ASSERT_TRUE(policy->Load(TrainedSnapshot(TestConfig(), 1, 10)).ok());
  v1::ParameterSnapshot wrong = TrainedSnapshot(TestConfig(), 2, 20);
  wrong.mutable_data()->resize(8);
  EXPECT_EQ(policy->Load(wrong).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(policy->version(), 1);
  EXPECT_TRUE(ActAt(*policy, 0).planned);
}

TEST(ActingPolicyTest, ActsAtRandomWhenNoPlanIsFinite) {
  std::unique_ptr<ActingPolicy> policy = MakePolicy();
  ASSERT_TRUE(policy->Load(TrainedSnapshot(TestConfig(), 1, 10)).ok());
  const at::Tensor broken = at::full({kEnvironments, 5}, std::numeric_limits<float>::quiet_NaN());
  auto decision = policy->Act(broken, Flags(false), 0);
  ASSERT_TRUE(decision.ok()) << decision.status();
  EXPECT_TRUE(decision->plan_failed);
  EXPECT_FALSE(decision->planned);
  EXPECT_GT(decision->num_nonfinite, 0);
  EXPECT_LE(decision->action.abs().max().item<float>(), 1);
  EXPECT_TRUE(ActAt(*policy, 1).planned);
}

TEST(ActingPolicyTest, RefusesObservationsOfTheWrongSizeAndUnknownDevices) {
  std::unique_ptr<ActingPolicy> policy = MakePolicy();
  EXPECT_EQ(policy->Act(at::zeros({kEnvironments, 4}), Flags(false), 0).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(policy->Act(Obs(), at::zeros({1}, at::kBool), 0).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(
      ActingPolicy::Create(TestConfig(), CartpoleSizes(), {.device = "abacus"}).status().code(),
      absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace pompc
