#include "common/base/clock.h"

#include <memory>
#include <vector>

#include "common/base/thread.h"
#include "gtest/gtest.h"

namespace pompc {
namespace {

TEST(RealClockTest, NeverGoesBackAndWaitsAtLeastUntilTheDeadline) {
  Clock* clock = RealClock();
  const absl::Time deadline = clock->Now() + absl::Milliseconds(2);
  clock->SleepUntil(deadline);
  EXPECT_GE(clock->Now(), deadline);
}

TEST(RealClockTest, AwaitReturnsAtOnceWhenTheConditionHolds) {
  Event event;
  event.Notify();
  EXPECT_TRUE(event.WaitUntil(RealClock(), absl::InfinitePast()));
  EXPECT_TRUE(event.WaitUntil(RealClock(), absl::InfiniteFuture()));
}

TEST(FakeClockTest, MovesOnlyWhenAdvanced) {
  FakeClock clock(absl::FromUnixSeconds(7));
  EXPECT_EQ(clock.Now(), absl::FromUnixSeconds(7));
  clock.Advance(absl::Seconds(2));
  EXPECT_EQ(clock.Now(), absl::FromUnixSeconds(9));
}

TEST(FakeClockTest, DeadlinePassesOnlyWhenAdvancedFarEnough) {
  FakeClock clock;
  Event never, returned;
  const absl::Time deadline = clock.Now() + absl::Hours(5);
  Thread waiter("waiter", [&] {
    EXPECT_FALSE(never.WaitUntil(&clock, deadline));
    EXPECT_GE(clock.Now(), deadline);
    returned.Notify();
  });
  clock.AwaitWaiters(1);
  clock.Advance(absl::Hours(4));
  EXPECT_FALSE(returned.HasBeenNotified());
  clock.AwaitWaiters(1);
  clock.Advance(absl::Hours(1));
  returned.Wait();
}

TEST(FakeClockTest, ConditionEndsTheWaitWithoutAdvance) {
  FakeClock clock;
  Event event;
  Thread waiter("waiter",
                [&] { EXPECT_TRUE(event.WaitUntil(&clock, clock.Now() + absl::Hours(1))); });
  clock.AwaitWaiters(1);
  event.Notify();
}

// The waiter destroys its mutex right after waking; under ASan a late visit would be reported.
TEST(FakeClockTest, WaitersMayDestroyTheirMutexOnceTheyReturn) {
  FakeClock clock;
  constexpr int kThreads = 4, kRounds = 50;
  std::vector<std::unique_ptr<Thread>> threads;
  for (int i = 0; i < kThreads; ++i) {
    threads.push_back(std::make_unique<Thread>("waiter", [&] {
      for (int round = 0; round < kRounds; ++round) {
        clock.SleepUntil(clock.Now() + absl::Seconds(1));
      }
      clock.SleepUntil(absl::InfiniteFuture());  // Counts as a waiter until the end.
    }));
  }
  for (int round = 0; round < kRounds; ++round) {
    clock.AwaitWaiters(kThreads);
    clock.Advance(absl::Seconds(1));
  }
  clock.AwaitWaiters(kThreads);
  clock.Advance(absl::InfiniteDuration());
}

}  // namespace
}  // namespace pompc
