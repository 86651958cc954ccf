#include "replay/client/shard_plan.h"

#include <algorithm>
#include <numeric>
#include <vector>

#include "common/base/check.h"
#include "common/base/rng.h"
#include "gtest/gtest.h"

namespace pompc {
namespace {

v1::RateLimits Limits(int64_t seed, int64_t pretrain, double updates_per_decision, double ahead,
                      double behind) {
  v1::RateLimits limits;
  limits.set_seed_decisions(seed);
  limits.set_pretrain_updates(pretrain);
  limits.set_updates_per_decision(updates_per_decision);
  limits.set_max_updates_ahead(ahead);
  limits.set_max_updates_behind(behind);
  return limits;
}

ShardPlan MakePlan(const v1::RateLimits& limits, int shards) {
  auto plan = ShardPlan::Create(limits, shards, 0);
  POMPC_CHECK_OK(plan.status());
  return *std::move(plan);
}

// Without priorities.
ShardPlan::Counts Counts(int64_t decisions, int64_t windows) {
  return {.decisions = decisions, .windows = windows, .weight = static_cast<double>(windows)};
}

// Servers as the plan sees them: each stores decisions up to its grant; a decision is a window.
struct Servers {
  explicit Servers(int count) : decisions(count), grants(count) {}
  int64_t sum() const { return std::accumulate(decisions.begin(), decisions.end(), int64_t{0}); }

  // A round in which `writes(server)` decisions arrive at each that is not `lost`.
  template <typename Writes>
  void Round(ShardPlan& plan, Writes writes, int lost = -1) {
    std::vector<int64_t> next(decisions.size(), 0);
    if (plan.Known()) next = plan.Grants();
    for (int i = 0; i < static_cast<int>(decisions.size()); ++i) {
      if (i == lost) {
        plan.Lost(i);
        continue;
      }
      // Some before the new grant arrives, some after.
      for (const bool granted : {false, true}) {
        if (granted) grants[i] = next[i];
        const int64_t room = std::max<int64_t>(0, grants[i] - decisions[i]);
        decisions[i] += std::min<int64_t>(room, writes(i));
      }
      plan.Answered(i, next[i], Counts(decisions[i], decisions[i]));
    }
  }

  std::vector<int64_t> decisions, grants;
};

TEST(ShardPlanTest, WindowsComeFromEachShardInProportionToWhatItStores) {
  ShardPlan plan = MakePlan(Limits(0, 0, 1, 1e12, 1e12), 4);
  const std::vector<int64_t> windows = {9000, 900, 0, 100};
  for (int i = 0; i < 4; ++i) plan.Answered(i, 0, Counts(10, windows[i]));
  constexpr int kBatches = 1000, kBatch = 256;
  std::vector<int64_t> drawn(4);
  for (int n = 0; n < kBatches; ++n) {
    for (const int shard : plan.Assign(/*seed=*/3, kBatch)) ++drawn[shard];
    plan.Sampled();
  }
  EXPECT_EQ(drawn[2], 0);
  double chi_square = 0;
  for (const int i : {0, 1, 3}) {
    const double expected = 1e-4 * static_cast<double>(windows[i]) * kBatches * kBatch;
    chi_square += (drawn[i] - expected) * (drawn[i] - expected) / expected;
  }
  EXPECT_LT(chi_square, 13.8) << "2 degrees of freedom: 1 in 1000";
}

TEST(ShardPlanTest, AssignmentFollowsFromSeedAndBatch) {
  ShardPlan a = MakePlan(Limits(0, 0, 1, 1e12, 1e12), 2), b = a;
  for (ShardPlan* const plan : {&a, &b}) {
    for (int i = 0; i < 2; ++i) plan->Answered(i, 0, Counts(10, 10));
  }
  const std::vector<int> first = a.Assign(1, 64);
  EXPECT_EQ(first, b.Assign(1, 64));
  EXPECT_NE(first, b.Assign(2, 64));
  b.Sampled();
  EXPECT_NE(first, b.Assign(1, 64));
}

// Whatever arrives where and when, and while a server is away.
TEST(ShardPlanTest, KeepsTheBandOverAllShards) {
  constexpr int kShards = 3;
  constexpr int64_t kSeed = 100, kPretrain = 60;
  constexpr double kUtd = 0.5, kAhead = 9, kBehind = 10;
  ShardPlan plan = MakePlan(Limits(kSeed, kPretrain, kUtd, kAhead, kBehind), kShards);
  Servers servers(kShards);
  Rng rng(1, RngRole::kTest, 0, 0);
  double lowest = 0, highest = 0;
  for (int round = 0; round < 20'000; ++round) {
    const int lost = round % 100 < 20 ? static_cast<int>(round / 100 % kShards) : -1;
    servers.Round(
        plan, [&](int i) { return rng.UniformInt(i == 0 ? 12 : 3); }, lost);
    if (!plan.Known()) continue;
    ASSERT_LE(plan.decisions(), servers.sum());
    if (plan.CanSample() && rng.UniformInt(3) == 0) plan.Sampled();
    const double lead = static_cast<double>(plan.batches() - kPretrain) -
                        kUtd * static_cast<double>(servers.sum() - kSeed);
    if (plan.batches() >= kPretrain) {
      lowest = std::min(lowest, lead);
      highest = std::max(highest, lead);
    } else {
      ASSERT_LE(servers.sum(), kSeed + kShards);
    }
  }
  EXPECT_LE(highest, kAhead);
  EXPECT_GE(lowest, -kBehind - kUtd * kShards);
  EXPECT_LT(lowest, -kBehind + 1) << "the band was not used";
  EXPECT_GT(plan.batches(), 4000) << "hardly anything moved";
}

TEST(ShardPlanTest, LockStepGoesOnHoweverWritersAreSpread) {
  ShardPlan plan = MakePlan(Limits(20, 5, 1, 0, 1), 4);
  Servers servers(4);
  for (int round = 0; round < 1000; ++round) {
    servers.Round(plan, [](int i) { return i == 2 ? 1 : 0; });  // All to one.
    if (plan.CanSample()) plan.Sampled();
  }
  EXPECT_GT(plan.batches(), 300);
  EXPECT_LE(std::abs((plan.batches() - 5) - (servers.sum() - 20)), 1 + 4);
}

TEST(ShardPlanTest, AShardPassesOnWhatItDoesNotUse) {
  ShardPlan plan = MakePlan(Limits(250, 10, 1, 5, 5), 2);
  Servers servers(2);
  for (int round = 0; round < 40; ++round) {
    servers.Round(plan, [](int i) { return i == 0 ? 1000 : 0; });
  }
  EXPECT_GE(servers.sum(), 250);
  EXPECT_LE(servers.sum(), 252);
  EXPECT_TRUE(plan.CanSample());
}

TEST(ShardPlanTest, NothingIsDrawnFromALostShardAndItsDecisionsStillCount) {
  ShardPlan plan = MakePlan(Limits(0, 0, 1, 5, 5), 2);
  plan.Answered(0, 0, Counts(30, 30));
  EXPECT_FALSE(plan.Known());
  plan.Answered(1, 0, Counts(50, 50));
  ASSERT_TRUE(plan.Known());
  plan.Lost(1);
  EXPECT_EQ(plan.decisions(), 80);
  for (const int shard : plan.Assign(1, 100)) EXPECT_EQ(shard, 0);
  plan.Lost(0);
  EXPECT_FALSE(plan.CanSample());
}

}  // namespace
}  // namespace pompc
