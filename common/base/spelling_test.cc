#include "common/base/spelling.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace pompc {
namespace {

using testing::ElementsAre;

TEST(SpellingTest, DistanceCountsInsertionsDeletionsAndReplacements) {
  EXPECT_EQ(EditDistance("", ""), 0u);
  EXPECT_EQ(EditDistance("", "run"), 3u);
  EXPECT_EQ(EditDistance("walker-run", "walker_run"), 1u);
  EXPECT_EQ(EditDistance("kitten", "sitting"), 3u);
}

TEST(SpellingTest, NearestNamesComeFirstAndEquallyNearOnesKeepTheirOrder) {
  const std::vector<std::string> names = {"dog-run", "walker-run", "walker-stand", "walker-walk"};
  EXPECT_THAT(NearestNames("walker-wlak", names, 2), ElementsAre("walker-walk", "walker-run"));
  EXPECT_THAT(NearestNames("x", {"b", "a"}, 5), ElementsAre("b", "a"));
  EXPECT_THAT(NearestNames("x", {}, 5), ElementsAre());
}

}  // namespace
}  // namespace pompc
