// In lock-step the distributed program is the in-process loop: real services behind a socket, one
// actor, compared bit for bit.
#include <stdlib.h>

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "actor/loop/actor_loop.h"
#include "cli/in_process_run.h"
#include "common/base/check.h"
#include "common/base/status_macros.h"
#include "common/base/thread.h"
#include "common/config/config.h"
#include "common/rpc/channel.h"
#include "common/rpc/server.h"
#include "gtest/gtest.h"
#include "learner/client/remote_learner_client.h"
#include "learner/client/remote_parameter_subscriber.h"
#include "learner/service/learner_run.h"
#include "learner/service/learner_service.h"
#include "replay/client/remote_writer.h"
#include "replay/server/service.h"
#include "replay/server/tables.h"

namespace pompc {
namespace {

constexpr int64_t kEpisodes = 3;  // Of 30 decisions.

// Updates from decision 40 to 100, over the ends of three episodes, a reanalyze every other update.
v1::RunConfig LockStepConfig(const std::vector<std::string>& more) {
  std::vector<std::string> sets = {"actor.max_parameter_lag_updates=0",
                                   "actor.segment_rows=1",
                                   "replay.rate_tolerance_updates=1",
                                   "replay.journal=NONE",
                                   "environment.episode_steps=60",
                                   "environment.action_repeat=2",
                                   "model.latent_dim=16",
                                   "model.encoder_dim=16",
                                   "model.mlp_dim=16",
                                   "model.num_value_heads=2",
                                   "planner.num_samples=16",
                                   "planner.num_policy_samples=2",
                                   "planner.num_elites=4",
                                   "planner.iterations=2",
                                   "learning.batch_size=8",
                                   "learning.seed_decisions=40",
                                   "learning.seed_episodes=1",
                                   "learning.pretrain_updates=10",
                                   "learning.reanalyze_windows=4",
                                   "learning.reanalyze_interval=2",
                                   "learner.publish_every=1",
                                   "total_decisions=100"};
  sets.insert(sets.end(), more.begin(), more.end());
  const absl::StatusOr<v1::RunConfig> config = LoadRunConfig("pompc", "", sets);
  POMPC_CHECK_OK(config.status());
  return *config;
}

// What a run leaves behind.
struct Outcome {
  std::map<std::string, at::Tensor> state;  // Parameters, optimiser, scales, counts.
  std::vector<double> returns;              // Of the episodes, in order.
  std::map<uint64_t, std::string> rows;     // All columns, by key.
};

// Every row, as it is stored now. The run must be over: its limiter forgets the updates made.
std::map<uint64_t, std::string> StoredRows(Replay& replay) {
  v1::ConfigureRequest from_pretraining;
  *from_pretraining.mutable_table() = replay.Info().table();
  from_pretraining.set_updates_done(0);
  POMPC_CHECK_OK(replay.Configure(from_pretraining));
  LocalSampler sampler(/*batch_size=*/4096, &replay, RealClock());  // 40 times each window.
  ColumnBatch batch;
  POMPC_CHECK_OK(sampler.Next(RealClock()->Now() + absl::Seconds(60), &batch));
  std::map<uint64_t, std::string> rows;
  for (size_t i = 0; i < batch.keys.size(); ++i) {
    if (rows.contains(batch.keys[i])) continue;
    std::string& row = rows[batch.keys[i]];
    for (const std::string& column : batch.columns) {
      const size_t bytes = column.size() / batch.keys.size();
      row.append(column, i * bytes, bytes);
    }
  }
  return rows;
}

Outcome InProcess(const v1::RunConfig& config) {
  Outcome outcome;
  const auto run = InProcessRun::Create(config);
  POMPC_CHECK_OK(run.status());
  while (!(*run)->Complete()) {
    const absl::StatusOr<InProcessRun::Progress> progress = (*run)->Step();
    POMPC_CHECK_OK(progress.status());
    for (const v1::Episode& episode : progress->episodes) {
      outcome.returns.push_back(episode.return_());
    }
  }
  outcome.state = (*run)->Save().tensors;
  outcome.rows = StoredRows((*run)->replay());
  return outcome;
}

// What pompc-actor does.
absl::Status Act(const std::string& address) {
  Clock* const clock = RealClock();
  const Event stop;
  MetricsRegistry metrics;
  const std::shared_ptr<grpc::Channel> channel = CreateChannel(address);
  RemoteLearnerClient learner(channel, 1, clock, &metrics);
  const auto run = learner.GetConfig(clock->Now() + absl::Seconds(60));
  POMPC_RETURN_IF_ERROR(run.status());
  const v1::RunConfig& config = run->config();
  RemoteParameterSubscriber parameters(channel, 1, clock, &metrics);
  ActingPeers peers{.learner = &learner,
                    .parameters = &parameters,
                    .clock = clock,
                    .stop = &stop,
                    .metrics = &metrics};
  POMPC_ASSIGN_OR_RETURN(std::vector<std::unique_ptr<Episodes>> groups,
                         Episodes::CreateGroups(config));
  POMPC_ASSIGN_OR_RETURN(const JoinedRun join,
                         JoinRun(peers, v1::ACTOR, std::nullopt, groups.front()->sizes()));
  RemoteWriter replay({.writer_id = join.answer.writer_id(), .reconnect = {}}, channel, clock,
                      &metrics);
  peers.replay = &replay;
  POMPC_ASSIGN_OR_RETURN(const std::unique_ptr<ActorLoop> loop,
                         ActorLoop::Create(config, join, std::move(groups), peers));
  return loop->Run();
}

Outcome Distributed(const v1::RunConfig& config) {
  LearnerRunOptions options;
  options.config = config;
  options.run_dir = ::testing::TempDir() + "/lock-step-XXXXXX";
  POMPC_CHECK(mkdtemp(options.run_dir.data()) != nullptr);
  MetricsRegistry metrics;
  Replay replay(RealClock(), &metrics);
  LocalReplayLink link(&replay, RealClock());
  const auto run = LearnerRun::Create(options, &link, RealClock(), &metrics);
  POMPC_CHECK_OK(run.status());
  LearnerService learner_service(&(*run)->front());
  ReplayTables tables(&replay);
  ReplayService replay_service(&tables, &metrics);
  const auto server =
      RpcServer::Start("127.0.0.1:0", {&learner_service, &replay_service}, &metrics);
  POMPC_CHECK_OK(server.status());

  const Event stop;
  Thread leader("learner", [&] { POMPC_CHECK_OK((*run)->Run(stop)); });
  POMPC_CHECK_OK(Act((*server)->address()));
  leader.Join();

  const auto checkpoint = LoadRunCheckpoint(RunCheckpointPath(options.run_dir));
  POMPC_CHECK_OK(checkpoint.status());
  const auto& returns = checkpoint->books.training_returns();
  Outcome outcome{.state = checkpoint->state.tensors,
                  .returns = {returns.begin(), returns.end()},
                  .rows = StoredRows(replay)};
  (*run)->front().publisher.Close();
  return outcome;
}

class LockStepTest : public ::testing::TestWithParam<std::vector<std::string>> {};

TEST_P(LockStepTest, EqualsTheInProcessLoopBitForBit) {
  const v1::RunConfig config = LockStepConfig(GetParam());
  const Outcome reference = InProcess(config);
  const Outcome distributed = Distributed(config);

  // Of the rows that the actor adds until it hears that the run is over, nothing depends.
  ASSERT_EQ(reference.rows.size(), static_cast<size_t>(config.total_decisions() + kEpisodes));
  for (const auto& [key, row] : reference.rows) {
    const auto other = distributed.rows.find(key);
    ASSERT_NE(other, distributed.rows.end()) << "row " << key;
    EXPECT_EQ(other->second, row) << "row " << key;
  }
  ASSERT_EQ(distributed.state.size(), reference.state.size());
  for (const auto& [name, tensor] : reference.state) {
    ASSERT_TRUE(distributed.state.contains(name)) << name;
    EXPECT_TRUE(at::equal(distributed.state.at(name), tensor)) << name;
  }
  EXPECT_EQ(reference.returns.size(), static_cast<size_t>(kEpisodes));
  EXPECT_EQ(distributed.returns, reference.returns);
}

INSTANTIATE_TEST_SUITE_P(
    Schedules, LockStepTest,
    ::testing::Values(
        std::vector<std::string>{},
        // More updates than decisions, and parameters that are published only now and then.
        std::vector<std::string>{"learning.updates_per_decision=2", "learner.publish_every=3"},
        std::vector<std::string>{"learning.updates_per_decision=0.3",
                                 "learning.pretrain_updates=0"}));

}  // namespace
}  // namespace pompc
