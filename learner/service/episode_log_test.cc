#include "learner/service/episode_log.h"

#include <signal.h>
#include <sys/resource.h>

#include <cmath>
#include <limits>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "learner/service/testing.h"

namespace pompc {
namespace {

using ::pompc::testing::Lines;
using ::pompc::testing::Report;
using ::pompc::testing::TestEpisode;
using ::testing::HasSubstr;

constexpr int64_t kNewest = 4;  // Version.
RunMoment Now() { return {.decisions = 1000, .updates = 900, .seconds = 12.5}; }

TEST(EpisodeLogTest, AReportSentAgainCountsOnce) {
  testing::TestFront front;
  const auto report = Report(8, 1, {TestEpisode(v1::ACTOR, 10), TestEpisode(v1::ACTOR, 20)});
  EXPECT_TRUE(front->episodes.Report(report, kNewest, Now).ok());
  EXPECT_TRUE(front->episodes.Report(report, kNewest, Now).ok());
  EXPECT_TRUE(
      front->episodes.Report(Report(9, 1, {TestEpisode(v1::ACTOR, 30)}), kNewest, Now).ok());
  v1::RunStatus status;
  front->episodes.FillStatus(&status);
  EXPECT_EQ(status.episodes(), 3);
  EXPECT_EQ(status.training_return(), 20);
  EXPECT_EQ(Lines(front.folder() + "/returns.csv").size(), 4u);
}

TEST(EpisodeLogTest, AnEvaluationIsTheMeanOverItsEpisodesInHoweverManyReports) {
  testing::TestFront front;
  EXPECT_TRUE(
      front->episodes.Report(Report(7, 1, {TestEpisode(v1::ACTOR, 10)}), kNewest, Now).ok());
  EXPECT_FALSE(front->episodes.evaluator_reported());
  EXPECT_TRUE(
      front->episodes.Report(Report(8, 1, {TestEpisode(v1::EVALUATOR, 10)}), kNewest, Now).ok());
  EXPECT_TRUE(front->episodes.evaluator_reported());
  v1::RunStatus status;
  front->episodes.FillStatus(&status);
  EXPECT_EQ(status.evaluation_decisions(), -1);
  EXPECT_FALSE(front->episodes.AwaitEvaluation(3, RealClock()->Now()));
  EXPECT_TRUE(
      front->episodes.Report(Report(8, 2, {TestEpisode(v1::EVALUATOR, 30)}), kNewest, Now).ok());
  EXPECT_TRUE(front->episodes.AwaitEvaluation(3, RealClock()->Now()));
  EXPECT_TRUE(
      front->episodes
          .Report(
              Report(8, 3, {TestEpisode(v1::EVALUATOR, 1, 4), TestEpisode(v1::EVALUATOR, 3, 4)}),
              kNewest, Now)
          .ok());
  front->episodes.FillStatus(&status);
  EXPECT_EQ(status.evaluation_return(), 2);
  EXPECT_EQ(status.best_evaluation_return(), 20);
  EXPECT_EQ(status.evaluation_decisions(), 100);
  const auto lines = Lines(front.folder() + "/evaluations.csv");
  ASSERT_EQ(lines.size(), 3u);
  EXPECT_EQ(lines[1], "100,200,2,20,10,30,12.500,900");
}

// While it lives, no file of this process grows beyond `bytes`, as on a disk that is full.
class FullDisk {
 public:
  explicit FullDisk(rlim_t bytes) : handler_(signal(SIGXFSZ, SIG_IGN)) {
    POMPC_CHECK(getrlimit(RLIMIT_FSIZE, &before_) == 0);
    const rlimit limit = {bytes, before_.rlim_max};
    POMPC_CHECK(setrlimit(RLIMIT_FSIZE, &limit) == 0);
  }
  ~FullDisk() {
    setrlimit(RLIMIT_FSIZE, &before_);
    signal(SIGXFSZ, handler_);
  }

 private:
  const sighandler_t handler_;
  rlimit before_;
};

TEST(EpisodeLogTest, AReportThatCannotBeRecordedIsToBeSentAgainAndThenCountsOnce) {
  testing::TestFront front;
  const std::string path = front.folder() + "/returns.csv";
  // The rows of the first two episodes and half the third's fit.
  const auto report = Report(
      8, 1,
      {TestEpisode(v1::EVALUATOR, 10), TestEpisode(v1::EVALUATOR, 20), TestEpisode(v1::ACTOR, 30)});
  v1::RunBooks before, after;
  front->episodes.FillBooks(&before);
  const auto header = Lines(path);
  ASSERT_EQ(header.size(), 1u);
  // The second time they fit, but not the three objects of records.jsonl.
  for (const int64_t room : {85, 200}) {
    FullDisk full(before.record_bytes().at("returns.csv") + room);
    EXPECT_TRUE(absl::IsUnavailable(front->episodes.Report(report, kNewest, Now)));
  }
  front->episodes.FillBooks(&after);
  EXPECT_EQ(after.training_episodes(), 0);
  EXPECT_FALSE(after.has_evaluation_return());
  EXPECT_EQ(Lines(path), header);
  EXPECT_EQ(Lines(front.folder() + "/evaluations.csv").size(), 1u);
  EXPECT_EQ(Lines(front.folder() + "/records.jsonl").size(), 0u);

  EXPECT_TRUE(front->episodes.Report(report, kNewest, Now).ok());
  v1::RunStatus status;
  front->episodes.FillStatus(&status);
  EXPECT_EQ(status.episodes(), 1);
  EXPECT_EQ(status.evaluation_return(), 15);
  EXPECT_EQ(Lines(path).size(), 4u);
  EXPECT_EQ(Lines(front.folder() + "/evaluations.csv").size(), 2u);
  EXPECT_EQ(Lines(front.folder() + "/records.jsonl").size(), 4u);
}

TEST(EpisodeLogTest, NamesTheFieldThatIsWrongAndCountsNothing) {
  constexpr int64_t kMost = std::numeric_limits<int64_t>::max();
  testing::TestFront front;
  const auto refusal = [&](auto change) {
    v1::Episode wrong = TestEpisode(v1::ACTOR, 1);
    change(wrong);
    return front->episodes.Report(Report(8, 1, {TestEpisode(v1::ACTOR, 1), wrong}), kNewest, Now)
        .ToString();
  };
  EXPECT_THAT(refusal([](auto& e) { e.clear_role(); }), HasSubstr("episodes[1].role"));
  EXPECT_THAT(refusal([](auto& e) { e.set_return_(std::numeric_limits<double>::quiet_NaN()); }),
              HasSubstr("episodes[1].return_"));
  EXPECT_THAT(refusal([](auto& e) { e.set_decisions(0); }), HasSubstr("episodes[1].decisions: 0"));
  EXPECT_THAT(refusal([](auto& e) { e.set_plan_seconds(-1); }), HasSubstr("plan_seconds"));
  EXPECT_THAT(refusal([](auto& e) { e.set_parameter_version(kMost); }),
              HasSubstr("episodes[1].parameter_version: 9223372036854775807 is more than 4"));
  EXPECT_THAT(refusal([](auto& e) { e.set_parameter_version(kNewest + 1); }),
              HasSubstr("episodes[1].parameter_version: 5"));
  EXPECT_THAT(refusal([](auto& e) { e.set_decisions_at(kMost); }),
              HasSubstr("episodes[1].decisions_at: 9223372036854775807 is more than 500000"));
  EXPECT_TRUE(absl::IsInvalidArgument(front->episodes.Report(Report(0, 1, {}), kNewest, Now)));
  EXPECT_TRUE(absl::IsInvalidArgument(front->episodes.Report(Report(1, 0, {}), kNewest, Now)));
  EXPECT_EQ(Lines(front.folder() + "/returns.csv").size(), 1u);
}

// A learner that died had counted more decisions than its checkpoint; and a run may go on a little
// beyond its end.
TEST(EpisodeLogTest, TakesEpisodesThatParametersOfAnEarlierProcessPlayed) {
  testing::TestFront front;
  v1::Episode episode = TestEpisode(v1::ACTOR, 1, kNewest);
  episode.set_decisions_at(Now().decisions + 700);
  EXPECT_TRUE(front->episodes.Report(Report(8, 1, {episode}), kNewest, Now).ok());
  const int64_t total = v1::RunConfig().total_decisions();
  const auto after_the_end = [&] { return RunMoment{.decisions = total + 12}; };
  episode.set_decisions_at(total + 12);
  EXPECT_TRUE(front->episodes.Report(Report(8, 2, {episode}), kNewest, after_the_end).ok());
  episode.set_decisions_at(total + 13);
  EXPECT_TRUE(absl::IsInvalidArgument(
      front->episodes.Report(Report(8, 3, {episode}), kNewest, after_the_end)));
}

TEST(EpisodeLogTest, GoesOnFromTheBooksOfACheckpoint) {
  testing::TestFront before;
  EXPECT_TRUE(before->episodes
                  .Report(Report(8, 5,
                                 {TestEpisode(v1::ACTOR, 10), TestEpisode(v1::EVALUATOR, 4),
                                  TestEpisode(v1::EVALUATOR, 6)}),
                          kNewest, Now)
                  .ok());
  v1::RunBooks books;
  before->episodes.FillBooks(&books);

  v1::RunConfig config;
  MetricsRegistry metrics;
  Gauge* const training = metrics.GetGauge("pompc_learner_training_return");
  Gauge* const evaluation = metrics.GetGauge("pompc_learner_evaluation_return");
  EpisodeLog anew(config, {}, before->records.get(), RealClock(), &metrics);
  EXPECT_EQ(training->Value(), 0);
  EXPECT_TRUE(std::isnan(evaluation->Value()));
  EpisodeLog after(config, books, before->records.get(), RealClock(), &metrics);
  EXPECT_EQ(training->Value(), 10);
  EXPECT_EQ(evaluation->Value(), 5);
  after.Open();
  EXPECT_TRUE(after.Report(Report(8, 5, {TestEpisode(v1::ACTOR, 99)}), kNewest, Now).ok());
  v1::RunStatus status;
  after.FillStatus(&status);
  EXPECT_EQ(status.episodes(), 1);
  EXPECT_EQ(status.training_return(), 10);
  EXPECT_EQ(status.best_evaluation_return(), 5);
}

}  // namespace
}  // namespace pompc
