#include "actor/loop/evaluator.h"

#include <atomic>
#include <functional>

#include "actor/loop/test_peers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace pompc {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::SizeIs;

std::vector<double> Returns(const std::vector<v1::Episode>& episodes) {
  std::vector<double> returns;
  for (const v1::Episode& episode : episodes) returns.push_back(episode.return_());
  return returns;
}

TEST(EvaluatorTest, EveryEvaluationHasTheSameStartStatesAndDraws) {
  auto evaluator = Evaluator::Create(TestConfig());
  ASSERT_TRUE(evaluator.ok()) << evaluator.status();
  FakeClock clock;
  Event stop;
  std::vector<std::vector<double>> returns;
  for (int64_t version : {1, 2, 3}) {
    const uint64_t networks = version == 3 ? 2 : 1;
    auto episodes = (*evaluator)
                        ->Evaluate(TrainedSnapshot(TestConfig(), version, 100 * version, networks),
                                   &clock, stop);
    ASSERT_TRUE(episodes.ok()) << episodes.status();
    ASSERT_THAT(*episodes, SizeIs(2));
    for (const v1::Episode& episode : *episodes) {
      EXPECT_EQ(episode.decisions(), 6);
      EXPECT_EQ(episode.env_steps(), 12);
      EXPECT_EQ(episode.parameter_version(), version);
      EXPECT_EQ(episode.decisions_at(), 100 * version);
    }
    returns.push_back(Returns(*episodes));
  }
  EXPECT_EQ(returns[0], returns[1]);
  EXPECT_NE(returns[0], returns[2]) << "other networks";
  EXPECT_NE(returns[0][0], returns[0][1]) << "the two start states are one";
}

TEST(EvaluatorTest, AnotherEvaluatorOfTheSameRunGivesTheSameReturns) {
  FakeClock clock;
  Event stop;
  std::vector<std::vector<double>> returns;
  for (int i = 0; i < 2; ++i) {
    auto evaluator = Evaluator::Create(TestConfig());
    ASSERT_TRUE(evaluator.ok());
    auto episodes = (*evaluator)->Evaluate(TrainedSnapshot(TestConfig(), 4, 0), &clock, stop);
    ASSERT_TRUE(episodes.ok());
    returns.push_back(Returns(*episodes));
  }
  EXPECT_EQ(returns[0], returns[1]);
}

TEST(EvaluatorTest, RecordsItsFirstEpisode) {
  auto evaluator = Evaluator::Create(TestConfig());
  ASSERT_TRUE(evaluator.ok());
  FakeClock clock;
  Event stop;
  EpisodeRecording recording;
  for (int64_t version : {1, 2}) {
    const auto episodes = (*evaluator)
                              ->Evaluate(TrainedSnapshot(TestConfig(), version, 0, version), &clock,
                                         stop, &recording);
    ASSERT_TRUE(episodes.ok());
    ASSERT_THAT(recording.states, SizeIs(6));
    for (int64_t i = 0; i < 6; ++i) EXPECT_EQ(recording.states[i].episode_step, 2 * i);
    ASSERT_THAT(recording.returns, SizeIs(6));
    EXPECT_EQ(recording.returns.back(), episodes->front().return_());
  }
}

TEST(EvaluatorTest, StopsInTheMiddleOfAnEvaluation) {
  auto evaluator = Evaluator::Create(TestConfig());
  ASSERT_TRUE(evaluator.ok());
  FakeClock clock;
  Event stop;
  stop.Notify();
  EXPECT_EQ(
      (*evaluator)->Evaluate(TrainedSnapshot(TestConfig(), 1, 0), &clock, stop).status().code(),
      absl::StatusCode::kCancelled);
}

TEST(RunEvaluatorTest, EvaluatesWhenTheNextMultipleIsReachedAndAtTheEnd) {
  TestPeers t;
  v1::ParameterSnapshot untrained = TrainedSnapshot(TestConfig(), 0, 150);
  untrained.set_trained(false);
  t.parameters.PublishAtNextWait(untrained);
  int64_t version = 0;
  for (int64_t decisions : {50, 100, 150, 310, 390, 400}) {
    t.parameters.TimeOutNextWait();
    t.parameters.PublishAtNextWait(TrainedSnapshot(TestConfig(), ++version, decisions));
  }
  v1::ParameterSnapshot last = TrainedSnapshot(TestConfig(), 7, 420);
  last.set_run_finished(true);
  t.parameters.PublishAtNextWait(last);

  ASSERT_TRUE(RunEvaluator(TestConfig(), 6, t.peers()).ok());
  std::vector<int64_t> decisions, versions;
  for (const v1::Episode& episode : t.learner.episodes()) {
    decisions.push_back(episode.decisions_at());
    versions.push_back(episode.parameter_version());
    EXPECT_EQ(episode.role(), v1::EVALUATOR);
    EXPECT_EQ(episode.actor_index(), 6);
  }
  EXPECT_THAT(decisions, ElementsAre(100, 100, 310, 310, 400, 400, 420, 420));
  EXPECT_THAT(versions, ElementsAre(2, 2, 4, 4, 6, 6, 7, 7));
  ASSERT_THAT(t.learner.joins(), SizeIs(1));
  EXPECT_EQ(t.learner.joins()[0].role(), v1::EVALUATOR);
  EXPECT_EQ(t.learner.joins()[0].index(), 6);
  EXPECT_NE(t.learner.joins()[0].nonce(), 0u);
  EXPECT_EQ(t.learner.joins()[0].sizes().observation_dim(), 5);
}

TEST(RunEvaluatorTest, MakesNoEvaluationTwiceAndRepeatsThoseThatTheLearnerLost) {
  TestPeers t;
  t.learner.SetEvaluationDecisions(310);  // Of a run that goes on: the next is due at 400.
  int64_t version = 0;
  // From 420 the learner goes back to a checkpoint at 425 without that evaluation, and from 430 to
  // one at 180.
  for (int64_t decisions : {350, 420, 425, 430, 180, 210, 220}) {
    v1::ParameterSnapshot snapshot = TrainedSnapshot(TestConfig(), ++version, decisions);
    snapshot.set_learner_id(version < 3 ? 1 : version < 5 ? 2 : 3);
    snapshot.set_run_finished(version == 7);
    t.parameters.PublishAtNextWait(snapshot);
  }
  int looks = 0;
  t.parameters.on_look = [&] {
    ++looks;
    if (looks != 3 && looks != 5) return;
    t.learner.SetEvaluationDecisions(looks == 3 ? 310 : 150);
  };
  ASSERT_TRUE(RunEvaluator(TestConfig(), 6, t.peers()).ok());
  std::vector<int64_t> decisions;
  for (const v1::Episode& episode : t.learner.episodes()) {
    decisions.push_back(episode.decisions_at());
  }
  EXPECT_THAT(decisions, ElementsAre(420, 420, 425, 425, 210, 210, 220, 220));
}

TEST(RunEvaluatorTest, JoinsAgainAsTheProcessThatItIs) {
  TestPeers t;
  t.LoseStreamFor(/*joins=*/3);
  ASSERT_TRUE(RunEvaluator(TestConfig(), std::nullopt, t.peers()).ok());
  t.ExpectOneJoinRepeated();
}

TEST(RunEvaluatorTest, LeavesWhenToldTo) {
  TestPeers t;
  t.stop.Notify();
  EXPECT_TRUE(RunEvaluator(TestConfig(), std::nullopt, t.peers()).ok());
  EXPECT_THAT(t.learner.joins(), IsEmpty());
}

// Lets a process join once; what else it does is the test's to say.
class ScriptedLearner final : public LearnerClient {
 public:
  std::function<absl::Status()> on_join_again;
  std::function<void()> on_report = [] {};
  std::atomic<int> episodes = 0;

  absl::StatusOr<v1::GetConfigResponse> GetConfig(absl::Time) override {
    return absl::UnimplementedError("not called");
  }
  absl::StatusOr<v1::JoinResponse> Join(const v1::JoinRequest&, absl::Time) override {
    if (joined_) return on_join_again();
    joined_ = true;
    return v1::JoinResponse();
  }
  absl::StatusOr<v1::ReportEpisodesResponse> ReportEpisodes(
      const v1::ReportEpisodesRequest& request, absl::Time) override {
    on_report();
    episodes += request.episodes_size();
    return v1::ReportEpisodesResponse();
  }
  absl::StatusOr<v1::RunStatus> GetStatus(absl::Time) override { return v1::RunStatus(); }
  void Close() override {}

 private:
  bool joined_ = false;
};

TEST(RunEvaluatorTest, ALongEvaluationIsNoAbsenceOfTheLearner) {
  TestPeers t;
  ScriptedLearner learner;
  learner.on_join_again = [] { return absl::UnavailableError("gone"); };
  v1::ParameterSnapshot last = TrainedSnapshot(TestConfig(), 3, 110);
  last.set_run_finished(true);
  t.parameters.PublishAtNextWait(TrainedSnapshot(TestConfig(), 1, 50));
  t.parameters.PublishAtNextWait(TrainedSnapshot(TestConfig(), 2, 100));
  t.parameters.TimeOutNextWait();
  t.parameters.PublishAtNextWait(last);
  int looks = 0;
  t.parameters.on_look = [&] {
    if (++looks != 2) return;
    // As if the evaluation of the snapshot that this look finds took so long.
    t.clock.Advance(kLearnerPatience + absl::Minutes(1));
    t.parameters.SetStatus(absl::UnavailableError("gone"));
  };
  ActingPeers peers = t.peers();
  peers.learner = &learner;
  ASSERT_EQ(RunEvaluator(TestConfig(), 6, peers), absl::OkStatus());
  EXPECT_EQ(learner.episodes, 4);
}

TEST(RunEvaluatorTest, ReportsWhatItHasWhenItEndsWithAnError) {
  TestPeers t;
  ScriptedLearner learner;
  Event reporting, refused;
  learner.on_report = [&] {
    reporting.Notify();
    refused.Wait();
  };
  learner.on_join_again = [&] {
    refused.Notify();
    return absl::FailedPreconditionError("another run");
  };
  t.parameters.PublishAtNextWait(TrainedSnapshot(TestConfig(), 1, 100));
  t.parameters.PublishAtNextWait(TrainedSnapshot(TestConfig(), 2, 200));
  int looks = 0;
  t.parameters.on_look = [&] {
    // So that the second evaluation waits behind the report of the first.
    if (++looks == 2) reporting.Wait();
    if (looks == 3) t.parameters.SetStatus(absl::UnavailableError("gone"));
  };
  ActingPeers peers = t.peers();
  peers.learner = &learner;
  EXPECT_EQ(RunEvaluator(TestConfig(), 6, peers), absl::FailedPreconditionError("another run"));
  EXPECT_EQ(learner.episodes, 4);
}

TEST(RunEvaluatorTest, GivesUpWithoutLearner) {
  TestPeers t;
  t.parameters.SetStatus(absl::UnavailableError("connection refused"));
  t.parameters.on_look = [&] { t.learner.SetError(absl::UnavailableError("connection refused")); };
  EXPECT_EQ(RunEvaluator(TestConfig(), std::nullopt, t.peers()).code(),
            absl::StatusCode::kUnavailable);
}

}  // namespace
}  // namespace pompc
