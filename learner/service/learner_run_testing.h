// Whole runs with tiny networks, for tests: a real replay, a real server, and an actor that acts at
// random.
#ifndef POMPC_LEARNER_SERVICE_LEARNER_RUN_TESTING_H_
#define POMPC_LEARNER_SERVICE_LEARNER_RUN_TESTING_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "common/base/bounded_queue.h"
#include "common/base/check.h"
#include "common/base/rng.h"
#include "common/base/thread.h"
#include "common/config/config.h"
#include "gtest/gtest.h"
#include "learner/client/remote_parameter_subscriber.h"
#include "learner/client/row.h"
#include "learner/service/learner_run.h"
#include "learner/service/testing.h"
#include "replay/client/episode_writer.h"

namespace pompc::testing {

inline constexpr int64_t kSeed = 60, kTotal = 200;
inline constexpr double kTolerance = 10;
inline constexpr int kSegmentRows = 5;

inline v1::RunConfig TinyConfig() {
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

inline std::unique_ptr<Replay> MakeReplay(const v1::RunConfig& config, const std::string& folder,
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

inline absl::Time Soon() { return RealClock()->Now() + absl::Seconds(60); }

// Whether `data`, as published, are the parameters in the checkpoint of `folder`, bit for bit.
inline void ExpectEqualsCheckpoint(const std::string& data, const std::string& folder) {
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

}  // namespace pompc::testing

#endif  // POMPC_LEARNER_SERVICE_LEARNER_RUN_TESTING_H_
