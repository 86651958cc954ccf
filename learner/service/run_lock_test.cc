#include "learner/service/run_lock.h"

#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "learner/service/testing.h"

namespace pompc {
namespace {

TEST(RunLockTest, IsHeldByOneAtATimeAndNamesTheHolder) {
  const std::string folder = testing::NewFolder();
  auto first = RunLock::Acquire(folder);
  ASSERT_TRUE(first.ok()) << first.status();
  const auto second = RunLock::Acquire(folder);
  EXPECT_TRUE(absl::IsAborted(second.status())) << second.status();
  EXPECT_THAT(std::string(second.status().message()),
              ::testing::HasSubstr(absl::StrCat("the learner with pid ", getpid(), " on ")));
  first->reset();
  EXPECT_TRUE(RunLock::Acquire(folder).ok());
}

TEST(RunLockTest, NeedsTheFolder) {
  EXPECT_TRUE(absl::IsNotFound(RunLock::Acquire(testing::NewFolder() + "/none").status()));
}

}  // namespace
}  // namespace pompc
