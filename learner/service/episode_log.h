// EpisodeLog: counts each reported episode once, records it and keeps the returns that people ask
// for.
//
// An evaluation is EvaluationConfig.episodes episodes of one evaluator with the same parameter
// version; they may come in one report or in several.
//
// Thread-safety: thread-safe.
#ifndef POMPC_LEARNER_SERVICE_EPISODE_LOG_H_
#define POMPC_LEARNER_SERVICE_EPISODE_LOG_H_

#include <cstdint>
#include <deque>
#include <map>
#include <optional>

#include "absl/base/thread_annotations.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/base/clock.h"
#include "common/metrics/metrics.h"
#include "learner/service/run_records.h"
#include "proto/pompc/v1/config.pb.h"
#include "proto/pompc/v1/learner.pb.h"

namespace pompc {

class EpisodeLog {
 public:
  // Goes on from `books` (default: a new run). `records`, `clock` and `metrics` must outlive this.
  EpisodeLog(const v1::RunConfig& config, const v1::RunBooks& books, RunRecords* records,
             Clock* clock, MetricsRegistry* metrics);

  // A report counts as a whole or, on an error, not at all. INVALID_ARGUMENT, naming the field that
  // is out of range. UNAVAILABLE: closed, or it cannot be recorded (a full disk...); to be sent
  // again. A report seen before is OK and changes nothing. newest_version: of the parameters that
  // are published, which no episode was played with newer ones than. moment: as of
  // RunRecords::AddReport(), and it must not call this.
  absl::Status Report(const v1::ReportEpisodesRequest& request, int64_t newest_version,
                      absl::FunctionRef<RunMoment()> moment);

  // Blocks until an evaluation of parameter version `version` is complete, or `deadline`; returns
  // whether it is.
  bool AwaitEvaluation(int64_t version, absl::Time deadline) const;

  // Whether an episode of evaluation was reported to this process.
  bool evaluator_reported() const;

  // Before Open() and after Close() reports are refused, with UNAVAILABLE: what this process
  // acknowledges must be in a checkpoint of it, else it is for the run's next process.
  void Open();
  void Close();

  // Writes the fields that this class knows.
  void FillStatus(v1::RunStatus* status) const;
  // The same for a checkpoint; the length of the records too, which fit what is counted here.
  void FillBooks(v1::RunBooks* books) const;

 private:
  void CountTraining(double value) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void CountEvaluation(const Evaluation& evaluation) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  double TrainingReturn() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const int64_t total_decisions_;
  const int32_t evaluation_episodes_;
  RunRecords* const records_;
  Clock* const clock_;
  Gauge* const training_return_gauge_;
  Gauge* const evaluation_return_gauge_;

  mutable absl::Mutex mu_;  // Locked before the records' own.
  bool open_ ABSL_GUARDED_BY(mu_) = false;
  std::map<uint64_t, uint64_t> last_sequences_ ABSL_GUARDED_BY(mu_);  // By reporter.
  int64_t training_episodes_ ABSL_GUARDED_BY(mu_);
  std::deque<double> training_returns_ ABSL_GUARDED_BY(mu_);    // The last ones, oldest first.
  std::map<int64_t, Evaluation> pending_ ABSL_GUARDED_BY(mu_);  // By evaluator.
  bool evaluator_reported_ ABSL_GUARDED_BY(mu_) = false;
  int64_t evaluated_version_ ABSL_GUARDED_BY(mu_) = -1;  // Newest one complete.
  std::optional<double> evaluation_return_ ABSL_GUARDED_BY(mu_);
  std::optional<double> best_evaluation_return_ ABSL_GUARDED_BY(mu_);
  int64_t evaluation_decisions_ ABSL_GUARDED_BY(mu_) = -1;
};

}  // namespace pompc

#endif  // POMPC_LEARNER_SERVICE_EPISODE_LOG_H_
