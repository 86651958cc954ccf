#include "actor/loop/evaluator.h"

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

TEST(RunEvaluatorTest, LeavesWhenToldTo) {
  TestPeers t;
  t.stop.Notify();
  EXPECT_TRUE(RunEvaluator(TestConfig(), std::nullopt, t.peers()).ok());
  EXPECT_THAT(t.learner.joins(), IsEmpty());
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
