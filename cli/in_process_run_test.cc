#include "cli/in_process_run.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "common/config/config.h"

namespace pompc {
namespace {

constexpr int64_t kSeedDecisions = 60, kPretrainUpdates = 20, kTotalDecisions = 150;

v1::RunConfig TinyConfig(const std::vector<std::string>& more = {}) {
  std::vector<std::string> sets = {"environment.episode_steps=60",
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
                                   "learning.seed_decisions=60",
                                   "learning.seed_episodes=1",
                                   "learning.pretrain_updates=20",
                                   "learning.reanalyze_windows=2",
                                   "learner.log_every=10",
                                   "total_decisions=150"};
  sets.insert(sets.end(), more.begin(), more.end());
  const absl::StatusOr<v1::RunConfig> config = LoadRunConfig("pompc", "", sets);
  EXPECT_TRUE(config.ok()) << config.status();
  return *config;
}

std::unique_ptr<InProcessRun> Create(const v1::RunConfig& config) {
  absl::StatusOr<std::unique_ptr<InProcessRun>> run = InProcessRun::Create(config);
  EXPECT_TRUE(run.ok()) << run.status();
  return *std::move(run);
}

// Runs to the end; returns what the last logged update said.
std::vector<double> Finish(InProcessRun& run) {
  std::vector<double> last;
  while (!run.Complete()) {
    const absl::StatusOr<InProcessRun::Progress> progress = run.Step();
    EXPECT_TRUE(progress.ok()) << progress.status();
    if (!progress.ok()) break;
    if (!progress->stats.has_value()) continue;
    const auto values = progress->stats->Read();
    last.assign(values.begin(), values.end());
  }
  return last;
}

TEST(InProcessRunTest, MakesTheUpdatesThatTheScheduleCallsFor) {
  const auto run = Create(TinyConfig());
  int64_t episodes = 0;
  while (!run->Complete()) {
    const int64_t before = run->updates();
    const absl::StatusOr<InProcessRun::Progress> progress = run->Step();
    ASSERT_TRUE(progress.ok()) << progress.status();
    episodes += static_cast<int64_t>(progress->episodes.size());
    if (run->decisions() < kSeedDecisions) {
      EXPECT_EQ(run->updates(), 0);
      EXPECT_STREQ(run->phase(), "seeding");
    } else if (run->decisions() == kSeedDecisions) {
      EXPECT_EQ(run->updates(), kPretrainUpdates);
      EXPECT_TRUE(run->trained());
    } else {
      EXPECT_EQ(run->updates() - before, 1);
    }
  }
  EXPECT_EQ(run->decisions(), kTotalDecisions);
  EXPECT_EQ(run->updates(), kPretrainUpdates + kTotalDecisions - kSeedDecisions);
  EXPECT_EQ(episodes, kTotalDecisions / 30);
  EXPECT_STREQ(run->phase(), "finished");
}

TEST(InProcessRunTest, EqualConfigsGiveEqualBitsAndOtherSeedsDoNot) {
  const auto a = Create(TinyConfig()), b = Create(TinyConfig()), c = Create(TinyConfig({"seed=2"}));
  const std::vector<double> stats = Finish(*a);
  ASSERT_FALSE(stats.empty());
  EXPECT_EQ(stats, Finish(*b));
  EXPECT_NE(stats, Finish(*c));
  EXPECT_EQ(a->Snapshot().data(), b->Snapshot().data());
}

TEST(InProcessRunTest, SeveralEnvironmentsShareTheUpdates) {
  const auto run = Create(TinyConfig({"actor.environments_per_actor=4"}));
  ASSERT_FALSE(Finish(*run).empty());
  EXPECT_EQ(run->decisions(), 152);  // The first multiple of 4 that is enough.
  EXPECT_EQ(run->updates(), kPretrainUpdates + kTotalDecisions - kSeedDecisions);
}

TEST(InProcessRunTest, WaitsForAFirstWindow) {
  const auto run = Create(TinyConfig(
      {"actor.environments_per_actor=40", "total_decisions=400", "learning.seed_episodes=0"}));
  ASSERT_FALSE(Finish(*run).empty());
  EXPECT_EQ(run->updates(), kPretrainUpdates + 400 - kSeedDecisions);
}

TEST(InProcessRunTest, ParametersTravelAsTheConfigSays) {
  const auto wide = Create(TinyConfig()),
             narrow = Create(TinyConfig({"learner.publish_dtype=BFLOAT16"}));
  EXPECT_LT(narrow->Snapshot().data().size(), wide->Snapshot().data().size() * 0.6);
  ASSERT_FALSE(Finish(*narrow).empty());
}

TEST(InProcessRunTest, ADeviceThatIsMissingIsNamed) {
  const absl::Status status =
      InProcessRun::Create(TinyConfig({"learner.device=\"cuda:63\""})).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(status.message().find("learner.device"), std::string::npos) << status;
}

}  // namespace
}  // namespace pompc
