// Whole runs: what they train, publish and report, and how they end (learner_run_testing.h).
#include "learner/service/learner_run.h"

#include <cmath>
#include <cstdint>
#include <set>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "learner/client/remote_parameter_subscriber.h"
#include "learner/service/divergence.h"
#include "learner/service/learner_run_testing.h"
#include "learner/service/testing.h"

namespace pompc {
namespace {

using ::pompc::testing::ExpectEqualsCheckpoint;
using ::pompc::testing::JoinAs;
using ::pompc::testing::kSeed;
using ::pompc::testing::kSegmentRows;
using ::pompc::testing::kTolerance;
using ::pompc::testing::kTotal;
using ::pompc::testing::Lines;
using ::pompc::testing::NewFolder;
using ::pompc::testing::Process;
using ::pompc::testing::Report;
using ::pompc::testing::Soon;
using ::pompc::testing::TestEpisode;
using ::pompc::testing::TinyConfig;
using ::testing::HasSubstr;

TEST(LearnerRunTest, TrainsAtTheConfiguredRatioPublishesEvaluatesAndEnds) {
  const std::string folder = NewFolder();
  Process process(TinyConfig(), folder, /*resume=*/false);
  RemoteParameterSubscriber subscriber(process.channel(), 1, RealClock(), process.metrics());
  ASSERT_TRUE(process.front().roster.Join(JoinAs(v1::EVALUATOR)).ok());
  process.StartActor();

  // The first parameters are untrained; all later ones, after pretraining, are trained.
  SnapshotPtr newest;
  int64_t snapshots = 0;
  while (newest == nullptr || !newest->run_finished()) {
    const auto next = subscriber.WaitForNewer(newest == nullptr ? -1 : newest->version(), Soon());
    ASSERT_TRUE(next.ok()) << next.status();
    newest = *next;
    ++snapshots;
    EXPECT_EQ(newest->trained(), newest->version() > 0);
    if (newest->trained()) {
      EXPECT_GE(newest->updates(), kSeed);  // As many pretraining updates as seed decisions.
      const int64_t called_for = kSeed + newest->decisions() - kSeed;
      EXPECT_NEAR(newest->updates(), called_for, kTolerance + kSegmentRows + 1);
    }
  }
  EXPECT_GT(snapshots, 2);
  v1::Episode episode = TestEpisode(v1::EVALUATOR, 7, newest->version());
  ASSERT_TRUE(process.front()
                  .episodes
                  .Report(Report(1, 1, {episode, episode}), process.front().publisher.version(),
                          [&] { return process.front().progress.Now(); })
                  .ok());
  subscriber.Close();  // The learner stays until it has left.
  const absl::Status end = process.End();
  EXPECT_TRUE(end.ok()) << end;
  // A report that comes now is not in the checkpoint: the reporter has to keep it.
  EXPECT_TRUE(absl::IsUnavailable(
      process.front().episodes.Report(Report(1, 2, {episode}), process.front().publisher.version(),
                                      [&] { return process.front().progress.Now(); })));

  v1::RunStatus status;
  process.front().progress.FillStatus(&status);
  EXPECT_EQ(status.phase(), "finished");
  EXPECT_EQ(status.updates(), kTotal);  // kSeed of pretraining, then one for each later decision.
  EXPECT_GE(status.decisions(), kTotal);
  EXPECT_LE(status.decisions(), kTotal + kTolerance + kSegmentRows);
  EXPECT_EQ(process.replay().Info().sampled_batches(), kTotal);
  EXPECT_GT(process.replay().Info().updated_rows(), 0);  // Reanalyzed.
  EXPECT_EQ(Lines(folder + "/losses.csv").size(), 1u + kTotal / 10);
  EXPECT_EQ(Lines(folder + "/evaluations.csv").size(), 2u);
  EXPECT_THAT(Lines(RunStatusPath(folder)), ::testing::Contains("phase: \"finished\""));
  ExpectEqualsCheckpoint(newest->data(), folder);

  MetricsRegistry& metrics = *process.metrics();
  EXPECT_EQ(metrics.GetGauge("pompc_learner_final_decisions")->Value(), kTotal);
  const double disk_left = metrics.GetGauge("pompc_learner_disk_free_bytes")->Value();
  EXPECT_GT(disk_left, 0);
  EXPECT_LE(disk_left, metrics.GetGauge("pompc_learner_disk_size_bytes")->Value());
  EXPECT_EQ(metrics.GetGauge("pompc_learner_gpu_memory_bytes", "reserved")->Value(), 0);
  EXPECT_EQ(metrics.GetCounter("pompc_learner_nonfinite_losses_total")->Value(), 0);
  EXPECT_GT(metrics.GetGauge("pompc_learner_policy_std")->Value(), 0);
  const auto model_error = [&metrics](int64_t step) {
    return metrics.GetGauge("pompc_learner_model_error", std::to_string(step))->Value();
  };
  const int64_t window = TinyConfig().learning().window();
  EXPECT_GT(model_error(1), 0);
  EXPECT_GT(model_error(window), 0);
  EXPECT_TRUE(std::isnan(model_error(window + 1)));
}

TEST(LearnerRunTest, WithPrioritiesTdErrorsDecideWhatIsDrawn) {
  v1::RunConfig config = TinyConfig();
  config.mutable_replay()->set_priority_exponent(0.6);
  Process process(config, NewFolder(), /*resume=*/false);
  process.StartActor();
  const absl::Status end = process.End();
  ASSERT_TRUE(end.ok()) << end;
  LocalSampler sampler(200, &process.replay(), RealClock());
  ColumnBatch batch;
  ASSERT_TRUE(sampler.Next(Soon(), &batch).ok());
  const std::set<double> probabilities(batch.probabilities.begin(), batch.probabilities.end());
  EXPECT_GT(probabilities.size(), 50u) << "hardly a window has a priority of its own";
}

TEST(LearnerRunTest, PlansAheadAsManyWindowsAsWhenDue) {
  for (const bool ahead : {false, true}) {
    v1::RunConfig config = TinyConfig();
    config.mutable_learner()->set_reanalyze_ahead(ahead);
    Process process(config, NewFolder(), /*resume=*/false);
    process.StartActor();
    const absl::Status end = process.End();
    ASSERT_TRUE(end.ok()) << end;
    const v1::InfoResponse info = process.replay().Info();
    // Of 3 windows of 3 decisions each, after every 10th update that followed pretraining.
    EXPECT_EQ(info.updated_rows() + info.stale_rows(), (kTotal - kSeed) / 10 * 3 * 3) << ahead;
    EXPECT_EQ(info.sampled_batches(), kTotal);
  }
}

TEST(LearnerRunTest, ADeviceThatIsMissingIsNamed) {
  MetricsRegistry metrics;
  Replay replay(RealClock(), &metrics);
  LocalReplayLink link(&replay, RealClock());
  LearnerRunOptions options;
  options.config = TinyConfig();
  options.config.mutable_learner()->set_device("nonsense");
  options.run_dir = NewFolder();
  const absl::Status refused = LearnerRun::Create(options, &link, RealClock(), &metrics).status();
  EXPECT_TRUE(absl::IsInvalidArgument(refused));
  EXPECT_THAT(std::string(refused.message()), HasSubstr("learner.device: cannot use \"nonsense\""));
}

TEST(LearnerRunTest, TrainingThatDivergesIsToldAndCounted) {
  v1::RunConfig config = TinyConfig();
  config.mutable_learning()->set_learning_rate(1e30);
  Process process(config, NewFolder(), /*resume=*/false);
  process.StartActor();
  const absl::Status end = process.End();
  EXPECT_TRUE(absl::IsInternal(end)) << end;
  EXPECT_THAT(std::string(end.message()), HasSubstr("training diverged"));
  EXPECT_EQ(process.metrics()->GetCounter("pompc_learner_nonfinite_losses_total")->Value(), 1);
}

// Between two logged updates, that is.
TEST(LearnerRunTest, NoCheckpointHoldsWhatIsNotFiniteAndNobodyIsSentIt) {
  v1::RunConfig config = TinyConfig();
  config.mutable_learning()->set_learning_rate(1e30);
  config.mutable_learner()->set_log_every(1'000'000);
  config.mutable_learning()->set_reanalyze_windows(0);  // They find no plan.
  // Published again before the end, or saved at the end without that.
  for (const int publish_every : {5, 1'000'000}) {
    config.mutable_learner()->set_publish_every(publish_every);
    const std::string folder = NewFolder();
    Process process(config, folder, /*resume=*/false);
    process.StartActor();
    const absl::Status end = process.End();
    EXPECT_TRUE(absl::IsInternal(end)) << end;
    EXPECT_THAT(std::string(end.message()), HasSubstr("training diverged"));
    EXPECT_EQ(process.metrics()->GetCounter("pompc_learner_nonfinite_losses_total")->Value(), 1);
    EXPECT_EQ(process.front().publisher.version(), 0) << "only the untrained ones";
    const auto checkpoint = LoadRunCheckpoint(RunCheckpointPath(folder));
    ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
    EXPECT_TRUE(CheckFinite(checkpoint->state).ok());
  }
}

TEST(LearnerRunTest, StopsBeforeAnybodyHasJoined) {
  Process process(TinyConfig(), NewFolder(), /*resume=*/false);
  process.Stop();
  EXPECT_TRUE(absl::IsCancelled(process.End()));
}

}  // namespace
}  // namespace pompc
