#include "actor/loop/episode_reporter.h"

#include <vector>

#include "gtest/gtest.h"

namespace pompc {
namespace {

// Gives the answers of a script, then OK; keeps what it was sent.
class ScriptedLearner final : public LearnerClient {
 public:
  explicit ScriptedLearner(std::vector<absl::Status> script) : script_(std::move(script)) {}

  std::vector<v1::ReportEpisodesRequest> reports() const {
    absl::MutexLock lock(&mu_);
    return reports_;
  }

  absl::StatusOr<v1::ReportEpisodesResponse> ReportEpisodes(
      const v1::ReportEpisodesRequest& request, absl::Time) override {
    absl::MutexLock lock(&mu_);
    reports_.push_back(request);
    if (reports_.size() <= script_.size() && !script_[reports_.size() - 1].ok()) {
      return script_[reports_.size() - 1];
    }
    v1::ReportEpisodesResponse response;
    response.set_learner_updates(100 * static_cast<int64_t>(reports_.size()));
    return response;
  }
  absl::StatusOr<v1::GetConfigResponse> GetConfig(absl::Time) override { return Unused(); }
  absl::StatusOr<v1::JoinResponse> Join(const v1::JoinRequest&, absl::Time) override {
    return Unused();
  }
  absl::StatusOr<v1::RunStatus> GetStatus(absl::Time) override { return Unused(); }
  void Close() override {}

 private:
  static absl::Status Unused() { return absl::InternalError("a reporter does not ask for this"); }

  const std::vector<absl::Status> script_;
  mutable absl::Mutex mu_;
  std::vector<v1::ReportEpisodesRequest> reports_ ABSL_GUARDED_BY(mu_);
};

v1::Episode EpisodeOf(int64_t decisions) {
  v1::Episode episode;
  episode.set_decisions(decisions);
  return episode;
}

TEST(EpisodeReporterTest, ReportsEpisodesAndKeepsTheLearnersUpdates) {
  FakeClock clock;
  ScriptedLearner learner({});
  EpisodeReporter reporter(&learner, 5, &clock);
  EXPECT_EQ(reporter.learner_updates(), 0);
  reporter.Add(EpisodeOf(1));
  ASSERT_TRUE(reporter.Flush(absl::InfiniteFuture()).ok());
  EXPECT_EQ(reporter.learner_updates(), 100);
  reporter.Add(EpisodeOf(2));
  ASSERT_TRUE(reporter.Flush(absl::InfiniteFuture()).ok());
  const auto reports = learner.reports();
  ASSERT_EQ(reports.size(), 2u);
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(reports[i].reporter_id(), 5u);
    EXPECT_EQ(reports[i].sequence(), i + 1u);
    EXPECT_EQ(reports[i].episodes(0).decisions(), i + 1);
  }
}

TEST(EpisodeReporterTest, SendsAnUnansweredReportAgainUnderTheSameSequence) {
  FakeClock clock;
  ScriptedLearner learner(
      {absl::UnavailableError("gone"), absl::InternalError("stream was reset")});
  EpisodeReporter reporter(&learner, 5, &clock);
  reporter.Add(EpisodeOf(1));
  clock.AwaitWaiters(1);  // It pauses before the next attempt.
  reporter.Add(EpisodeOf(2));
  EXPECT_EQ(reporter.Flush(clock.Now()).code(), absl::StatusCode::kDeadlineExceeded);
  for (int attempts = 1; attempts <= 2; ++attempts) {
    clock.AwaitWaiters(1);
    EXPECT_EQ(learner.reports().size(), static_cast<size_t>(attempts));
    clock.Advance(absl::Seconds(1));
    while (learner.reports().size() == static_cast<size_t>(attempts)) std::this_thread::yield();
  }
  ASSERT_TRUE(reporter.Flush(absl::InfiniteFuture()).ok());
  const auto reports = learner.reports();
  ASSERT_EQ(reports.size(), 4u);
  EXPECT_EQ(reports[0].SerializeAsString(), reports[1].SerializeAsString());
  EXPECT_EQ(reports[0].SerializeAsString(), reports[2].SerializeAsString());
  EXPECT_EQ(reports[3].sequence(), 2u);
  EXPECT_EQ(reports[3].episodes(0).decisions(), 2);
}

TEST(EpisodeReporterTest, DropsAReportThatIsRefusedAndGoesOn) {
  FakeClock clock;
  ScriptedLearner learner({absl::InvalidArgumentError("no such actor")});
  EpisodeReporter reporter(&learner, 5, &clock);
  reporter.Add(EpisodeOf(1));
  ASSERT_TRUE(reporter.Flush(absl::InfiniteFuture()).ok());
  reporter.Add(EpisodeOf(2));
  ASSERT_TRUE(reporter.Flush(absl::InfiniteFuture()).ok());
  EXPECT_EQ(learner.reports().size(), 2u);
  EXPECT_EQ(reporter.learner_updates(), 200);
}

TEST(EpisodeReporterTest, LeavesWithoutAnAnswer) {
  FakeClock clock;
  ScriptedLearner learner(std::vector<absl::Status>(10, absl::UnavailableError("gone")));
  {
    EpisodeReporter reporter(&learner, 5, &clock);
    reporter.Add(EpisodeOf(1));
    clock.AwaitWaiters(1);
  }
  EXPECT_EQ(learner.reports().size(), 1u);
}

}  // namespace
}  // namespace pompc
