// Whole runs with tiny networks: a real replay, a real server, and an actor that acts at random.
#include "learner/service/learner_run.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "common/base/bounded_queue.h"
#include "common/base/check.h"
#include "common/base/file.h"
#include "common/base/rng.h"
#include "common/base/thread.h"
#include "common/config/config.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "learner/client/remote_parameter_subscriber.h"
#include "learner/client/row.h"
#include "learner/service/testing.h"
#include "replay/client/episode_writer.h"

namespace pompc {
namespace {

using ::pompc::testing::JoinAs;
using ::pompc::testing::Lines;
using ::pompc::testing::NewFolder;
using ::pompc::testing::Report;
using ::pompc::testing::TestEpisode;
using ::pompc::testing::TestSizes;
using ::testing::HasSubstr;

constexpr int64_t kSeed = 60, kTotal = 200;
constexpr double kTolerance = 10;
constexpr int kSegmentRows = 5;

v1::RunConfig TinyConfig() {
  v1::RunConfig config = DefaultRunConfig();
  config.set_total_decisions(kTotal);
  config.mutable_environment()->set_episode_steps(40);  // TestSizes().
  v1::ModelConfig& model = *config.mutable_model();
  model.set_latent_dim(16);
  model.set_encoder_dim(24);
  model.set_mlp_dim(24);
  model.set_num_bins(11);
  model.set_num_value_heads(2);
  v1::PlannerConfig& planner = *config.mutable_planner();
  planner.set_iterations(2);
  planner.set_num_samples(16);
  planner.set_num_policy_samples(4);
  planner.set_num_elites(4);
  v1::LearningConfig& learning = *config.mutable_learning();
  learning.set_batch_size(8);
  learning.set_reanalyze_windows(3);
  learning.set_seed_decisions(kSeed);
  learning.set_seed_episodes(1);
  config.mutable_replay()->set_rate_tolerance_updates(kTolerance);
  config.mutable_replay()->set_journal(v1::ReplayConfig::NONE);
  config.mutable_actor()->set_segment_rows(kSegmentRows);
  config.mutable_learner()->set_log_every(10);
  config.mutable_learner()->set_publish_every(5);
  config.mutable_evaluation()->set_episodes(2);
  return config;
}

// Puts segments into a replay of this process.
class DirectWriter final : public ReplayWriter {
 public:
  DirectWriter(uint64_t writer_id, Replay* replay) : writer_id_(writer_id), replay_(replay) {}

  absl::Status Append(v1::Segment segment, absl::Time) override {
    segment.set_writer_id(writer_id_);
    segment.set_sequence(++sequence_);
    BoundedQueue<absl::Status> answer(1);
    replay_->Append(replay_->NewTicket(), std::move(segment),
                    [&answer](const absl::StatusOr<Replay::Appended>& appended) {
                      (void)answer.Push(appended.status());
                    });
    const absl::StatusOr<absl::Status> status = answer.Pop();
    return status.ok() ? *status : status.status();
  }
  absl::Status Flush(absl::Time) override { return absl::OkStatus(); }

 private:
  const uint64_t writer_id_;
  Replay* const replay_;
  uint64_t sequence_ = 0;
};

std::unique_ptr<Replay> MakeReplay(const v1::RunConfig& config, const std::string& folder,
                                   MetricsRegistry* metrics) {
  if (config.replay().journal() == v1::ReplayConfig::NONE) {
    return std::make_unique<Replay>(RealClock(), metrics);
  }
  auto journal = Journal::Open(folder + "/journal", RealClock(), metrics);
  POMPC_CHECK_OK(journal.status());
  auto replay = Replay::Restore(*std::move(journal), RealClock(), metrics);
  POMPC_CHECK_OK(replay.status());
  return *std::move(replay);
}

// One learner process: a run, its replay and its server, led by a thread.
class Process {
 public:
  Process(const v1::RunConfig& config, const std::string& folder, bool resume,
          absl::Duration return_wait = absl::ZeroDuration())
      : replay_(MakeReplay(config, folder, &metrics_)) {
    LearnerRunOptions options;
    options.config = config;
    options.run_dir = folder;
    options.resume = resume;
    options.return_wait = return_wait;
    auto run = LearnerRun::Create(options, &link_, RealClock(), &metrics_);
    POMPC_CHECK_OK(run.status());
    run_ = *std::move(run);
    service_ = std::make_unique<LearnerService>(&run_->front());
    server_ = grpc::ServerBuilder().RegisterService(service_.get()).BuildAndStart();
    channel_ = server_->InProcessChannel(grpc::ChannelArguments());
    leader_.emplace("learner", [this] { result_ = run_->Run(stop_); });
  }
  ~Process() {
    stop_.Notify();
    leader_->Join();
    replay_->Close();
    if (actor_.has_value()) actor_->Join();
    run_->front().publisher.Close();
    server_->Shutdown();
  }

  // Acts at random in episodes of different lengths until replay closes or `until` says so after a
  // row, which is told the number of decisions.
  void StartActor(std::function<bool(int64_t)> until = [](int64_t) { return false; }) {
    const auto joined = run_->front().roster.Join(JoinAs(v1::ACTOR));
    POMPC_CHECK_OK(joined.status());
    actor_.emplace("actor",
                   [this, until = std::move(until), id = joined->writer_id()] { Act(id, until); });
  }

  // Blocks until the run has ended.
  absl::Status End() {
    leader_->Join();
    return result_;
  }
  void Stop() { stop_.Notify(); }

  RunFront& front() { return run_->front(); }
  Replay& replay() { return *replay_; }
  MetricsRegistry* metrics() { return &metrics_; }
  std::shared_ptr<grpc::Channel> channel() { return channel_; }

 private:
  void Act(uint64_t writer_id, const std::function<bool(int64_t)>& until) {
    DirectWriter writer(writer_id, replay_.get());
    EpisodeWriterOptions options;
    options.num_columns = static_cast<int>(kNumRowColumns);
    options.segment_rows = kSegmentRows;
    EpisodeWriter episodes(options, &writer);
    Rng rng(1, RngRole::kTest, 0, writer_id);
    std::vector<float> observation(4), action(2);
    const std::vector<float> zeros(2, 0.0f), ones(2, 1.0f);
    int64_t decisions = 0;
    absl::Status sent;
    {
      // The table is there once the first parameters are.
      RemoteParameterSubscriber subscriber(channel_, 2, RealClock(), &metrics_);
      if (!subscriber.WaitForNewer(-1, RealClock()->Now() + absl::Seconds(60)).ok()) return;
    }
    while (true) {
      const int64_t length = 8 + static_cast<int64_t>(rng.UniformInt(12));
      for (int64_t t = 1; t <= length; ++t) {
        rng.FillNormal(absl::MakeSpan(observation));
        for (float& a : action) a = static_cast<float>(rng.Uniform(-1, 1));
        const Row row = {observation, action, action[0], 0, zeros, ones, 0};
        sent = t < length
                   ? episodes.AddRow(RowBytes(row), absl::InfiniteFuture())
                   : episodes.EndEpisode(RowBytes(row), RowBytes(LastRow(observation, zeros)),
                                         absl::InfiniteFuture());
        ++decisions;
        if (!sent.ok() || until(decisions)) return;
      }
    }
  }

  Event stop_;
  MetricsRegistry metrics_;
  const std::unique_ptr<Replay> replay_;
  LocalReplayLink link_{replay_.get(), RealClock()};
  std::unique_ptr<LearnerRun> run_;
  std::unique_ptr<LearnerService> service_;
  std::unique_ptr<grpc::Server> server_;
  std::shared_ptr<grpc::Channel> channel_;
  absl::Status result_;
  std::optional<Thread> leader_, actor_;
};

absl::Time Soon() { return RealClock()->Now() + absl::Seconds(60); }

// Whether `data`, as published, are the parameters in the checkpoint of `folder`, bit for bit.
void ExpectEqualsCheckpoint(const std::string& data, const std::string& folder) {
  const auto checkpoint = LoadRunCheckpoint(RunCheckpointPath(folder));
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  const auto spec =
      ModelSpec::FromConfig(TinyConfig(), TestSizes().observation_dim(), TestSizes().action_dim());
  const auto parameters = Parameters::Create(spec, ParameterUse::kActing);
  ASSERT_TRUE(parameters.ok() && (*parameters)->LoadSnapshot(data).ok());
  for (const NamedParameter& p : (*parameters)->layout().parameters()) {
    EXPECT_TRUE(at::equal((*parameters)->View(p.name), checkpoint->state.tensors.at(p.name)))
        << p.name;
  }
}

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
                  .episodes.Report(Report(1, 1, {episode, episode}), process.front().progress.Now())
                  .ok());
  subscriber.Close();  // The learner stays until it has left.
  const absl::Status end = process.End();
  EXPECT_TRUE(end.ok()) << end;
  // A report that comes now is not in the checkpoint: the reporter has to keep it.
  EXPECT_TRUE(absl::IsUnavailable(
      process.front().episodes.Report(Report(1, 2, {episode}), process.front().progress.Now())));

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

TEST(LearnerRunTest, ResumesWithTheParametersItSavedAndRunsOnToTheEnd) {
  const std::string folder = NewFolder();
  int64_t version = 0;
  {
    Process process(TinyConfig(), folder, /*resume=*/false);
    process.StartActor([&process](int64_t decisions) {
      if (decisions == 120) process.Stop();
      return decisions == 120;
    });
    ASSERT_TRUE(absl::IsCancelled(process.End()));
    version = process.front().publisher.version();
  }
  const auto checkpoint = LoadRunCheckpoint(RunCheckpointPath(folder));
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_EQ(checkpoint->books.parameter_version(), version);
  const int64_t updates = checkpoint->state.tensors.at("updates").item<int64_t>();
  ASSERT_GT(updates, kSeed);
  ASSERT_LT(updates, kTotal);

  Process process(TinyConfig(), folder, /*resume=*/true);
  EXPECT_EQ(process.front().identity.run_id(), checkpoint->books.run_id());
  EXPECT_GE(process.front().progress.Now().updates, updates) << "an early report would go back";
  RemoteParameterSubscriber subscriber(process.channel(), 1, RealClock(), process.metrics());
  const auto first = subscriber.WaitForNewer(-1, Soon());
  ASSERT_TRUE(first.ok()) << first.status();
  EXPECT_EQ((*first)->version(), version + 1);
  EXPECT_EQ((*first)->updates(), updates);
  EXPECT_TRUE((*first)->trained());
  ExpectEqualsCheckpoint((*first)->data(), folder);

  subscriber.Close();
  process.StartActor();
  const absl::Status end = process.End();
  EXPECT_TRUE(end.ok()) << end;
  const auto finished = LoadRunCheckpoint(RunCheckpointPath(folder));
  ASSERT_TRUE(finished.ok());
  EXPECT_GE(finished->books.decisions(), kTotal);
  // The new table took kSeed decisions before updates went on.
  const int64_t expected =
      updates + std::max<int64_t>(0, kTotal - checkpoint->books.decisions() - kSeed);
  EXPECT_EQ(finished->state.tensors.at("updates").item<int64_t>(), expected);

  int64_t last = 0;
  const auto lines = Lines(folder + "/losses.csv");
  for (size_t i = 1; i < lines.size(); ++i) {
    int64_t row = 0;
    const std::vector<std::string> cells = absl::StrSplit(lines[i], ',');
    ASSERT_TRUE(absl::SimpleAtoi(cells[0], &row));
    EXPECT_EQ(row, last + 10);
    last = row;
  }
}

TEST(LearnerRunTest, RanksShareItsUpdatesAndMayBeMoreWhenItIsResumed) {
  v1::RunConfig config = TinyConfig();
  const std::string folder = NewFolder();
  for (const bool resume : {false, true}) {
    config.mutable_learner()->set_data_parallel(resume ? 4 : 2);
    Process process(config, folder, resume);
    process.StartActor([&](int64_t decisions) {
      if (!resume && decisions == 120) process.Stop();
      return !resume && decisions == 120;
    });
    const absl::Status end = process.End();
    EXPECT_TRUE(resume ? end.ok() : absl::IsCancelled(end)) << end;
    EXPECT_GT(process.replay().Info().updated_rows(), 0);  // Reanalyzed.
  }
  EXPECT_GE(LoadRunCheckpoint(RunCheckpointPath(folder))->books.decisions(), kTotal);
}

// The checkpoint is older than the rows, as after a kill: the updates made since then are made
// again, decisions are not.
TEST(LearnerRunTest, ResumesWithTheRowsThatAreJournaled) {
  v1::RunConfig config = TinyConfig();
  config.mutable_replay()->set_journal(v1::ReplayConfig::PROCESS);
  const std::string folder = NewFolder();
  const std::string checkpoint_path = RunCheckpointPath(folder), old = folder + "/old";
  v1::InfoResponse before;
  {
    Process process(config, folder, /*resume=*/false);
    process.StartActor([&](int64_t decisions) {
      if (decisions == 80) std::filesystem::copy(checkpoint_path, old);
      if (decisions == 150) process.Stop();
      return decisions == 150;
    });
    ASSERT_TRUE(absl::IsCancelled(process.End()));
    before = process.replay().Info();
  }
  ASSERT_GT(before.inserted_decisions(), 140);
  std::filesystem::rename(old, checkpoint_path);

  Process process(config, folder, /*resume=*/true);
  const v1::InfoResponse after = process.replay().Info();
  EXPECT_EQ(after.inserted_rows(), before.inserted_rows());
  EXPECT_EQ(after.windows(), before.windows());
  RemoteParameterSubscriber subscriber(process.channel(), 1, RealClock(), process.metrics());
  const auto first = subscriber.WaitForNewer(-1, Soon());
  ASSERT_TRUE(first.ok()) << first.status();
  EXPECT_EQ((*first)->decisions(), before.inserted_decisions());
  subscriber.Close();
  process.StartActor();
  const absl::Status end = process.End();
  EXPECT_TRUE(end.ok()) << end;
  EXPECT_EQ(process.replay().Info().sampled_batches(), kTotal) << "as if it had never died";
  v1::RunStatus status;
  process.front().progress.FillStatus(&status);
  EXPECT_EQ(status.updates(), kTotal);
  EXPECT_GE(status.decisions(), kTotal);
  // The actor goes on until it hears that the run is over.
  EXPECT_LE(status.decisions(), process.replay().Info().inserted_decisions());
}

// Replay's folder is missing for a while (a disk that was not mounted), and a learner is started
// then.
TEST(LearnerRunTest, CountsNoDecisionTwiceWhenAnEarlierJournalComesBack) {
  v1::RunConfig config = TinyConfig();
  config.mutable_replay()->set_journal(v1::ReplayConfig::PROCESS);
  const std::string folder = NewFolder(), away = folder + "/away";
  int64_t made = 0;
  {
    Process process(config, folder, /*resume=*/false);
    process.StartActor([&](int64_t decisions) {
      if (decisions == 100) process.Stop();
      return decisions == 100;
    });
    ASSERT_TRUE(absl::IsCancelled(process.End()));
    made = process.replay().Info().inserted_decisions();
  }
  std::filesystem::rename(folder + "/journal", away);
  {
    Process process(config, folder, /*resume=*/true);
    process.Stop();
    process.StartActor();
    ASSERT_TRUE(absl::IsCancelled(process.End()));
  }
  std::filesystem::remove_all(folder + "/journal");
  std::filesystem::rename(away, folder + "/journal");
  const int64_t in_books = LoadRunCheckpoint(RunCheckpointPath(folder))->books.decisions();

  Process process(config, folder, /*resume=*/true);
  RemoteParameterSubscriber subscriber(process.channel(), 1, RealClock(), process.metrics());
  const auto first = subscriber.WaitForNewer(-1, Soon());
  ASSERT_TRUE(first.ok()) << first.status();
  EXPECT_EQ((*first)->decisions(), std::max(in_books, made));
  subscriber.Close();
  process.StartActor();
  EXPECT_TRUE(process.End().ok());
}

TEST(LearnerRunTest, ALearnerThatDiedUsedVersionsThatItsSuccessorDoesNot) {
  const std::string folder = NewFolder();
  RunCheckpoint checkpoint;
  checkpoint.config = TinyConfig();
  *checkpoint.books.mutable_sizes() = TestSizes();
  checkpoint.books.set_parameter_version(7);
  checkpoint.state.tensors["updates"] = at::zeros({}, at::kLong);
  ASSERT_TRUE(SaveRunCheckpoint(checkpoint, RunCheckpointPath(folder)).ok());
  MetricsRegistry metrics;
  Replay replay(RealClock(), &metrics);
  LocalReplayLink link(&replay, RealClock());
  LearnerRunOptions options;
  options.config = TinyConfig();
  options.run_dir = folder;
  options.resume = true;
  for (const bool left_in_order : {false, true}) {
    if (left_in_order) {
      ASSERT_TRUE(WriteFileAtomically(RunStatusPath(folder), "").ok());
    }
    const auto run = LearnerRun::Create(options, &link, RealClock(), &metrics);
    ASSERT_TRUE(run.ok()) << run.status();
    const int64_t version = (*run)->front().publisher.Publish({});
    EXPECT_EQ(version == 8, left_in_order) << version;
    EXPECT_GE(version, 8);
  }
}

// A replay that cannot be reached, until the learner is told to stop.
class MissingReplayLink final : public ReplayLink {
 public:
  std::function<void()> on_info;

  absl::StatusOr<v1::InfoResponse> Info(const Event&) override {
    on_info();
    return absl::CancelledError("told to stop");
  }
  absl::StatusOr<std::unique_ptr<ReplaySampler>> Open(const v1::RunConfig&, const v1::TableConfig&,
                                                      int64_t) override {
    return absl::UnavailableError("there is no replay");
  }
};

TEST(LearnerRunTest, AcknowledgesNoReportThatItCouldStillLose) {
  const std::string folder = NewFolder();
  {
    Process process(TinyConfig(), folder, /*resume=*/false);
    ASSERT_TRUE(process.front().roster.Join(JoinAs(v1::ACTOR)).ok());
    RemoteParameterSubscriber subscriber(process.channel(), 1, RealClock(), process.metrics());
    ASSERT_TRUE(subscriber.WaitForNewer(-1, Soon()).ok());  // It has started.
    process.Stop();
    ASSERT_TRUE(absl::IsCancelled(process.End()));
  }
  MetricsRegistry metrics;
  Event stop;
  MissingReplayLink link;
  LearnerRunOptions options;
  options.config = TinyConfig();
  options.run_dir = folder;
  options.resume = true;
  const auto run = LearnerRun::Create(options, &link, RealClock(), &metrics);
  ASSERT_TRUE(run.ok()) << run.status();
  absl::Status reported;
  link.on_info = [&] {
    RunFront& front = (*run)->front();
    reported =
        front.episodes.Report(Report(1, 1, {TestEpisode(v1::ACTOR, 7)}), front.progress.Now());
    stop.Notify();
  };
  EXPECT_TRUE(absl::IsCancelled((*run)->Run(stop)));
  EXPECT_TRUE(absl::IsUnavailable(reported)) << reported;
}

TEST(LearnerRunTest, ARunThatIsResumedAtItsEndWaitsForThoseWhoHaveToHearOfIt) {
  const std::string folder = NewFolder();
  {
    Process process(TinyConfig(), folder, /*resume=*/false);
    process.StartActor();
    ASSERT_TRUE(process.End().ok());
  }
  Process process(TinyConfig(), folder, /*resume=*/true, absl::Minutes(1));
  for (v1::RunStatus status; status.phase() != "finished"; std::this_thread::yield()) {
    process.front().progress.FillStatus(&status);
  }
  // Nobody is connected yet. Without the wait it writes this file, its last, after some 20 ms.
  RealClock()->SleepUntil(RealClock()->Now() + absl::Milliseconds(200));
  EXPECT_FALSE(std::filesystem::exists(RunStatusPath(folder)));
  process.Stop();
  EXPECT_TRUE(process.End().ok());
  EXPECT_TRUE(std::filesystem::exists(RunStatusPath(folder)));
}

TEST(LearnerRunTest, AFolderWithARunIsOnlyResumedOnRequestAndOnlyWithItsConfig) {
  const std::string folder = NewFolder();
  RunCheckpoint checkpoint;
  checkpoint.config = TinyConfig();
  *checkpoint.books.mutable_sizes() = TestSizes();
  checkpoint.state.tensors["updates"] = at::zeros({}, at::kLong);
  MetricsRegistry metrics;
  Replay replay(RealClock(), &metrics);
  LocalReplayLink link(&replay, RealClock());
  LearnerRunOptions options;
  options.config = TinyConfig();
  options.run_dir = folder;
  options.resume = true;
  EXPECT_TRUE(absl::IsNotFound(LearnerRun::Create(options, &link, RealClock(), &metrics).status()));
  ASSERT_TRUE(SaveRunCheckpoint(checkpoint, RunCheckpointPath(folder)).ok());
  options.resume = false;
  EXPECT_TRUE(
      absl::IsAlreadyExists(LearnerRun::Create(options, &link, RealClock(), &metrics).status()));
  options.resume = true;
  options.config.set_seed(99);
  const absl::Status refused = LearnerRun::Create(options, &link, RealClock(), &metrics).status();
  EXPECT_TRUE(absl::IsFailedPrecondition(refused));
  EXPECT_THAT(std::string(refused.message()), HasSubstr("seed: 99"));
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

TEST(LearnerRunTest, StopsBeforeAnybodyHasJoined) {
  Process process(TinyConfig(), NewFolder(), /*resume=*/false);
  process.Stop();
  EXPECT_TRUE(absl::IsCancelled(process.End()));
}

}  // namespace
}  // namespace pompc
