#include "learner/service/run_progress.h"

#include "gtest/gtest.h"

namespace pompc {
namespace {

TEST(RunProgressTest, RatesAreThoseOfTheLastSeconds) {
  FakeClock clock;
  RunProgress progress(1000, 2, 60, &clock);
  RunProgress::Counts counts;
  counts.phase = "training";
  counts.planning = true;
  // 100 slow seconds, then 10 fast ones.
  for (int second = 0; second < 110; ++second) {
    const int64_t rate = second < 100 ? 1 : 50;
    counts.updates += rate;
    counts.decisions += 2 * rate;
    progress.Set(counts);
    clock.Advance(absl::Seconds(1));
  }
  progress.Set(counts);
  v1::RunStatus status;
  progress.FillStatus(&status);
  EXPECT_EQ(status.phase(), "training");
  EXPECT_EQ(status.env_steps(), 2 * counts.decisions);
  EXPECT_EQ(status.seconds(), 170);
  EXPECT_NEAR(status.updates_per_second(), 50, 10);
  EXPECT_NEAR(status.decisions_per_second(), 100, 20);
  EXPECT_EQ(status.plans_per_second(), status.decisions_per_second());
  const RunMoment now = progress.Now();
  EXPECT_EQ(now.time, clock.Now());
  EXPECT_EQ(now.seconds, 170);
  EXPECT_EQ(now.updates_per_second, status.updates_per_second());
  EXPECT_EQ(now.decisions_per_second, status.decisions_per_second());
}

TEST(RunProgressTest, HasNoRatesAtFirst) {
  FakeClock clock;
  RunProgress progress(1000, 2, 0, &clock);
  v1::RunStatus status;
  progress.FillStatus(&status);
  EXPECT_EQ(status.phase(), "waiting");
  EXPECT_EQ(status.updates_per_second(), 0);
  progress.Set({});
  progress.FillStatus(&status);
  EXPECT_EQ(status.updates_per_second(), 0);
}

}  // namespace
}  // namespace pompc
