// One plan on packed weights: what MppiPlanner does on the CPU, with the factors that they have.
//
// The algorithm of mppi_planner.h with the same draws, without LibTorch's operators. What sequences
// share is computed once: the latent of an observation, its part of the first layers' products, and
// the rollouts of the proposals, which stay the same over the iterations. Blocks of sequences go
// through the whole horizon, so that what they need stays in the caches.
//
// Shapes: those of mppi_planner.h.
// Thread-safety: pure function; buffers belong to the calling thread.
// Allocation: none once the thread has planned these sizes before (dropout excepted), if `result`
//   and `mean` hold tensors that nobody else does.
// Determinism: equal (obs, mean, noise, parameters) => bit-equal results on one kind of CPU.
#ifndef POMPC_COMMON_PLANNER_PACKED_PLAN_H_
#define POMPC_COMMON_PLANNER_PACKED_PLAN_H_

#include <cstdint>

#include "absl/status/status.h"
#include "common/model/world_model.h"
#include "common/planner/mppi_planner.h"
#include "common/planner/planner.h"

namespace pompc {

struct PackedPlanInput {
  const PackedModel& model;
  const ModelSpec& spec;
  const MppiOptions& options;
  int iterations;
  const PlanRequest& request;
  const at::Tensor& initial_mean;  // [B, H, A] plans of the last decision, or undefined.
};

// Sets `result` and `mean` [B, H, A]; their tensors are written in place where they have the shape
// and no other holder. FAILED_PRECONDITION as Planner::Plan: both are then unchanged.
absl::Status PlanPacked(const PackedPlanInput& input, Noise& noise, PlanResult& result,
                        at::Tensor& mean);

}  // namespace pompc

#endif  // POMPC_COMMON_PLANNER_PACKED_PLAN_H_
