// BoundedQueue: a first-in first-out queue of limited length between threads. The limit is what
// makes a slow reader slow its writer instead of growing memory.
//
// It ends in one of two ways: Drain() refuses new items and lets readers take what is left; Close()
// also drops what is left. Both wake everybody who waits and may be repeated; Close() may follow
// Drain().
//
// Thread-safety: thread-safe, any number of writers and readers. Waits are on the clock given.
// Errors: CANCELLED once closed or drained (and, for readers, empty); DEADLINE_EXCEEDED.
#ifndef POMPC_COMMON_BASE_BOUNDED_QUEUE_H_
#define POMPC_COMMON_BASE_BOUNDED_QUEUE_H_

#include <deque>
#include <optional>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/base/check.h"
#include "common/base/clock.h"

namespace pompc {

template <typename T>
class BoundedQueue {
 public:
  // Holds up to `capacity` >= 1 items.
  explicit BoundedQueue(size_t capacity, Clock* clock = RealClock())
      : capacity_(capacity), clock_(clock) {
    POMPC_CHECK(capacity >= 1);
  }

  // Blocks while the queue is full. The item is lost when this fails.
  absl::Status Push(T item, absl::Time deadline = absl::InfiniteFuture()) {
    absl::MutexLock lock(&mu_);
    if (!clock_->AwaitUntil(&mu_, absl::Condition(this, &BoundedQueue::PushDecided), deadline)) {
      return absl::DeadlineExceededError("queue is full");
    }
    if (ended_) return absl::CancelledError("queue has ended");
    items_.push_back(std::move(item));
    return absl::OkStatus();
  }

  // Does not wait; false, and `item` untouched, when the queue is full or has ended.
  bool TryPush(T& item) {
    absl::MutexLock lock(&mu_);
    if (ended_ || items_.size() >= capacity_) return false;
    items_.push_back(std::move(item));
    return true;
  }

  // Blocks while the queue is empty.
  absl::StatusOr<T> Pop(absl::Time deadline = absl::InfiniteFuture()) {
    absl::MutexLock lock(&mu_);
    if (!clock_->AwaitUntil(&mu_, absl::Condition(this, &BoundedQueue::PopDecided), deadline)) {
      return absl::DeadlineExceededError("queue is empty");
    }
    if (items_.empty()) return absl::CancelledError("queue has ended");
    return TakeFront();
  }

  // Does not wait; nothing when the queue is empty.
  std::optional<T> TryPop() {
    absl::MutexLock lock(&mu_);
    if (items_.empty()) return std::nullopt;
    return TakeFront();
  }

  void Drain() {
    absl::MutexLock lock(&mu_);
    ended_ = true;
  }

  void Close() {
    std::deque<T> dropped;  // Destroyed outside the lock.
    absl::MutexLock lock(&mu_);
    ended_ = true;
    dropped.swap(items_);
  }

  size_t size() const {
    absl::MutexLock lock(&mu_);
    return items_.size();
  }

 private:
  bool PushDecided() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    return ended_ || items_.size() < capacity_;
  }
  bool PopDecided() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) { return ended_ || !items_.empty(); }
  T TakeFront() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    T item = std::move(items_.front());
    items_.pop_front();
    return item;
  }

  const size_t capacity_;
  Clock* const clock_;
  mutable absl::Mutex mu_;
  std::deque<T> items_ ABSL_GUARDED_BY(mu_);
  bool ended_ ABSL_GUARDED_BY(mu_) = false;
};

}  // namespace pompc

#endif  // POMPC_COMMON_BASE_BOUNDED_QUEUE_H_
