// Plans on a GPU: what MppiPlanner does there with noise of its own, as one CUDA graph for each
// batch size.
//
// The algorithm of mppi_planner.h. Matrix products are cuBLAS's, with sizes padded to multiples of
// 8; what stands between them are the kernels of plan_kernels.h. What sequences share is computed
// once: the latent of an observation and what follows from it alone (in float32), its part of the
// first layers' products, and the rollouts of the proposals. Chunks of observations go through all
// iterations on streams of their own, so that activations stay in the L2 cache and small kernels
// overlap; the rewards of all steps are computed together, beside the last step and the value
// heads.
//
// Precision: MppiOptions.precision. BF16: activations and weights in bfloat16; sums, normalisation,
//   logits and everything that depends on the observation alone in float32.
// Thread-safety: plans of one GraphPlanner take turns, on a lock.
// Allocation: a batch size's buffers and graph are made at its first plan (tens of ms) and
//   kept. Later plans allocate their results only.
// Determinism: equal (obs, state, seed, parameters, batch size) => bit-equal results on one kind of
//   GPU.
#ifndef POMPC_COMMON_PLANNER_GRAPH_PLAN_H_
#define POMPC_COMMON_PLANNER_GRAPH_PLAN_H_

#include <cstdint>
#include <map>
#include <memory>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "common/model/world_model.h"
#include "common/planner/mppi_planner.h"
#include "common/planner/planner.h"

namespace pompc {

class GraphPlanner {
 public:
  // What the last iteration of the last plan worked on, for tests.
  struct Trace {
    at::Tensor actions;  // [B, N, H, A], proposals first.
    at::Tensor value;    // [B, N], before values that are not finite are rejected.
  };

  // Whether this can plan with the model: float32 parameters on a GPU, no dropout, no termination,
  // no proposals of the intermediate prior, and sizes that the kernels take.
  static bool Supports(const MppiOptions& options, const WorldModel& model);

  // Throws c10::Error, as do the members.
  GraphPlanner(const MppiOptions& options, int iterations, std::shared_ptr<const WorldModel> model);
  ~GraphPlanner();
  GraphPlanner(const GraphPlanner&) = delete;
  GraphPlanner& operator=(const GraphPlanner&) = delete;

  // As Planner::Plan, all draws from `seed`. Waits until the GPU has finished.
  absl::StatusOr<PlanResult> Plan(const PlanRequest& request, uint64_t seed, PlannerState* state);

  // Only right after a plan for `batch` observations.
  Trace LastTrace(int64_t batch);

 private:
  class Weights;
  class Streams;
  class Graph;

  Graph& GraphFor(int64_t batch) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const MppiOptions options_;
  const int iterations_;
  const std::shared_ptr<const WorldModel> model_;

  absl::Mutex mu_;
  std::unique_ptr<Weights> weights_ ABSL_GUARDED_BY(mu_);
  std::unique_ptr<Streams> streams_ ABSL_GUARDED_BY(mu_);
  std::map<int64_t, std::unique_ptr<Graph>> graphs_ ABSL_GUARDED_BY(mu_);  // By batch size.
};

}  // namespace pompc

#endif  // POMPC_COMMON_PLANNER_GRAPH_PLAN_H_
