// LearnerRun: one run from its first actor to its last update.
//
//   POMPC_ASSIGN_OR_RETURN(auto run, LearnerRun::Create(options, &link, clock, &metrics));
//   ... serve run->front() ...
//   absl::Status end = run->Run(stop);
//
// The run starts when the first process joins and tells the sizes of the task, and is complete when
// total_decisions are in replay and the updates that they call for are made (run_schedule.h).
//
// Files in the run's folder: learner.lock (run_lock.h), config.textproto, checkpoint.safetensors
// and status.textproto (run_checkpoint.h), and the records of run_records.h.
//
// Thread-safety: Run() is called once, by one thread; the front is thread-safe.
// Determinism: as ParallelUpdater.
#ifndef POMPC_LEARNER_SERVICE_LEARNER_RUN_H_
#define POMPC_LEARNER_SERVICE_LEARNER_RUN_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/base/clock.h"
#include "common/metrics/metrics.h"
#include "learner/core/updater.h"
#include "learner/service/batch_view.h"
#include "learner/service/courier.h"
#include "learner/service/learner_metrics.h"
#include "learner/service/parallel_updater.h"
#include "learner/service/reanalyzer.h"
#include "learner/service/replay_link.h"
#include "learner/service/run_checkpoint.h"
#include "learner/service/run_front.h"
#include "learner/service/run_lock.h"
#include "learner/service/run_schedule.h"
#include "proto/pompc/v1/config.pb.h"
#include "proto/pompc/v1/learner.pb.h"

namespace pompc {

struct LearnerRunOptions {
  v1::RunConfig config;                       // Resolved and valid.
  std::string run_dir;                        // Exists.
  bool resume = false;                        // Go on from the checkpoint in run_dir.
  std::vector<std::string> replay_addresses;  // For actors; empty: the learner's own server.
  // How long to wait, once the run is complete, for the evaluation of the final parameters and for
  // the subscribers to leave.
  absl::Duration final_evaluation_wait = absl::Minutes(10);
  // How long the subscribers of the process that led a resumed run before may take to come back: a
  // run that ends sooner waits for them, since they have to learn that it has ended.
  absl::Duration return_wait = absl::Seconds(5);
};

class LearnerRun {
 public:
  // INVALID_ARGUMENT: a device that this build or machine does not have, or a config that differs
  // from the checkpoint's in what must not. ALREADY_EXISTS: a run to resume is in run_dir, but
  // `resume` is not set. NOT_FOUND: the reverse. ABORTED: another learner leads a run in run_dir.
  // `link`, `clock` and `metrics` must outlive the run.
  static absl::StatusOr<std::unique_ptr<LearnerRun>> Create(const LearnerRunOptions& options,
                                                            ReplayLink* link, Clock* clock,
                                                            MetricsRegistry* metrics);

  RunFront& front() { return *front_; }

  // Blocks until the run is complete: OK. CANCELLED: `stop` was raised before; a checkpoint is
  // written if the run had started. Others: replay refused for good, losses that are not finite, a
  // full disk...
  absl::Status Run(const Event& stop);

 private:
  LearnerRun(std::unique_ptr<RunLock> lock, const LearnerRunOptions& options,
             std::vector<at::Device> devices, std::optional<RunCheckpoint> resumed,
             std::unique_ptr<RunFront> front, ReplayLink* link, Clock* clock,
             MetricsRegistry* metrics);

  // The run's steps, in order.
  absl::Status Start(const v1::TaskSizes& sizes, const Event& stop);
  absl::Status Loop(const Event& stop);
  absl::Status Finish(const Event& stop);

  // The loop's steps, in order.
  absl::StatusOr<bool> TakeBatch(const Event& stop);  // False: none within a moment.
  // Fills columns_ for the next update. DEADLINE_EXCEEDED: not yet; others: as the sampler's
  // Next().
  absl::Status NextColumns(absl::Time deadline);
  absl::Status MakeUpdate();
  const Updater& updater() const { return updates_->updater(); }
  absl::Status WriteBackPriors(const ReanalyzedPrior& prior);
  absl::Status LogStats(const UpdateStats& stats);
  absl::Status PublishIfDue();
  absl::Status CheckpointIfDue();

  // Keeps the offsets of the table in use for when the run is resumed.
  void NoteTable(uint64_t table_id);
  void SetDecisions(int64_t decisions);
  absl::Status RefreshInfo();
  void MeasureMachine();  // Sets the metrics of disk and GPU memory.
  // Counts it if `finite` says that training diverged; returns it.
  absl::Status CountDiverged(absl::Status finite);
  absl::Status Publish(bool trained, bool run_finished);  // INTERNAL: training diverged.
  // INTERNAL: training diverged, nothing is written. Others: those of the file system.
  absl::Status SaveCheckpoint();
  absl::Status SaveStatus();
  void ShowProgress(const char* phase);
  const char* Phase() const;

  const std::unique_ptr<RunLock> lock_;
  const LearnerRunOptions options_;
  const std::vector<at::Device> devices_;  // Of the updates.
  const absl::Time all_are_back_;
  std::optional<RunCheckpoint> resumed_;  // Until Start().
  const std::unique_ptr<RunFront> front_;
  ReplayLink* const link_;
  Clock* const clock_;
  LearnerMetrics metrics_;

  // Set by Start().
  std::unique_ptr<ParallelUpdater> updates_;
  std::optional<RunSchedule> schedule_;
  std::unique_ptr<ReplaySampler> sampler_;
  BatchShape shape_;
  absl::Time next_checkpoint_, next_info_;

  std::unique_ptr<Reanalyzer> reanalyzer_;  // Null unless windows are planned ahead.
  std::optional<Courier> courier_;

  ColumnBatch columns_;
  // With a reanalyzer: the batch of the next update that re-plans, while it is being planned.
  ColumnBatch ahead_;
  bool has_ahead_ = false;
  bool planned_ahead_ = false;  // Windows of columns_ are.
  google::protobuf::Map<uint64_t, v1::RunBooks::TableOffsets> known_tables_;
  int64_t decisions_ = 0;
  int64_t replay_rows_ = 0;
  double sample_age_updates_ = 0;
  bool published_trained_ = false;
  int64_t published_updates_ = 0;
};

}  // namespace pompc

#endif  // POMPC_LEARNER_SERVICE_LEARNER_RUN_H_
