#include "cli/train_in_process.h"

#include <algorithm>
#include <cstdio>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "actor/loop/evaluation_videos.h"
#include "actor/loop/evaluator.h"
#include "cli/in_process_run.h"
#include "cli/progress.h"
#include "cli/run_dir.h"
#include "common/base/clock.h"
#include "common/base/mean.h"
#include "common/base/signal.h"
#include "common/base/status_macros.h"
#include "common/model/device.h"
#include "learner/service/divergence.h"
#include "learner/service/run_checkpoint.h"
#include "learner/service/run_lock.h"
#include "learner/service/run_records.h"

namespace pompc {
namespace {

constexpr absl::Duration kLineInterval = absl::Seconds(10);
constexpr size_t kMeanOf = 10;  // Training episodes in the return that is shown.

// Keeps the records of a run and what its lines of progress say.
class Recorder {
 public:
  Recorder(const v1::RunConfig& config, std::unique_ptr<RunRecords> records)
      : records_(std::move(records)),
        clock_(RealClock()),
        start_(clock_->Now()),
        run_id_(NewRunId(config, start_)) {
    status_.set_total_decisions(config.total_decisions());
    status_.set_evaluation_decisions(-1);
    action_repeat_ = config.environment().action_repeat();
  }

  const v1::RunStatus& status() const { return status_; }

  void See(const InProcessRun& run) {
    status_.set_phase(run.phase());
    status_.set_decisions(run.decisions());
    status_.set_env_steps(run.decisions() * action_repeat_);
    status_.set_updates(run.updates());
    status_.set_updates_per_decision(
        run.schedule().UpdatesPerDecision(run.decisions(), run.updates()));
    status_.set_seconds(absl::ToDoubleSeconds(clock_->Now() - start_ - evaluating_));
  }

  absl::Status Add(const InProcessRun::Progress& progress) {
    if (!progress.episodes.empty()) {
      POMPC_RETURN_IF_ERROR(records_->AddReport(
          {progress.episodes.begin(), progress.episodes.end()}, {}, [this] { return Moment(); }));
    }
    for (const v1::Episode& episode : progress.episodes) {
      returns_.push_back(episode.return_());
      if (returns_.size() > kMeanOf) returns_.pop_front();
      status_.set_episodes(status_.episodes() + 1);
      status_.set_training_return(Mean(returns_));
    }
    if (!progress.stats.has_value()) return absl::OkStatus();
    const auto values = progress.stats->Read();
    POMPC_RETURN_IF_ERROR(CheckFinite(values, status_.updates()));
    return records_->AddLosses(values, [this] { return Moment(); });
  }

  // videos: null for none.
  absl::Status Evaluate(const InProcessRun& run, Evaluator& evaluator, EvaluationVideos* videos,
                        const Event& stop) {
    const absl::Time start = clock_->Now();
    POMPC_ASSIGN_OR_RETURN(const std::vector<v1::Episode> episodes,
                           evaluator.Evaluate(run.Snapshot(), clock_, stop,
                                              videos == nullptr ? nullptr : videos->recording()));
    if (videos != nullptr) videos->Make(episodes.front(), stop);
    evaluating_ += clock_->Now() - start;
    Evaluation evaluation{.decisions_at = run.decisions()};
    for (const v1::Episode& episode : episodes) evaluation.returns.push_back(episode.return_());
    const double mean = Mean(evaluation.returns);
    const bool first = status_.evaluation_decisions() < 0;
    status_.set_evaluation_decisions(run.decisions());
    status_.set_evaluation_return(mean);
    status_.set_best_evaluation_return(first ? mean
                                             : std::max(mean, status_.best_evaluation_return()));
    return records_->AddReport({episodes.begin(), episodes.end()}, {evaluation},
                               [this] { return Moment(); });
  }

  // Prints a line now and then, at once if `now`.
  void Show(bool now) {
    if (!now && clock_->Now() < next_line_) return;
    next_line_ = clock_->Now() + kLineInterval;
    if (const double seconds = status_.seconds() - shown_seconds_; seconds > 0) {
      status_.set_decisions_per_second(static_cast<double>(status_.decisions() - shown_decisions_) /
                                       seconds);
      status_.set_updates_per_second(static_cast<double>(status_.updates() - shown_updates_) /
                                     seconds);
    }
    shown_seconds_ = status_.seconds();
    shown_decisions_ = status_.decisions();
    shown_updates_ = status_.updates();
    std::printf("%s\n", ProgressLine(status_).c_str());
    std::fflush(stdout);
  }

  // So that `pompc train --resume` can go on from here.
  absl::Status SaveCheckpoint(const InProcessRun& run, const TrainOptions& options) const {
    RunCheckpoint checkpoint{.config = options.config, .state = run.Save()};
    POMPC_RETURN_IF_ERROR(CheckFinite(checkpoint.state));
    v1::RunBooks& books = checkpoint.books;
    books.set_run_id(run_id_);
    *books.mutable_sizes() = run.sizes();
    books.set_decisions(run.decisions());
    books.set_parameter_version(run.Snapshot().version());
    books.set_seconds(status_.seconds());
    books.set_training_episodes(status_.episodes());
    books.mutable_training_returns()->Add(returns_.begin(), returns_.end());
    books.set_evaluation_decisions(status_.evaluation_decisions());
    if (status_.evaluation_decisions() >= 0) {
      books.set_evaluation_return(status_.evaluation_return());
      books.set_best_evaluation_return(status_.best_evaluation_return());
    }
    for (const auto& [name, bytes] : records_->record_bytes()) {
      (*books.mutable_record_bytes())[name] = bytes;
    }
    POMPC_RETURN_IF_ERROR(records_->Sync());
    return SaveRunCheckpoint(checkpoint, RunCheckpointPath(options.run_dir));
  }

 private:
  RunMoment Moment() const {
    return {.decisions = status_.decisions(),
            .updates = status_.updates(),
            .seconds = status_.seconds(),
            .time = clock_->Now(),
            .decisions_per_second = status_.decisions_per_second(),
            .updates_per_second = status_.updates_per_second(),
            .updates_per_decision = status_.updates_per_decision()};
  }

  const std::unique_ptr<RunRecords> records_;
  Clock* const clock_;
  const absl::Time start_;
  const std::string run_id_;
  int64_t action_repeat_ = 1;
  absl::Duration evaluating_;
  std::deque<double> returns_;
  v1::RunStatus status_;
  absl::Time next_line_ = absl::InfinitePast();
  double shown_seconds_ = 0;
  int64_t shown_decisions_ = 0, shown_updates_ = 0;
};

}  // namespace

absl::Status TrainInProcess(const TrainOptions& options) {
  if (options.resume) {
    return absl::InvalidArgumentError(
        "--in-process cannot resume: its replay ends with the process; resume without it");
  }
  const v1::RunConfig& config = options.config;
  const Event& stop = TerminationRequest();
  SetCpuThreads(config.learner().threads());
  POMPC_ASSIGN_OR_RETURN(const std::unique_ptr<InProcessRun> run, InProcessRun::Create(config));
  POMPC_ASSIGN_OR_RETURN(const std::unique_ptr<Evaluator> evaluator, Evaluator::Create(config));
  POMPC_RETURN_IF_ERROR(PrepareRunDir(options));
  POMPC_ASSIGN_OR_RETURN(const std::unique_ptr<RunLock> lock, RunLock::Acquire(options.run_dir));
  POMPC_ASSIGN_OR_RETURN(std::unique_ptr<RunRecords> records,
                         RunRecords::Open({.folder = options.run_dir,
                                           .action_repeat = config.environment().action_repeat(),
                                           .stat_names = StatNames(),
                                           .kept_bytes = {},
                                           .now = RealClock()->Now()}));
  Recorder recorder(config, std::move(records));
  std::optional<EvaluationVideos> videos;
  if (config.evaluation().video()) {
    videos.emplace(config.environment(), VideoFolder(options.run_dir));
  }
  std::printf("Training %s with preset %s, seed %s, in one process, into %s\n",
              config.environment().task().c_str(), config.preset().c_str(),
              absl::StrCat(config.seed()).c_str(), options.run_dir.c_str());
  const int64_t every = config.evaluation().every_decisions();
  const absl::Duration checkpoint_every =
      absl::Seconds(config.learner().checkpoint_every_seconds());
  int64_t next_evaluation = every;
  absl::Time next_checkpoint = RealClock()->Now() + checkpoint_every;
  // From here on the folder holds a run, which --run-dir does not begin anew.
  POMPC_RETURN_IF_ERROR(recorder.SaveCheckpoint(*run, options));
  while (!run->Complete() && !stop.HasBeenNotified()) {
    POMPC_ASSIGN_OR_RETURN(const InProcessRun::Progress progress, run->Step());
    recorder.See(*run);
    POMPC_RETURN_IF_ERROR(recorder.Add(progress));
    const bool evaluate =
        run->trained() && (run->decisions() >= next_evaluation || run->Complete());
    if (evaluate) {
      next_evaluation = (run->decisions() / every + 1) * every;
      const absl::Status evaluated =
          recorder.Evaluate(*run, *evaluator, videos.has_value() ? &*videos : nullptr, stop);
      if (!evaluated.ok() && !absl::IsCancelled(evaluated)) return evaluated;
    }
    recorder.Show(evaluate || run->Complete());
    if (RealClock()->Now() >= next_checkpoint) {
      POMPC_RETURN_IF_ERROR(recorder.SaveCheckpoint(*run, options));
      next_checkpoint = RealClock()->Now() + checkpoint_every;
    }
  }
  POMPC_RETURN_IF_ERROR(recorder.SaveCheckpoint(*run, options));
  PrintSummary(options, recorder.status(), run->Complete(), /*restarts=*/0);
  return run->Complete() ? absl::OkStatus() : absl::CancelledError("stopped on request");
}

}  // namespace pompc
