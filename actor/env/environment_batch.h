// Steps many environments of one task at once on a fixed set of threads.
//
// Work is handed out one environment at a time, so uneven step costs balance. Nothing is allocated
// per step. Shapes: N environments, O observation size, A action size.
// Thread-safety: one caller at a time. Blocks: Reset() and Step() until all environments are done;
// the calling thread works too.
// Determinism: results do not depend on the number of threads: environment i is seeded with
// options.seed + i and stepped by one thread at a time.
#ifndef POMPC_ACTOR_ENV_ENVIRONMENT_BATCH_H_
#define POMPC_ACTOR_ENV_ENVIRONMENT_BATCH_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/types/span.h"
#include "actor/env/environment.h"
#include "common/base/thread.h"

namespace pompc {

class EnvironmentBatch {
 public:
  // num_environments, num_threads >= 1. INVALID_ARGUMENT otherwise; else errors as
  // CreateEnvironment().
  static absl::StatusOr<std::unique_ptr<EnvironmentBatch>> Create(const EnvironmentOptions& options,
                                                                  int num_environments,
                                                                  int num_threads);
  ~EnvironmentBatch();

  int64_t size() const { return static_cast<int64_t>(environments_.size()); }
  const EnvironmentSpec& spec() const { return environments_[0]->spec(); }
  // For what concerns one environment alone, e.g. the Reset() after its episode ended. Not while
  // Reset() or Step() runs.
  Environment& environment(int64_t index) { return *environments_[index]; }

  // Starts an episode in all. observations: [N, O]. The first error by index, as Environment.
  absl::Status Reset(absl::Span<float> observations);
  // One decision in all. actions: [N, A]; observations: [N, O]; results: [N]. The first error by
  // index, as Environment; environments without an error have been stepped.
  absl::Status Step(absl::Span<const float> actions, absl::Span<float> observations,
                    absl::Span<StepResult> results);

 private:
  // What to do in all environments. Empty results: reset.
  struct Job {
    absl::Span<const float> actions;
    absl::Span<float> observations;
    absl::Span<StepResult> results;
  };

  EnvironmentBatch(std::vector<std::unique_ptr<Environment>> environments, int num_threads);

  absl::Status Run(const Job& job);
  void WorkerLoop();
  // Takes environments until none is left.
  void Work(const Job& job);
  absl::Status RunOne(const Job& job, int64_t index);

  const std::vector<std::unique_ptr<Environment>> environments_;
  std::vector<absl::Status> statuses_;  // [N], of the job; element i by whoever took i.
  std::atomic<int64_t> next_{0};        // Next environment to take.

  absl::Mutex mutex_;
  Job job_ ABSL_GUARDED_BY(mutex_);
  int64_t job_number_ ABSL_GUARDED_BY(mutex_) = 0;
  int busy_workers_ ABSL_GUARDED_BY(mutex_) = 0;
  bool stop_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<Thread> workers_;  // Last: they use all of the above.
};

}  // namespace pompc

#endif  // POMPC_ACTOR_ENV_ENVIRONMENT_BATCH_H_
