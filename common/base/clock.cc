#include "common/base/clock.h"

#include <iterator>
#include <vector>

#include "absl/time/clock.h"
#include "common/base/check.h"

namespace pompc {
namespace {

class ProcessClock final : public Clock {
 public:
  absl::Time Now() override {
    return start_ + absl::FromChrono(std::chrono::steady_clock::now() - steady_start_);
  }

  bool AwaitUntil(absl::Mutex* mu, const absl::Condition& condition, absl::Time deadline) override
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu) {
    // Abseil waits on the wall clock, which may be set meanwhile: look again before giving up.
    while (!mu->AwaitWithTimeout(condition, deadline - Now())) {
      if (Now() >= deadline) return false;
    }
    return true;
  }

 private:
  const absl::Time start_ = absl::Now();
  const std::chrono::steady_clock::time_point steady_start_ = std::chrono::steady_clock::now();
};

}  // namespace

void Clock::SleepUntil(absl::Time deadline) {
  absl::Mutex mu;
  absl::MutexLock lock(&mu);
  const bool never = false;
  AwaitUntil(&mu, absl::Condition(&never), deadline);
}

Clock* RealClock() {
  static ProcessClock* const clock = new ProcessClock;
  return clock;
}

absl::Time FakeClock::Now() {
  absl::MutexLock lock(&lock_);
  return now_;
}

bool FakeClock::AwaitUntil(absl::Mutex* mu, const absl::Condition& condition, absl::Time deadline) {
  struct Wake {
    FakeClock* clock;
    const absl::Condition* condition;
    absl::Time deadline;
  } wake{this, &condition, deadline};
  const auto done = +[](Wake* w) { return w->condition->Eval() || w->clock->Now() >= w->deadline; };
  while (!done(&wake)) {
    std::list<Waiter>::iterator waiter;
    {
      absl::MutexLock lock(&lock_);
      waiter = waiters_.insert(waiters_.end(), Waiter{mu});
    }
    mu->Await(absl::Condition(done, &wake));
    // Advance() may hold on to `mu`: let it finish before the caller can destroy the mutex.
    mu->Unlock();
    {
      absl::MutexLock lock(&lock_);
      lock_.Await(absl::Condition(
          +[](Waiter* w) { return w->visitors == 0; }, &*waiter));
      waiters_.erase(waiter);
    }
    mu->Lock();
  }
  return condition.Eval();
}

void FakeClock::Advance(absl::Duration duration) {
  POMPC_CHECK(duration >= absl::ZeroDuration());
  std::vector<Waiter*> visits;  // List nodes stay where they are while they are being visited.
  {
    absl::MutexLock lock(&lock_);
    now_ += duration;
    for (Waiter& w : waiters_) {
      ++w.visitors;
      visits.push_back(&w);
    }
  }
  for (Waiter* w : visits) {
    // A mutex evaluates the conditions of its waiters when it is unlocked.
    w->mu->Lock();
    w->mu->Unlock();
    absl::MutexLock lock(&lock_);
    --w->visitors;
  }
}

void FakeClock::AwaitWaiters(int count) {
  struct Enough {
    FakeClock* clock;
    size_t count;
  } enough{this, static_cast<size_t>(count)};
  absl::MutexLock lock(&lock_);
  lock_.Await(absl::Condition(
      +[](Enough* e)
           ABSL_NO_THREAD_SAFETY_ANALYSIS { return e->clock->waiters_.size() >= e->count; },
      &enough));
}

void Event::Notify() {
  absl::MutexLock lock(&mu_);
  notified_ = true;
}

bool Event::HasBeenNotified() const {
  absl::MutexLock lock(&mu_);
  return notified_;
}

void Event::Wait() const {
  absl::MutexLock lock(&mu_);
  mu_.Await(absl::Condition(&notified_));
}

bool Event::WaitUntil(Clock* clock, absl::Time deadline) const {
  absl::MutexLock lock(&mu_);
  return clock->AwaitUntil(&mu_, absl::Condition(&notified_), deadline);
}

}  // namespace pompc
