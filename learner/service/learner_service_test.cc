#include "learner/service/learner_service.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "learner/client/remote_learner_client.h"
#include "learner/service/testing.h"

namespace pompc {
namespace {

using ::pompc::testing::JoinAs;
using ::pompc::testing::Report;
using ::pompc::testing::TestEpisode;
using ::testing::HasSubstr;

class LearnerServiceTest : public ::testing::Test {
 protected:
  absl::Time Soon() { return RealClock()->Now() + absl::Seconds(20); }

  testing::TestFront front_;
  RemoteLearnerClient client_{front_.channel(), 1, RealClock(), front_.metrics()};
};

TEST_F(LearnerServiceTest, GivesConfigAndRunId) {
  const auto config = client_.GetConfig(Soon());
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->run_id(), "test-run");
  EXPECT_EQ(config->config().environment().action_repeat(), 2);
}

TEST_F(LearnerServiceTest, LetsInWhoFitsAndTellsTheOthersWhy) {
  const auto joined = client_.Join(JoinAs(v1::ACTOR), Soon());
  ASSERT_TRUE(joined.ok()) << joined.status();
  EXPECT_GE(joined->writer_id(), 1u);
  v1::JoinRequest other = JoinAs(v1::EVALUATOR);
  other.mutable_sizes()->set_observation_dim(17);
  const auto refused = client_.Join(other, Soon());
  EXPECT_TRUE(absl::IsFailedPrecondition(refused.status()));
  EXPECT_THAT(std::string(refused.status().message()), HasSubstr("observation_dim: 17"));
  other.clear_role();
  EXPECT_TRUE(absl::IsInvalidArgument(client_.Join(other, Soon()).status()));
}

TEST_F(LearnerServiceTest, AReportIsAnsweredWithTheLearnersUpdates) {
  RunProgress::Counts counts;
  counts.updates = 321;
  front_->progress.Set(counts);
  const int64_t version = front_->publisher.Publish({});
  const auto answer =
      client_.ReportEpisodes(Report(1, 1, {TestEpisode(v1::ACTOR, 5, version)}), Soon());
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_EQ(answer->learner_updates(), 321);
  const auto status = client_.GetStatus(Soon());
  ASSERT_TRUE(status.ok()) << status.status();
  EXPECT_EQ(status->updates(), 321);
  EXPECT_EQ(status->episodes(), 1);
  EXPECT_EQ(status->training_return(), 5);
}

TEST_F(LearnerServiceTest, AReportThatIsWrongIsRefused) {
  v1::Episode episode = TestEpisode(v1::ACTOR, 5);
  episode.set_env_steps(-4);
  const auto answer = client_.ReportEpisodes(Report(1, 1, {episode}), Soon());
  EXPECT_TRUE(absl::IsInvalidArgument(answer.status()));
  EXPECT_THAT(std::string(answer.status().message()), HasSubstr("env_steps: -4"));
  const auto unknown =
      client_.ReportEpisodes(Report(1, 1, {TestEpisode(v1::ACTOR, 5, /*version=*/0)}), Soon());
  EXPECT_TRUE(absl::IsInvalidArgument(unknown.status())) << "nothing is published yet";
}

}  // namespace
}  // namespace pompc
