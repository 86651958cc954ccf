#include "replay/server/rate_limiter.h"

#include "common/base/rng.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace pompc {
namespace {

using ::testing::HasSubstr;

v1::RateLimits Limits(int64_t seed, int64_t pretrain, double ratio, double ahead, double behind) {
  v1::RateLimits limits;
  limits.set_seed_decisions(seed);
  limits.set_pretrain_updates(pretrain);
  limits.set_updates_per_decision(ratio);
  limits.set_max_updates_ahead(ahead);
  limits.set_max_updates_behind(behind);
  return limits;
}

std::string Refusal(const v1::RateLimits& limits) {
  const absl::Status status = RateLimiter::Create(limits).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  return std::string(status.message());
}

TEST(RateLimiterTest, RefusesLimitsThatWouldDeadlock) {
  EXPECT_THAT(Refusal(Limits(10, 10, 1, 0, 0)), HasSubstr("must be at least 1"));
  EXPECT_THAT(Refusal(Limits(10, 10, 1, 0.5, 0.25)), HasSubstr("0.75"));
  EXPECT_TRUE(RateLimiter::Create(Limits(10, 10, 1, 0, 1)).ok());
  EXPECT_TRUE(RateLimiter::Create(Limits(10, 10, 1, 1, 0)).ok());
}

TEST(RateLimiterTest, RefusesValuesOutOfRangeAndNamesThem) {
  EXPECT_THAT(Refusal(Limits(-1, 0, 1, 1, 1)), HasSubstr("seed_decisions: -1"));
  EXPECT_THAT(Refusal(Limits(0, -1, 1, 1, 1)), HasSubstr("pretrain_updates: -1"));
  EXPECT_THAT(Refusal(Limits(0, 0, 0, 1, 1)), HasSubstr("updates_per_decision: 0"));
  EXPECT_THAT(Refusal(Limits(0, 0, std::nan(""), 1, 1)), HasSubstr("updates_per_decision: nan"));
  EXPECT_THAT(Refusal(Limits(0, 0, 1, -1, 3)), HasSubstr("max_updates_ahead"));
  EXPECT_THAT(Refusal(Limits(0, 0, 1, 1, HUGE_VAL)), HasSubstr("max_updates_behind"));
}

TEST(RateLimiterTest, InsertsGoOnWhileNothingCanBeDrawn) {
  auto limiter = RateLimiter::Create(Limits(2, 1000, 1, 0, 1));
  ASSERT_TRUE(limiter.ok());
  limiter->Inserted(500);  // Episodes shorter than a window, say.
  EXPECT_TRUE(limiter->CanInsert(/*has_window=*/false));
  EXPECT_FALSE(limiter->CanSample(/*has_window=*/false));
}

// Decisions until inserts are refused, counted.
int64_t CountRoom(RateLimiter limiter) {
  int64_t room = 0;
  for (; room < 1000 && limiter.CanInsert(true); ++room) limiter.Inserted(1);
  return room;
}

TEST(RateLimiterTest, RoomIsWhatMayBeInsertedWithoutABatch) {
  auto limiter = RateLimiter::Create(Limits(20, 10, 0.25, 5, 7));
  ASSERT_TRUE(limiter.ok());
  EXPECT_EQ(limiter->InsertRoom(true), 20);
  Rng rng(1, RngRole::kTest, 0, 0);
  for (int step = 0; step < 500; ++step) {
    ASSERT_EQ(limiter->InsertRoom(true), CountRoom(*limiter))
        << limiter->decisions() << " decisions, " << limiter->updates() << " updates";
    if (rng.UniformInt(2) == 0 && limiter->CanSample(true)) limiter->Sampled();
    if (rng.UniformInt(2) == 0 && limiter->CanInsert(true)) limiter->Inserted(1);
  }
  EXPECT_GT(limiter->updates(), 50);
  EXPECT_GE(limiter->InsertRoom(/*has_window=*/false), 1);
}

TEST(RateLimiterTest, AGrantReplacesTheLimits) {
  auto limiter = RateLimiter::Create(Limits(20, 10, 1, 5, 5));
  ASSERT_TRUE(limiter.ok());
  limiter->Grant(0);
  EXPECT_FALSE(limiter->CanInsert(/*has_window=*/false));
  limiter->Grant(30);
  limiter->Inserted(29);
  EXPECT_TRUE(limiter->CanInsert(true));
  limiter->Inserted(1);
  EXPECT_FALSE(limiter->CanInsert(true));
}

TEST(RateLimiterTest, LockStepAllowsExactlyOneSideAtATime) {
  auto limiter = RateLimiter::Create(Limits(5, 3, 1, 0, 1));
  ASSERT_TRUE(limiter.ok());
  std::string order;
  for (int i = 0; i < 16; ++i) {
    ASSERT_NE(limiter->CanInsert(true), limiter->CanSample(true)) << "after " << order;
    if (limiter->CanInsert(true)) {
      limiter->Inserted(1);
      order += 'i';
    } else {
      limiter->Sampled();
      order += 's';
    }
  }
  EXPECT_EQ(order, "iiiiisssisisisis");
}

// Random limits and a random order of requests: some side can always go on, and the lead stays
// inside the band, up to one segment.
TEST(RateLimiterTest, NeverDeadlocksAndNeverLeavesTheBand) {
  for (int trial = 0; trial < 200; ++trial) {
    Rng rng(1, RngRole::kTest, 0, trial);
    const v1::RateLimits limits =
        Limits(rng.UniformInt(20), rng.UniformInt(20), rng.Uniform(0.01, 5), rng.Uniform(0, 3),
               1 + rng.Uniform(0, 3));
    auto limiter = RateLimiter::Create(limits);
    ASSERT_TRUE(limiter.ok());
    const int64_t segment = 1 + rng.UniformInt(10);
    for (int step = 0; step < 1000; ++step) {
      const bool insert = limiter->CanInsert(true);
      const bool sample = limiter->CanSample(true);
      ASSERT_TRUE(insert || sample) << limits.ShortDebugString() << " step " << step;
      if (insert && (!sample || rng.UniformInt(2) == 0)) {
        limiter->Inserted(segment);
      } else {
        limiter->Sampled();
      }
      const double lead =
          limiter->updates() - limits.pretrain_updates() -
          limits.updates_per_decision() * (limiter->decisions() - limits.seed_decisions());
      if (limiter->updates() > limits.pretrain_updates()) {
        EXPECT_LE(lead, limits.max_updates_ahead() + 1e-9);
        // The last seed segment may exceed the seed phase by all its rows but one.
        EXPECT_GE(lead, -limits.max_updates_behind() - segment * limits.updates_per_decision());
      }
    }
  }
}

}  // namespace
}  // namespace pompc
