// What a planner is to those who act and to those who re-plan.
//
// Implementations: MppiPlanner (latent, this room) and the one on the true physics (actor/physics).
// Shapes: B observations (environments), O obs size, H horizon, A action size.
// Units: actions are normalised to [-1, 1]; values are discounted returns in reward units.
// Thread-safety: Plan() may run concurrently as long as no two calls share a PlannerState or Noise,
//   and nobody writes the model's parameters meanwhile.
#ifndef POMPC_COMMON_PLANNER_PLANNER_H_
#define POMPC_COMMON_PLANNER_PLANNER_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "common/model/noise.h"
#include "common/model/tensor.h"

namespace pompc {

enum class PlanMode {
  kAct,        // Training: the executed action carries noise of the planner's std.
  kEvaluate,   // No noise; which action is executed: PlannerConfig.evaluation_action.
  kReanalyze,  // Cold start, wider policy proposals, state untouched; only the prior is of use.
};

struct PlanRequest {
  at::Tensor obs;  // [B, O]
  // bool [B] on the CPU: environments whose episode starts with this observation (cold start).
  // Undefined: none starts. Without a previous mean in the state all are cold.
  at::Tensor reset;
  PlanMode mode = PlanMode::kAct;
  bool keep_candidates = false;  // Fill PlanResult.candidates; on a GPU this takes the slow path.
};

struct PlanResult {
  at::Tensor action;      // [B, A] to execute, in [-1, 1].
  at::Tensor prior_mean;  // [B, A] centre of the planner prior p to store (config: elite or mean).
  at::Tensor prior_std;   // [B, A] its std, first step.
  at::Tensor elite;       // [B, A] first action of the elite that was drawn.
  at::Tensor mean;        // [B, A] weighted mean of the elites' first actions.
  at::Tensor value;       // [B]    model value of the drawn elite.
  int64_t num_nonfinite = 0;  // Sequences rejected for a NaN or infinite value, over B, iterations.
  // The sequences of the last iteration, and their model values (-inf: rejected). Undefined unless
  // PlanRequest.keep_candidates.
  at::Tensor candidates;       // [B, N, H, A]
  at::Tensor candidate_value;  // [B, N]
};

// Warm start between the decisions of episodes. Owned by the caller, one for each batch of
// environments.
struct PlannerState {
  at::Tensor mean;  // [B, H, A]; undefined before the first plan.
  // What the last plan returned. Its tensors take the next result if the caller has let go of them,
  // so that planning on the CPU allocates nothing.
  PlanResult result = {};
};

class Planner {
 public:
  virtual ~Planner() = default;
  // `state` may be null (cold start, nothing kept); it changes only on success. Blocks for the
  // whole optimisation, and on a lock while another plan packs new parameters. INVALID_ARGUMENT:
  // wrong shape. FAILED_PRECONDITION: every sequence of some observation has a value that is not
  // finite.
  virtual absl::StatusOr<PlanResult> Plan(const PlanRequest& request, Noise& noise,
                                          PlannerState* state) const = 0;
};

}  // namespace pompc

#endif  // POMPC_COMMON_PLANNER_PLANNER_H_
