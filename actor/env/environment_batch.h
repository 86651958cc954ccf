// Steps many environments of one task at once on a fixed set of threads.
//
// Each thread has a share of the environments, whose data stays in its core's cache; one that is
// done with its own takes from the others', one at a time, so uneven step costs balance. Nothing is
// allocated per step. A thread without work looks for some for about 50 us, then sleeps.
//
// Shapes: N environments, O observation size, A action size.
// Thread-safety: one caller at a time. Blocks: Reset(), Step() and FinishStep() until all
// environments are done; the calling thread works too.
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
#include "absl/time/time.h"
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
  // Reset() runs or a step is under way.
  Environment& environment(int64_t index) { return *environments_[index]; }

  // Starts an episode in all. observations: [N, O]. The first error by index, as Environment.
  absl::Status Reset(absl::Span<float> observations);
  // One decision in all. actions: [N, A]; observations: [N, O]; results: [N]. The first error by
  // index, as Environment; environments without an error have been stepped.
  absl::Status Step(absl::Span<const float> actions, absl::Span<float> observations,
                    absl::Span<StepResult> results);

  // Step() in two parts, for a caller that has something else to do meanwhile: the other threads
  // begin at once. No other call in between; the memory must stay valid.
  absl::Status StartStep(absl::Span<const float> actions, absl::Span<float> observations,
                         absl::Span<StepResult> results);
  absl::Status FinishStep();

  // From the start of the last step until its last environment was done.
  absl::Duration step_duration() const { return step_duration_; }

 private:
  // What to do in all environments. Empty results: reset.
  struct Job {
    absl::Span<const float> actions;
    absl::Span<float> observations;
    absl::Span<StepResult> results;
  };

  // Environments [begin, end). A cache line each, because every taking writes it.
  struct alignas(64) Share {
    int64_t begin = 0;
    int64_t end = 0;
    std::atomic<int64_t> next{0};  // Next one to take; from `end` on none is left.
  };

  EnvironmentBatch(std::vector<std::unique_ptr<Environment>> environments, int num_threads);

  absl::Status Start(const Job& job);
  void WorkerLoop(size_t thread);
  // Takes environments until none is left, those of share `thread` first.
  void Work(const Job& job, size_t thread);
  absl::Status RunOne(const Job& job, int64_t index);

  const std::vector<std::unique_ptr<Environment>> environments_;
  std::vector<absl::Status> statuses_;  // [N], of the job; element i by whoever took i.
  std::vector<Share> shares_;           // One per thread; the first is the caller's.
  absl::Time start_;                    // Of the job.
  std::atomic<int64_t> left_{0};        // Environments of the job that are not done.
  absl::Duration step_duration_;        // Written by whoever is done last.

  absl::Mutex mutex_;
  Job job_ ABSL_GUARDED_BY(mutex_);
  // Written under mutex_, so that sleepers notice; read without it by those who have yet to sleep.
  std::atomic<int64_t> job_number_{0};
  std::atomic<int> busy_workers_{0};
  bool stop_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<Thread> workers_;  // Last: they use all of the above.
};

}  // namespace pompc

#endif  // POMPC_ACTOR_ENV_ENVIRONMENT_BATCH_H_
