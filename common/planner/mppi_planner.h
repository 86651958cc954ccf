// MPPI planning in the latent space of a learned world model, for a batch of observations at once.
//
// Plan() fits a diagonal Gaussian over the next H actions: it scores N sampled sequences with the
// model, then refits mean and std to the E best ("elites"), weighted by
// exp(inverse_temperature * value). num_policy_samples of the sequences are the sampling policy's
// own rollouts (a fraction proposal_mix of them the intermediate prior's); they stay the same over
// the iterations.
//
// Source: TD-MPC2 (arXiv:2310.16828), nicklashansen/tdmpc2@e9f5932 tdmpc2/tdmpc2.py:122-206;
//   batched form and re-planning: wertyuilife2/bmpc@d5dabc6 bmpc/bmpc.py.
// Deviations: (1) a non-finite value counts as -inf and is reported; the references map NaN to 0,
//   which wins when values are negative. (2) The noise on the executed action is drawn for each
//   environment. (3) Re-planning draws no noise for an action that nobody executes.
// Shapes: B observations, N samples, P of them proposals, E elites, H horizon, A action size.
// Determinism: equal (obs, state, noise, parameters) => bit-equal results, on one kind of CPU; on
//   one kind of GPU if the batch size is the same.
#ifndef POMPC_COMMON_PLANNER_MPPI_PLANNER_H_
#define POMPC_COMMON_PLANNER_MPPI_PLANNER_H_

#include <memory>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "common/model/math.h"
#include "common/model/world_model.h"
#include "common/planner/planner.h"
#include "proto/pompc/v1/config.pb.h"

namespace pompc {

struct MppiOptions {
  v1::PlannerConfig config;
  double discount = 0.99;                   // gamma per decision, in (0, 1].
  LogStdRange reanalyze_log_std = {-2, 1};  // Of the policy's proposals in kReanalyze.
  double dropout = 0;  // Of the value heads while planning; 0 in all but TD-M(PC)^2.
  // On a GPU: graph_plan.h. On a CPU: BF16 plans with bfloat16 factors (packed_mlp.h) if the
  // processor multiplies them; else, as FP32 and TF32 always, with float32.
  v1::MatmulPrecision precision = v1::FP32;
  // On a GPU, for plans beside other work: large layers take two thirds of the multiprocessors at
  // most, and no kernel waits on them for the one before it. Alone, plans take longer so; their
  // results are the same.
  bool leaves_room = false;

  // episode_decisions: length of an episode, from which the discount follows.
  static MppiOptions FromConfig(const v1::RunConfig& config, int64_t episode_decisions);
  absl::Status Validate() const;  // Rejects; never repairs.
};

// gamma of a run, from the length of its episodes in decisions.
double RunDiscount(const v1::LearningConfig& config, int64_t episode_decisions);

class GraphPlanner;

class MppiPlanner final : public Planner {
 public:
  // Shares the model; parameters written to its buffers between two plans take effect if the write
  // changes Parameters::version().
  static absl::StatusOr<std::unique_ptr<MppiPlanner>> Create(
      const MppiOptions& options, std::shared_ptr<const WorldModel> model);

  // Draws, in order: Normal [B, P, A] for each of H proposal steps; in each iteration Normal
  // [B, H, N-P, A], then (Q heads only) Normal [B, N, A] for the terminal action, Heads, and the
  // dropout mask if any; Index; Normal [B, A] for the executed action (kAct only).
  absl::StatusOr<PlanResult> Plan(const PlanRequest& request, Noise& noise,
                                  PlannerState* state) const override;

  const MppiOptions& options() const { return options_; }
  int iterations() const { return iterations_; }  // With the extra ones of a large action space.

 private:
  MppiPlanner(const MppiOptions& options, std::shared_ptr<const WorldModel> model);
  // The same plan in packed_plan.h (float32 parameters on the CPU) and on LibTorch's operators
  // (elsewhere, unless graph_plan.h has it).
  absl::StatusOr<PlanResult> PlanOnKernels(const PlanRequest& request, Noise& noise,
                                           PlannerState* state) const;
  absl::StatusOr<PlanResult> PlanOnOperators(const PlanRequest& request, Noise& noise,
                                             PlannerState* state) const;
  void RollOutPolicy(const at::Tensor& z, PlanMode mode, Noise& noise, at::Tensor& actions) const;
  // The weights packed, once for each version of the parameters.
  std::shared_ptr<const PackedModel> Packed() const;

  MppiOptions options_;
  std::shared_ptr<const WorldModel> model_;
  int iterations_;
  std::shared_ptr<GraphPlanner> graphs_;  // Null where it does not apply.

  mutable absl::Mutex mu_;
  mutable std::shared_ptr<const PackedModel> packed_ ABSL_GUARDED_BY(mu_);
  mutable uint32_t packed_version_ ABSL_GUARDED_BY(mu_) = 0;
};

// --- The two steps of an iteration, as pure functions. ---

// Model value of action sequences from z. z: [B, L]; actions: [B, H, N, A] -> [B, N].
at::Tensor EstimateValue(const WorldModel& model, const at::Tensor& z, const at::Tensor& actions,
                         double discount, double dropout, Noise& noise);

struct Refit {
  at::Tensor elite_value;    // [B, E] descending; -inf where not finite.
  at::Tensor elite_actions;  // [B, H, E, A]
  at::Tensor elite_index;    // int64 [B, E]
  at::Tensor score;          // [B, E] weights, sum 1.
  at::Tensor mean, std;      // [B, H, A]
};
// value: [B, N] with -inf for rejected sequences; actions: [B, H, N, A].
Refit RefitToElites(const at::Tensor& value, const at::Tensor& actions,
                    const v1::PlannerConfig& config);

}  // namespace pompc

#endif  // POMPC_COMMON_PLANNER_MPPI_PLANNER_H_
