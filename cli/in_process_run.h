// InProcessRun: the whole algorithm in one thread. No processes, no network, nobody waits.
//
// It is the reference for the distributed program, which in lock-step makes the same decisions
// and updates (lock_step_test), and the first thing to try when something does not learn: equal
// configs give equal bits.
//
// One step: (1) a decision for each of the E environments of one actor; (2) their rows go to
// replay; (3) the updates that the decisions call for are made; (4) after every
// learner.publish_every of them the actor gets the new parameters. As in the distributed program,
// decisions of the seed phase are random and pretraining follows it.
//
// Thread-safety: none. Determinism: on CPU, equal configs give bit-equal runs.
#ifndef POMPC_CLI_IN_PROCESS_RUN_H_
#define POMPC_CLI_IN_PROCESS_RUN_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "actor/loop/acting_policy.h"
#include "actor/loop/episodes.h"
#include "common/base/clock.h"
#include "common/metrics/metrics.h"
#include "learner/core/updater.h"
#include "learner/service/batch_view.h"
#include "learner/service/parallel_updater.h"
#include "learner/service/run_schedule.h"
#include "proto/pompc/v1/config.pb.h"
#include "proto/pompc/v1/learner.pb.h"
#include "replay/client/episode_writer.h"
#include "replay/client/local_sampler.h"
#include "replay/client/writer.h"
#include "replay/server/replay.h"

namespace pompc {

class InProcessRun {
 public:
  // config: resolved and valid; one actor of it takes part. INVALID_ARGUMENT: a task, device or
  // settings that cannot be.
  static absl::StatusOr<std::unique_ptr<InProcessRun>> Create(const v1::RunConfig& config);

  // What a step brought.
  struct Progress {
    std::vector<v1::Episode> episodes;  // Finished in this step.
    std::optional<UpdateStats> stats;   // Of the last update, when it was one to log.
  };
  // Errors: those of Environment, Updater, ActingPolicy and Replay.
  absl::StatusOr<Progress> Step();

  bool Complete() const { return schedule_.Complete(decisions_, updater().updates()); }
  const char* phase() const;  // As RunStatus.phase.
  bool trained() const { return snapshot_.trained(); }
  int64_t decisions() const { return decisions_; }
  int64_t updates() const { return updater().updates(); }
  const v1::TaskSizes& sizes() const { return episodes_->sizes(); }
  const RunSchedule& schedule() const { return schedule_; }
  // The present parameters, whenever they were published.
  v1::ParameterSnapshot Snapshot() const;
  Checkpoint Save() const { return updater().Save(); }
  Replay& replay() { return replay_; }  // To look at what is stored.

 private:
  InProcessRun(const v1::RunConfig& config, std::unique_ptr<Episodes> episodes,
               std::unique_ptr<ActingPolicy> policy, const BatchShape& shape,
               std::unique_ptr<ParallelUpdater> updates);

  const Updater& updater() const { return updates_->updater(); }
  absl::StatusOr<std::vector<v1::Episode>> Decide();
  absl::StatusOr<std::optional<UpdateStats>> MakeUpdate();
  absl::Status PublishIfDue();
  bool Seeded() const { return schedule_.Seeded(decisions_); }

  const v1::RunConfig config_;
  const std::unique_ptr<Episodes> episodes_;
  const std::unique_ptr<ActingPolicy> policy_;
  const BatchShape shape_;
  const std::unique_ptr<ParallelUpdater> updates_;
  const RunSchedule schedule_;
  const std::vector<float> zeros_;  // [A], of an episode's last row.
  MetricsRegistry metrics_;
  Replay replay_;
  LocalSampler sampler_;
  std::unique_ptr<ReplayWriter> writer_;
  std::vector<EpisodeWriter> episode_writers_;
  ColumnBatch columns_;
  v1::ParameterSnapshot snapshot_;  // What the actor holds, without its data.
  int64_t decisions_ = 0;           // Of the run: all environments.
  int64_t own_decisions_ = 0;       // Of each environment.
};

}  // namespace pompc

#endif  // POMPC_CLI_IN_PROCESS_RUN_H_
