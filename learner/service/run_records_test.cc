#include "learner/service/run_records.h"

#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "learner/service/testing.h"

namespace pompc {
namespace {

using ::pompc::testing::Lines;
using ::pompc::testing::NewFolder;
using ::pompc::testing::TestEpisode;
using ::testing::ElementsAre;

const char* const kStats[] = {"first_loss", "second_loss"};

TEST(RunRecordsTest, EveryFileHasAHeaderAndWholeRows) {
  const std::string folder = NewFolder();
  const auto records = RunRecords::Open(folder, 2, kStats, {});
  ASSERT_TRUE(records.ok()) << records.status();
  ASSERT_TRUE((*records)->AddEpisode(TestEpisode(v1::ACTOR, 1.5), {120, 90, 3.25}).ok());
  ASSERT_TRUE((*records)->AddLosses({0.5, -2}, {120, 90, 3.25}).ok());
  EXPECT_THAT(Lines(folder + "/returns.csv"),
              ElementsAre("role,actor_index,decisions_at,env_steps,return,episode_decisions,"
                          "parameter_version,updates,seconds",
                          "actor,1,100,200,1.5,20,3,90,3.250"));
  EXPECT_THAT(Lines(folder + "/losses.csv"),
              ElementsAre("updates,decisions,env_steps,seconds,first_loss,second_loss",
                          "90,120,240,3.250,0.5,-2"));
}

TEST(RunRecordsTest, ResumingDropsTheRowsAfterTheCheckpoint) {
  const std::string folder = NewFolder();
  std::map<std::string, int64_t> at_checkpoint;
  {
    const auto records = RunRecords::Open(folder, 2, kStats, {});
    ASSERT_TRUE((*records)->AddLosses({1, 1}, {10, 10, 1}).ok());
    at_checkpoint = (*records)->record_bytes();
    ASSERT_TRUE((*records)->AddLosses({2, 2}, {20, 20, 2}).ok());
  }
  const auto resumed = RunRecords::Open(folder, 2, kStats, at_checkpoint);
  ASSERT_TRUE(resumed.ok()) << resumed.status();
  ASSERT_TRUE((*resumed)->AddLosses({3, 3}, {20, 20, 3}).ok());
  EXPECT_THAT(Lines(folder + "/losses.csv"),
              ElementsAre("updates,decisions,env_steps,seconds,first_loss,second_loss",
                          "10,10,20,1.000,1,1", "20,20,40,3.000,3,3"));
}

TEST(RunRecordsTest, AFileShorterThanAtTheCheckpointIsDataLoss) {
  const std::string folder = NewFolder();
  EXPECT_TRUE(
      absl::IsDataLoss(RunRecords::Open(folder, 2, kStats, {{"losses.csv", 1000}}).status()));
}

TEST(RunRecordsTest, AFolderThatIsMissingIsNamed) {
  const auto records = RunRecords::Open("/nonexistent/run", 2, kStats, {});
  EXPECT_TRUE(absl::IsNotFound(records.status()));
  EXPECT_THAT(std::string(records.status().message()), ::testing::HasSubstr("/nonexistent/run"));
}

}  // namespace
}  // namespace pompc
