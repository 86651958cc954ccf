// Part of every program of a ThreadSanitizer build, and of no other. It makes absl::Mutex visible
// to the sanitizer: Debian's Abseil is compiled without it, so each access that a mutex orders
// would be reported as a race. The functions below take the place of the library's, for our code
// and for gRPC's alike, tell the sanitizer what is about to happen and call the library's.
//
// Between the two halves of an announcement the sanitizer looks away. That is where the library
// evaluates the conditions of Await(), of the calling thread and of others, so those reads go
// unchecked; everything else that a mutex guards is checked.
#include <dlfcn.h>
#include <sanitizer/tsan_interface.h>

#include <utility>

#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/base/check.h"

// What libraries do on their own account is not ours to judge: without instrumentation the atomics
// that order it are unseen.
extern "C" const char* __tsan_default_options() {
  return "ignore_noninstrumented_modules=1:second_deadlock_stack=1";
}

// gRPC hands the state of a call from thread to thread by reference counts inside its library,
// which are unseen too. These functions of its headers touch that state and call none of ours.
// OnDone() of our streams is called when no other function of theirs runs any more, by such a
// count; and the function that makes a stream has returned before any other of it is called.
// CallbackWithStatusTag calls the callback of a unary call; ours store its status, no more.
extern "C" const char* __tsan_default_suppressions() {
  return R"(
race:grpc::SerializationTraits
race:grpc::internal::CallOp
race:grpc::internal::CallbackWithStatusTag
race:grpc::internal::CallbackWithSuccessTag::Clear
race:grpc::internal::CallbackWithSuccessTag::Set
race:grpc::internal::InterceptorBatchMethodsImpl
race_top:grpc::internal::
race:pompc::*::OnDone
race:pompc::Publisher::Subscribe(
)";
}

namespace absl {
ABSL_NAMESPACE_BEGIN
namespace {

// The function of this mangled name in the libraries after the program.
template <typename Function>
Function* InLibrary(const char* name) {
  void* const found = dlsym(RTLD_NEXT, name);
  POMPC_CHECK(found != nullptr) << name;
  return reinterpret_cast<Function*>(found);
}

// Set while the library runs: some of its functions call others, which must not announce again.
thread_local bool inside = false;

class Announced {
 public:
  enum Kind { kLock, kTryLock, kUnlock, kWait };

  Announced(Mutex* mutex, Kind kind) : mutex_(mutex), kind_(kind) {
    if (kind == kUnlock || kind == kWait) __tsan_mutex_pre_unlock(mutex, 0);
    if (kind == kWait) __tsan_mutex_post_unlock(mutex, 0);
    if (kind != kUnlock) __tsan_mutex_pre_lock(mutex, Flags());
    inside = true;
  }
  ~Announced() {
    inside = false;
    if (kind_ == kUnlock) {
      __tsan_mutex_post_unlock(mutex_, 0);
    } else {
      __tsan_mutex_post_lock(mutex_, Flags() | (failed_ ? __tsan_mutex_try_lock_failed : 0), 0);
    }
  }
  void TryFailed() { failed_ = true; }

 private:
  unsigned Flags() const { return kind_ == kTryLock ? __tsan_mutex_try_lock : 0; }

  Mutex* const mutex_;
  const Kind kind_;
  bool failed_ = false;
};

template <typename Result, typename... Args, typename... Given>
Result Call(Announced::Kind kind, Mutex* mutex, Result (*library)(Args...), Given&&... given) {
  if (inside) return library(std::forward<Given>(given)...);
  Announced announced(mutex, kind);
  return library(std::forward<Given>(given)...);
}

}  // namespace

void Mutex::Lock() {
  static auto* const library = InLibrary<void(Mutex*)>("_ZN4absl7debian35Mutex4LockEv");
  Call(Announced::kLock, this, library, this);
}

void Mutex::Unlock() {
  static auto* const library = InLibrary<void(Mutex*)>("_ZN4absl7debian35Mutex6UnlockEv");
  Call(Announced::kUnlock, this, library, this);
}

bool Mutex::TryLock() {
  static auto* const library = InLibrary<bool(Mutex*)>("_ZN4absl7debian35Mutex7TryLockEv");
  if (inside) return library(this);
  Announced announced(this, Announced::kTryLock);
  const bool locked = library(this);
  if (!locked) announced.TryFailed();
  return locked;
}

void Mutex::Await(const Condition& condition) {
  static auto* const library =
      InLibrary<void(Mutex*, const Condition&)>("_ZN4absl7debian35Mutex5AwaitERKNS0_9ConditionE");
  Call(Announced::kWait, this, library, this, condition);
}

bool Mutex::AwaitWithTimeout(const Condition& condition, Duration timeout) {
  static auto* const library = InLibrary<bool(Mutex*, const Condition&, Duration)>(
      "_ZN4absl7debian35Mutex16AwaitWithTimeoutERKNS0_9ConditionENS0_8DurationE");
  return Call(Announced::kWait, this, library, this, condition, timeout);
}

bool Mutex::AwaitWithDeadline(const Condition& condition, Time deadline) {
  static auto* const library = InLibrary<bool(Mutex*, const Condition&, Time)>(
      "_ZN4absl7debian35Mutex17AwaitWithDeadlineERKNS0_9ConditionENS0_4TimeE");
  return Call(Announced::kWait, this, library, this, condition, deadline);
}

void CondVar::Wait(Mutex* mutex) {
  static auto* const library =
      InLibrary<void(CondVar*, Mutex*)>("_ZN4absl7debian37CondVar4WaitEPNS0_5MutexE");
  Call(Announced::kWait, mutex, library, this, mutex);
}

bool CondVar::WaitWithTimeout(Mutex* mutex, Duration timeout) {
  static auto* const library = InLibrary<bool(CondVar*, Mutex*, Duration)>(
      "_ZN4absl7debian37CondVar15WaitWithTimeoutEPNS0_5MutexENS0_8DurationE");
  return Call(Announced::kWait, mutex, library, this, mutex, timeout);
}

bool CondVar::WaitWithDeadline(Mutex* mutex, Time deadline) {
  static auto* const library = InLibrary<bool(CondVar*, Mutex*, Time)>(
      "_ZN4absl7debian37CondVar16WaitWithDeadlineEPNS0_5MutexENS0_4TimeE");
  return Call(Announced::kWait, mutex, library, this, mutex, deadline);
}

ABSL_NAMESPACE_END
}  // namespace absl
