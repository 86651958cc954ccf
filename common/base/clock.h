// Clock: the time, and waiting for a time or a condition. Code that waits or measures takes a
// Clock*, so that tests neither sleep nor depend on the machine's speed.
//
// RealClock() is the process's clock: wall time when the process started plus monotonic time since,
// so that it never jumps when the system's clock is set. FakeClock stands still until Advance().
//
// Event is a flag raised once ("stop now") that threads wait for on a clock.
//
// Thread-safety: all classes are thread-safe.
#ifndef POMPC_COMMON_BASE_CLOCK_H_
#define POMPC_COMMON_BASE_CLOCK_H_

#include <list>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace pompc {

class Clock {
 public:
  virtual ~Clock() = default;

  virtual absl::Time Now() = 0;

  // Like absl::Mutex::AwaitWithDeadline, on this clock: blocks until `condition` holds or Now()
  // reaches `deadline`, without holding `mu` meanwhile. Returns whether the condition holds.
  virtual bool AwaitUntil(absl::Mutex* mu, const absl::Condition& condition, absl::Time deadline)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu) = 0;

  // Blocks until Now() reaches `deadline`.
  void SleepUntil(absl::Time deadline);
};

// Never destroyed.
Clock* RealClock();

// A clock for tests. AwaitUntil() wakes when Advance() reaches its deadline or its condition holds.
class FakeClock final : public Clock {
 public:
  explicit FakeClock(absl::Time start = absl::FromUnixSeconds(1'000'000)) : now_(start) {}

  absl::Time Now() override;
  bool AwaitUntil(absl::Mutex* mu, const absl::Condition& condition, absl::Time deadline) override
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);

  // Moves time forward by `duration` >= 0 and wakes whoever waited for it. The caller must hold no
  // mutex that a waiter uses.
  void Advance(absl::Duration duration);

  // Blocks until at least `count` threads are in AwaitUntil().
  void AwaitWaiters(int count);

 private:
  struct Waiter {
    absl::Mutex* mu;
    int visitors = 0;  // Advance() calls that are about to lock `mu`, which must stay alive.
  };

  // Never held while a waiter's mutex is locked.
  absl::Mutex lock_;
  absl::Time now_ ABSL_GUARDED_BY(lock_);
  std::list<Waiter> waiters_ ABSL_GUARDED_BY(lock_);
};

// Starts lowered; Notify() raises it for good.
class Event {
 public:
  void Notify();
  bool HasBeenNotified() const;
  // Blocks until raised.
  void Wait() const;
  // Blocks until raised or `clock` reaches `deadline`; returns whether it is raised.
  bool WaitUntil(Clock* clock, absl::Time deadline) const;

 private:
  mutable absl::Mutex mu_;
  bool notified_ ABSL_GUARDED_BY(mu_) = false;
};

}  // namespace pompc

#endif  // POMPC_COMMON_BASE_CLOCK_H_
