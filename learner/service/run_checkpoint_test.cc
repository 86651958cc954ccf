#include "learner/service/run_checkpoint.h"

#include <string>

#include "common/config/config.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "learner/service/testing.h"

namespace pompc {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

TEST(RunCheckpointTest, WhatIsSavedIsLoaded) {
  RunCheckpoint saved;
  saved.config = DefaultRunConfig();
  saved.config.set_seed(77);
  saved.books.set_run_id("run \"7\"");
  saved.books.set_seconds(1.0 / 3);
  (*saved.books.mutable_last_report_sequences())[uint64_t{1} << 63] = 5;
  saved.state.tensors["weights"] = at::rand({3, 5});
  const std::string path = RunCheckpointPath(testing::NewFolder());
  ASSERT_TRUE(SaveRunCheckpoint(saved, path).ok());
  const auto loaded = LoadRunCheckpoint(path);
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_EQ(loaded->config.SerializeAsString(), saved.config.SerializeAsString());
  EXPECT_EQ(loaded->books.ShortDebugString(), saved.books.ShortDebugString());
  EXPECT_TRUE(at::equal(loaded->state.tensors.at("weights"), saved.state.tensors.at("weights")));
}

TEST(RunCheckpointTest, AFileThatIsMissingOrNoCheckpointIsAnError) {
  const std::string path = RunCheckpointPath(testing::NewFolder());
  EXPECT_TRUE(absl::IsNotFound(LoadRunCheckpoint(path).status()));
  Checkpoint other;
  other.tensors["weights"] = at::rand({2});
  ASSERT_TRUE(SaveCheckpoint(other, path).ok());
  EXPECT_TRUE(absl::IsDataLoss(LoadRunCheckpoint(path).status()));
}

TEST(RunCheckpointTest, NamesEveryFieldThatMustNotDiffer) {
  const v1::RunConfig saved = DefaultRunConfig();
  v1::RunConfig wanted = saved;
  wanted.mutable_learning()->set_batch_size(13);
  wanted.mutable_learner()->set_publish_every(99);
  wanted.mutable_learning()->set_target_kl(0.5);
  wanted.set_total_decisions(17);
  const absl::Status refused = CheckResumable(saved, wanted);
  EXPECT_TRUE(absl::IsInvalidArgument(refused));
  const std::string message(refused.message());
  EXPECT_THAT(message, HasSubstr("learning.batch_size: 13, but the run to resume has 256"));
  EXPECT_THAT(message, HasSubstr("learner.publish_every: 99"));
  EXPECT_THAT(message, HasSubstr("learning.target_kl: 0.5, but the run to resume has unset"));
  EXPECT_THAT(message, Not(HasSubstr("total_decisions")));
}

TEST(RunCheckpointTest, ARunOfAVersionWithFewerFieldsGoesOn) {
  v1::RunConfig saved = DefaultRunConfig();
  saved.mutable_learning()->clear_kl_action_scaling();
  v1::RunConfig wanted = DefaultRunConfig();
  for (const bool value : {true, false}) {
    wanted.mutable_learning()->set_kl_action_scaling(value);
    EXPECT_TRUE(CheckResumable(saved, wanted).ok());
  }
}

TEST(RunCheckpointTest, WhereAndForHowLongARunIsLedMayDiffer) {
  v1::RunConfig wanted = DefaultRunConfig();
  wanted.set_total_decisions(17);
  wanted.mutable_evaluation()->set_episodes(3);
  wanted.mutable_actor()->set_num_actors(9);
  wanted.mutable_learner()->set_device("cuda");
  wanted.mutable_learner()->set_threads(3);
  wanted.mutable_learner()->set_checkpoint_every_seconds(3);
  EXPECT_TRUE(CheckResumable(DefaultRunConfig(), wanted).ok());
}

}  // namespace
}  // namespace pompc
