// What a ThreadSanitizer build is worth: it reports races, and takes absl::Mutex for the order it
// is.
#include <cstdlib>

#include "absl/synchronization/mutex.h"
#include "common/base/thread.h"
#include "gtest/gtest.h"

namespace pompc {
namespace {

// Two threads add to one number, and a third waits for it.
[[noreturn]] void Count(bool locked) {
  struct {
    absl::Mutex mutex;
    int value = 0;
  } count;
  {
    const auto add = [&] {
      for (int i = 0; i < 1000; ++i) {
        if (locked) {
          absl::MutexLock lock(&count.mutex);
          ++count.value;
        } else {
          ++count.value;
        }
      }
    };
    Thread first("first", add);
    Thread second("second", add);
    if (locked) {
      absl::MutexLock lock(&count.mutex);
      count.mutex.Await(absl::Condition(
          +[](int* value) { return *value == 2000; }, &count.value));
      ++count.value;
    }
  }
  std::exit(count.value == 2001 ? 0 : 1);
}

TEST(TsanMutexDeathTest, AMutexOrdersWhatItGuards) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(Count(true), testing::ExitedWithCode(0), "");
}

TEST(TsanMutexDeathTest, WhatNothingOrdersIsReported) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(Count(false), testing::ExitedWithCode(66), "data race");
}

}  // namespace
}  // namespace pompc
