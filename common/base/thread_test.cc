#include "common/base/thread.h"

#include <atomic>
#include <optional>
#include <string>

#include "gtest/gtest.h"

namespace pompc {
namespace {

TEST(ThreadTest, BodySeesTheNameCutToFifteenCharacters) {
  char name[16] = {};
  Thread thread("learner-prefetch-7", [&] { pthread_getname_np(pthread_self(), name, 16); });
  thread.Join();
  EXPECT_EQ(std::string(name), "learner-prefetc");
}

TEST(ThreadTest, DestructorWaitsForTheBody) {
  int value = 0;
  {
    Thread thread("setter", [&] { value = 1; });
  }
  EXPECT_EQ(value, 1);
}

TEST(ThreadTest, ReplacingAThreadJoinsTheOldOne) {
  std::atomic<int> value = 0;  // Both run at the same time before the old one is joined.
  Thread thread("first", [&] { value += 1; });
  thread = Thread("second", [&] { value += 10; });
  thread.Join();
  EXPECT_EQ(value, 11);
}

}  // namespace
}  // namespace pompc
