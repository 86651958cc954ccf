// Reanalyzer: plans windows of a batch again while the learner makes other updates.
//
// It plans with a copy of the parameters, taken when the plans are started, on a thread and, on a
// GPU, a stream of its own, whose kernels give way to those of the updates.
//
// Thread-safety: none; one thread owns a Reanalyzer.
// Determinism: on the CPU as MppiPlanner.
#ifndef POMPC_LEARNER_SERVICE_REANALYZER_H_
#define POMPC_LEARNER_SERVICE_REANALYZER_H_

#include <cstdint>
#include <memory>
#include <optional>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/base/bounded_queue.h"
#include "common/base/clock.h"
#include "common/base/thread.h"
#include "common/model/noise.h"
#include "common/model/parameters.h"
#include "common/planner/mppi_planner.h"
#include "learner/core/losses.h"
#include "learner/service/batch_view.h"
#include "proto/pompc/v1/config.pb.h"

namespace pompc {

class Reanalyzer {
 public:
  struct Result {
    ReanalyzedPrior prior;    // On the CPU.
    absl::Duration duration;  // Of the plans.
  };

  // Plans the first learning.reanalyze_windows windows of batches of `shape` on `device`. There it
  // plans once, so that later plans find everything set up. INVALID_ARGUMENT: planner settings that
  // cannot be. `clock` must outlive this.
  static absl::StatusOr<std::unique_ptr<Reanalyzer>> Create(const v1::RunConfig& config,
                                                            const BatchShape& shape,
                                                            at::Device device, Clock* clock);
  // Waits for plans under way.
  ~Reanalyzer();

  // Starts to plan the batch's windows with `parameters` as the work that the current stream has
  // been given leaves them. Each Start() is followed by one Finish() before the next. Errors: those
  // of ViewBatch().
  absl::Status Start(const Parameters& parameters, ColumnBatch& columns, uint64_t seed);

  // Blocks until the plans are made. Errors: those of Planner::Plan().
  absl::StatusOr<Result> Finish();

 private:
  struct Task {
    at::Tensor obs;  // [T n, O] on the CPU.
    uint64_t seed = 0;
    std::optional<c10::Event> parameters;  // When they are in place; unset: they are.
  };

  Reanalyzer(const v1::RunConfig& config, const BatchShape& shape,
             std::shared_ptr<Parameters> parameters, std::unique_ptr<MppiPlanner> planner,
             Clock* clock);
  void Run();
  absl::StatusOr<Result> Plan(const Task& task);

  const BatchShape shape_;
  const int64_t windows_;
  const int threads_;
  Clock* const clock_;
  const std::shared_ptr<Parameters> parameters_;
  const std::unique_ptr<MppiPlanner> planner_;
  GeneratorNoise noise_;
  BoundedQueue<Task> tasks_;
  BoundedQueue<absl::StatusOr<Result>> results_;
  std::optional<Thread> thread_;  // Last: it uses all of the above.
};

}  // namespace pompc

#endif  // POMPC_LEARNER_SERVICE_REANALYZER_H_
