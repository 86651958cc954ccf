#include "actor/loop/actor_loop.h"

#include <set>
#include <string>

#include "actor/loop/test_peers.h"
#include "common/base/rng.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace pompc {
namespace {

using testing::Each;

constexpr int64_t kEpisodeRows = 7;  // 6 decisions and the last observation.

v1::ParameterSnapshot Untrained() {
  v1::ParameterSnapshot snapshot;
  return snapshot;
}

JoinedRun JoinAs(int64_t index, uint64_t writer_id) {
  JoinedRun join;
  join.answer.set_index(index);
  join.answer.set_writer_id(writer_id);
  return join;
}

std::unique_ptr<ActorLoop> MakeLoop(TestPeers& t, const JoinedRun& join = JoinAs(0, 1),
                                    int environments = 2, int groups = 1,
                                    v1::RunConfig config = TestConfig()) {
  config.mutable_actor()->set_environments_per_actor(environments);
  config.mutable_actor()->set_groups(groups);
  config.mutable_actor()->set_threads(2);
  auto episodes = Episodes::CreateGroups(config);
  POMPC_CHECK_OK(episodes.status());
  auto loop = ActorLoop::Create(config, join, *std::move(episodes), t.peers());
  POMPC_CHECK_OK(loop.status());
  return *std::move(loop);
}

// Raises `stop` once `rows` rows have been taken.
void StopAt(TestPeers& t, int64_t rows) {
  t.replay.on_append = [&t, rows] {
    if (t.replay.rows >= rows) t.stop.Notify();
  };
}

// Raises `stop` once there is a segment that was decided with parameters of so many updates.
void StopAtUpdates(TestPeers& t, int64_t wanted) {
  t.replay.on_append = [&t, wanted] {
    int64_t updates;
    const std::string& column =
        t.replay.segments.back().columns(static_cast<int>(RowColumn::kUpdates));
    std::memcpy(&updates, column.data(), sizeof(updates));
    if (updates == wanted || t.replay.rows > 50'000) t.stop.Notify();
  };
}

double Value(TestPeers& t, MetricName<MetricType::kCounter> name) {
  return t.metrics.GetCounter(name)->Value();
}

TEST(ActorLoopTest, WritesARowForEachDecisionAndOneMoreForEachEpisode) {
  TestPeers t;
  t.parameters.Publish(Untrained());
  StopAt(t, 40);
  const auto loop = MakeLoop(t);
  ASSERT_TRUE(loop->Run().ok());
  const auto episodes = Assemble(t.replay.segments);
  int64_t rows = 0, ended = 0;
  for (const auto& [id, episode] : episodes) {
    rows += episode.rows;
    if (!episode.ended) continue;
    ++ended;
    EXPECT_EQ(episode.rows, kEpisodeRows) << id;
    // The last row holds an observation and nothing else.
    EXPECT_EQ(episode.action.back(), 0) << id;
    EXPECT_EQ(episode.prior_std.back(), 0) << id;
    EXPECT_EQ(episode.prior_std.front(), 1) << id;
    EXPECT_THAT(episode.terminated, Each(0)) << id;
  }
  EXPECT_GE(ended, 4);
  EXPECT_EQ(rows, 2 * loop->decisions() + ended);
  EXPECT_EQ(Value(t, "pompc_actor_decisions_total"), 2 * loop->decisions());
  EXPECT_EQ(Value(t, "pompc_actor_env_steps_total"), 4 * loop->decisions());
  EXPECT_EQ(Value(t, "pompc_actor_episodes_total"), ended);
}

class GroupsTest : public ::testing::TestWithParam<int> {};

TEST_P(GroupsTest, RowsAreWhatTheEnvironmentGivesForTheirActions) {
  TestPeers t;
  t.parameters.Publish(TrainedSnapshot(TestConfig(), 3, 10));
  StopAt(t, 40);
  ASSERT_TRUE(MakeLoop(t, JoinAs(/*index=*/2, /*writer_id=*/9), 2, GetParam())->Run().ok());
  const auto recorded = Assemble(t.replay.segments);
  for (int e = 0; e < 2; ++e) {
    const uint64_t seed = SeedFor(TestConfig().seed(), RngRole::kEnvironment, 4 + e, 10);
    auto environment = CreateEnvironment(
        {.task = "cartpole-swingup", .seed = static_cast<uint32_t>(seed), .episode_steps = 12});
    ASSERT_TRUE(environment.ok()) << environment.status();
    for (int id : {e, e + 2}) {
      const RecordedEpisode& episode = recorded.at(id);
      std::vector<float> observation(5);
      ASSERT_TRUE((*environment)->Reset(absl::MakeSpan(observation)).ok());
      for (int64_t t = 0; t < kEpisodeRows; ++t) {
        const auto at = episode.observation.begin() + 5 * t;
        EXPECT_EQ(std::vector<float>(at, at + 5), observation) << "episode " << id << " row " << t;
        if (t == kEpisodeRows - 1) break;
        const auto result =
            (*environment)->Step({&episode.action[t], 1}, absl::MakeSpan(observation));
        ASSERT_TRUE(result.ok()) << result.status();
        EXPECT_EQ(episode.reward[t], static_cast<float>(result->reward));
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(ActorLoopTest, GroupsTest, ::testing::Values(1, 2));

TEST(ActorLoopTest, RandomRowsOfAnEnvironmentDoNotDependOnTheGroups) {
  std::map<uint64_t, RecordedEpisode> recorded[3];
  const int groups[3] = {1, 2, 5};
  for (int i = 0; i < 3; ++i) {
    TestPeers t;
    t.parameters.Publish(Untrained());
    StopAt(t, 100);
    const auto loop = MakeLoop(t, JoinAs(1, 1), /*environments=*/5, groups[i]);
    ASSERT_TRUE(loop->Run().ok());
    recorded[i] = Assemble(t.replay.segments);
    EXPECT_EQ(Value(t, "pompc_actor_episodes_total"), t.learner.episodes().size());
  }
  for (const auto& other : {recorded[1], recorded[2]}) {
    for (uint64_t id = 0; id < 10; ++id) {  // Two episodes of each environment.
      const RecordedEpisode& a = recorded[0].at(id);
      const RecordedEpisode& b = other.at(id);
      ASSERT_TRUE(a.ended && b.ended) << id;
      EXPECT_EQ(a.observation, b.observation) << id;
      EXPECT_EQ(a.action, b.action) << id;
      EXPECT_EQ(a.reward, b.reward) << id;
    }
  }
}

TEST(ActorLoopTest, GroupsPlanInTurnEachWithTheNewestParameters) {
  TestPeers t;
  int64_t version = 0;
  t.parameters.on_look = [&] {
    t.parameters.Publish(TrainedSnapshot(TestConfig(), ++version, 10));
  };
  StopAt(t, 28);
  ASSERT_TRUE(MakeLoop(t, JoinAs(0, 1), /*environments=*/2, /*groups=*/2)->Run().ok());
  const auto recorded = Assemble(t.replay.segments);
  const RecordedEpisode& first = recorded.at(0);
  const RecordedEpisode& second = recorded.at(1);
  ASSERT_TRUE(first.ended && second.ended);
  for (int row = 0; row < 6; ++row) {
    // What decided, not what was there when the step was done.
    EXPECT_LT(first.updates[row], second.updates[row]);
    if (row < 5) {
      EXPECT_LT(second.updates[row], first.updates[row + 1]);
    }
  }
  EXPECT_NE(first.action, second.action) << "both groups draw the same noise";
}

TEST(ActorLoopTest, WaitsForTheFirstSnapshot) {
  TestPeers t;
  t.parameters.TimeOutNextWait();
  t.parameters.TimeOutNextWait();
  t.parameters.PublishAtNextWait(TrainedSnapshot(TestConfig(), 5, 10));
  StopAt(t, 1);
  ASSERT_TRUE(MakeLoop(t)->Run().ok());
  EXPECT_TRUE(t.parameters.script_is_done());
  EXPECT_THAT(Assemble(t.replay.segments).at(0).updates, Each(50));
  EXPECT_GT(Value(t, "pompc_actor_params_wait_seconds_total"), 0);
}

TEST(ActorLoopTest, ActsAtRandomUntilTrainedAndUsesNewParametersFromTheNextDecisionOn) {
  TestPeers t;
  t.parameters.Publish(Untrained());
  int appends = 0;
  // Segments of 3 rows: the first two are the environments' decisions 0 to 2.
  t.replay.on_append = [&] {
    ++appends;
    if (appends == 2) t.parameters.Publish(TrainedSnapshot(TestConfig(), 1, 10));
    if (appends == 4) t.stop.Notify();
  };
  ASSERT_TRUE(MakeLoop(t)->Run().ok());
  for (const auto& [id, episode] : Assemble(t.replay.segments)) {
    EXPECT_EQ(episode.updates, std::vector<int64_t>({0, 0, 0, 10, 10, 10, 0})) << id;
    for (int row = 0; row < 3; ++row) {
      EXPECT_EQ(episode.prior_mean[row], 0);
      EXPECT_EQ(episode.prior_std[row], 1);
      EXPECT_NE(episode.prior_std[row + 3], 1);
    }
  }
  EXPECT_EQ(t.metrics.GetGauge("pompc_actor_params_version")->Value(), 1);
  EXPECT_EQ(
      t.metrics.GetHistogram("pompc_actor_plan_duration_seconds")->Collect().histogram.sample_count,
      3u);
}

std::string Recording(int64_t index, int64_t decisions) {
  TestPeers t;
  t.parameters.Publish(TrainedSnapshot(TestConfig(), 1, decisions));
  StopAt(t, 30);
  POMPC_CHECK_OK(MakeLoop(t, JoinAs(index, 1))->Run());
  std::string all;
  for (const v1::Segment& segment : t.replay.segments) all += segment.SerializeAsString();
  return all;
}

TEST(ActorLoopTest, EqualSeedsWriteBitEqualRows) {
  const std::string first = Recording(0, 10);
  EXPECT_EQ(first, Recording(0, 10));
  EXPECT_NE(first, Recording(1, 10)) << "two actors do the same";
  EXPECT_NE(first, Recording(0, 20)) << "an actor that starts again later repeats itself";
}

// What an actor does at random.
std::map<uint64_t, RecordedEpisode> SeedEpisodes(uint64_t writer_id, int64_t predecessors) {
  TestPeers t;
  v1::ParameterSnapshot untrained = Untrained();
  untrained.set_next_decisions(1000);
  t.parameters.Publish(untrained);
  StopAt(t, 14);
  JoinedRun join = JoinAs(0, writer_id);
  join.answer.set_predecessors(predecessors);
  POMPC_CHECK_OK(MakeLoop(t, join)->Run());
  return Assemble(t.replay.segments);
}

TEST(ActorLoopTest, OneThatIsRestartedInTheSeedPhaseDoesNotRepeatItself) {
  const auto first = SeedEpisodes(1, /*predecessors=*/0);
  const auto second = SeedEpisodes(2, /*predecessors=*/1);
  const auto third = SeedEpisodes(3, /*predecessors=*/2);
  for (uint64_t id : {0, 1}) {
    EXPECT_NE(first.at(id).observation, second.at(id).observation) << "start states";
    EXPECT_NE(first.at(id).action, second.at(id).action);
    EXPECT_NE(second.at(id).action, third.at(id).action);
  }
}

TEST(ActorLoopTest, EqualSeedsBeginAlikeWhenARunIsMadeAgain) {
  const auto first = SeedEpisodes(1, /*predecessors=*/0);
  const auto again = SeedEpisodes(7, /*predecessors=*/0);
  for (uint64_t id : {0, 1}) {
    EXPECT_EQ(first.at(id).observation, again.at(id).observation);
    EXPECT_EQ(first.at(id).action, again.at(id).action);
  }
}

TEST(ActorLoopTest, EndsWhenTheRunIsFinishedAndReportsItsEpisodes) {
  TestPeers t;
  t.parameters.Publish(TrainedSnapshot(TestConfig(), 4, 77));
  t.replay.on_append = [&] {
    if (t.replay.rows < 14) return;
    v1::ParameterSnapshot last = TrainedSnapshot(TestConfig(), 5, 100);
    last.set_run_finished(true);
    t.parameters.Publish(last);
  };
  const auto loop = MakeLoop(t, JoinAs(3, 8));
  ASSERT_TRUE(loop->Run().ok());
  EXPECT_EQ(loop->decisions(), 6);
  EXPECT_EQ(t.replay.flushes, 0);
  const std::vector<v1::Episode> episodes = t.learner.episodes();
  ASSERT_EQ(episodes.size(), 2u);
  const auto recorded = Assemble(t.replay.segments);
  for (int e = 0; e < 2; ++e) {
    EXPECT_EQ(episodes[e].role(), v1::ACTOR);
    EXPECT_EQ(episodes[e].actor_index(), 3);
    EXPECT_EQ(episodes[e].parameter_version(), 4);
    EXPECT_EQ(episodes[e].decisions_at(), 77);
    EXPECT_EQ(episodes[e].decisions(), 6);
    EXPECT_EQ(episodes[e].env_steps(), 12);
    double sum = 0;
    for (float reward : recorded.at(e).reward) sum += reward;
    EXPECT_NEAR(episodes[e].return_(), sum, 1e-6);
  }
}

TEST(ActorLoopTest, SendsWhatIsCollectedWhenToldToStop) {
  TestPeers t;
  t.parameters.Publish(Untrained());
  // After 4 decisions: a segment of 3 rows was sent, one row of each environment is left.
  t.parameters.on_look = [&] {
    if (Value(t, "pompc_actor_decisions_total") >= 8) t.stop.Notify();
  };
  ASSERT_TRUE(MakeLoop(t)->Run().ok());
  EXPECT_EQ(t.replay.rows, 8);
  EXPECT_EQ(t.replay.segments.size(), 4u);
  EXPECT_EQ(t.replay.flushes, 1);
}

TEST(ActorLoopTest, WaitsWhileItsParametersLagTooFarBehindTheLearner) {
  TestPeers t;
  t.learner.SetUpdates(1000);  // Told to the actor with the answer to its first report.
  t.parameters.Publish(TrainedSnapshot(TestConfig(), 1, 10));
  t.parameters.TimeOutNextWait();
  t.parameters.PublishAtNextWait(TrainedSnapshot(TestConfig(), 2, 10));   // 980 updates behind.
  t.parameters.PublishAtNextWait(TrainedSnapshot(TestConfig(), 90, 10));  // 100: allowed.
  StopAtUpdates(t, 900);
  ASSERT_TRUE(MakeLoop(t)->Run().ok());
  EXPECT_TRUE(t.parameters.script_is_done());
  std::set<int64_t> updates;
  for (const auto& [id, episode] : Assemble(t.replay.segments)) {
    for (size_t row = 0; row < 6 && row < episode.updates.size(); ++row) {
      updates.insert(episode.updates[row]);
    }
  }
  EXPECT_EQ(updates, std::set<int64_t>({10, 900})) << "20 was never acted with";
  EXPECT_GT(Value(t, "pompc_actor_params_wait_seconds_total"), 0);
}

TEST(ActorLoopTest, InLockStepDecidesUntilNewerParametersAreDueAndThenWaitsForThem) {
  TestPeers t;
  v1::RunConfig config = TestConfig();
  config.mutable_actor()->set_max_parameter_lag_updates(0);
  config.mutable_actor()->set_segment_rows(1);
  // Version, decisions when it was published, decisions that call for the next.
  const auto publish = [&](int64_t version, int64_t decisions, int64_t next) {
    v1::ParameterSnapshot snapshot = TrainedSnapshot(config, version, decisions);
    snapshot.set_next_decisions(next);
    t.parameters.PublishAtNextWait(snapshot);
  };
  publish(1, 100, 104);
  publish(2, 104, 105);
  t.parameters.TimeOutNextWait();
  publish(3, 105, 105);  // The decisions made call for more than one version.
  publish(4, 105, 106);
  publish(5, 106, 1000);
  StopAtUpdates(t, 50);
  ASSERT_TRUE(MakeLoop(t, JoinAs(0, 1), /*environments=*/1, /*groups=*/1, config)->Run().ok());
  EXPECT_TRUE(t.parameters.script_is_done());
  std::vector<int64_t> updates;
  for (const auto& [id, episode] : Assemble(t.replay.segments)) {
    updates.insert(updates.end(), episode.updates.begin(), episode.updates.end());
  }
  // After six decisions the episode's last row.
  EXPECT_EQ(updates, std::vector<int64_t>({10, 10, 10, 10, 20, 40, 0, 50}));
}

TEST(ActorLoopTest, GoesOnWithALearnerThatStartedAgainFromAnOldCheckpoint) {
  // Of 20 updates, fewer than the actor's parameters have, or of 60, more.
  for (const int64_t version : {2, 6}) {
    TestPeers t;
    t.learner.SetUpdates(1000);
    t.parameters.Publish(TrainedSnapshot(TestConfig(), 5, 10));
    // While the actor waits for newer parameters the learner loses what it had. Waiting on would be
    // for updates that no longer exist.
    v1::ParameterSnapshot restarted = TrainedSnapshot(TestConfig(), version, 10);
    restarted.set_learner_id(2);
    t.parameters.PublishAtNextWait(restarted);
    int looks = 0;
    t.parameters.on_look = [&] {
      if (!t.parameters.script_is_done()) return;
      if (looks == 0) t.learner.SetUpdates(10 * version);
      if (++looks == 100) t.stop.Notify();
    };
    StopAtUpdates(t, 10 * version);
    // One environment: no second report is under way while the actor waits.
    const absl::Status status = MakeLoop(t, JoinAs(0, 1), /*environments=*/1)->Run();
    EXPECT_TRUE(status.ok()) << status;
    EXPECT_TRUE(t.parameters.script_is_done());
    EXPECT_LT(looks, 100) << "it still waits";
  }
}

TEST(ActorLoopTest, KeepsItsRowsWhileReplayIsBusy) {
  TestPeers busy, idle;
  for (TestPeers* t : {&busy, &idle}) {
    t->parameters.Publish(TrainedSnapshot(TestConfig(), 1, 10));
    StopAt(*t, 30);
  }
  busy.replay.busy_appends = 5;
  ASSERT_TRUE(MakeLoop(busy)->Run().ok());
  ASSERT_TRUE(MakeLoop(idle)->Run().ok());
  ASSERT_EQ(busy.replay.segments.size(), idle.replay.segments.size());
  for (size_t i = 0; i < idle.replay.segments.size(); ++i) {
    EXPECT_EQ(busy.replay.segments[i].SerializeAsString(),
              idle.replay.segments[i].SerializeAsString());
  }
  EXPECT_EQ(busy.replay.busy_appends, 0);
}

TEST(ActorLoopTest, GivesUpWhenReplayRefusesItsRows) {
  TestPeers t;
  t.parameters.Publish(Untrained());
  t.replay.error = absl::FailedPreconditionError("other columns");
  EXPECT_EQ(MakeLoop(t)->Run(), t.replay.error);
}

TEST(ActorLoopTest, ActsWithoutLearnerForFiveMinutesAndThenGivesUp) {
  TestPeers t;
  t.parameters.Publish(Untrained());
  const absl::Time start = t.clock.Now();
  t.replay.on_append = [&] {
    t.parameters.SetStatus(absl::UnavailableError("connection refused"));
    t.learner.SetError(absl::UnavailableError("connection refused"));
    t.clock.Advance(absl::Seconds(10));
  };
  const absl::Status status = MakeLoop(t)->Run();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(status.message()), testing::HasSubstr("connection refused"));
  EXPECT_GE(t.clock.Now() - start, absl::Minutes(5));
  EXPECT_LE(t.clock.Now() - start, absl::Minutes(6));
  EXPECT_GE(t.replay.segments.size(), 30u);
}

TEST(ActorLoopTest, JoinsAgainAsTheProcessThatItIs) {
  TestPeers t;
  const auto join = JoinRun(t.peers(), v1::ACTOR, std::nullopt, CartpoleSizes());
  ASSERT_TRUE(join.ok()) << join.status();
  t.LoseStreamFor(/*joins=*/3);
  ASSERT_TRUE(MakeLoop(t, *join)->Run().ok());
  t.ExpectOneJoinRepeated();
}

TEST(ActorLoopTest, RefusesAnIndexBeyondTheRandomStreams) {
  TestPeers t;
  v1::RunConfig config = TestConfig();
  config.mutable_actor()->set_environments_per_actor(2);
  auto episodes = Episodes::CreateGroups(config);
  ASSERT_TRUE(episodes.ok());
  EXPECT_EQ(ActorLoop::Create(TestConfig(), JoinAs(1 << 23, 1), *std::move(episodes), t.peers())
                .status()
                .code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace pompc
