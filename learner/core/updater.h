// One gradient update of world model, value heads, sampling policy and intermediate prior.
//
// One loss covers the family by config (docs/algorithm.md has the equations and the presets):
//   model:  consistency + reward + value (+ termination), Adam, clipped;
//   prior:  KL(p || pi_p) on planner priors p, if the intermediate prior is used;
//   policy: -c_Q G/S_G + lambda D(pi, pi_ref)/S_D - alpha H(pi), with the updated value heads and
//           prior and the latents of the model step, frozen;
//   target value heads: Polyak step towards the updated ones.
//
// Source: PO-MPC (arXiv:2510.04280); nicklashansen/tdmpc2@e9f5932 tdmpc2/tdmpc2.py:208-349;
//   wertyuilife2/bmpc@d5dabc6 bmpc/bmpc.py.
// Shapes: T transitions a window, B windows, O obs size, A action size; time-major.
// On a GPU an update is one CUDA graph (update_graph.h), but for re-planning and the draws, and the
// host does not wait for it: Update() returns when it is given to the device.
// Data-parallel: with a Collective an Updater is one of N ranks, each on a device of its own, which
// make the same calls at the same time, each with its B / N consecutive windows of the batch and
// with noise from an equal source. Losses, gradients and scales are those of the whole batch: what
// N ranks compute differs from what one does by the order of sums alone, and they stay bit-equal.
// Thread-safety: none; one thread owns an Updater.
// Determinism: on CPU, equal (state, batch, noise) => bit-equal results.
#ifndef POMPC_LEARNER_CORE_UPDATER_H_
#define POMPC_LEARNER_CORE_UPDATER_H_

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/base/clock.h"
#include "common/model/checkpoint.h"
#include "common/model/noise.h"
#include "common/model/world_model.h"
#include "common/planner/mppi_planner.h"
#include "learner/core/adam.h"
#include "learner/core/collective.h"
#include "learner/core/losses.h"
#include "learner/core/running_scale.h"
#include "learner/core/update_graph.h"
#include "proto/pompc/v1/config.pb.h"

namespace pompc {

// Scalars of one update. Those of a part that did not run are 0.
enum class Stat {
  kTotalLoss,
  kConsistencyLoss,
  kRewardLoss,
  kValueLoss,
  kTerminationLoss,
  kModelGradientNorm,  // Before clipping.
  kPolicyLoss,
  kPolicyGradientNorm,
  kPolicyReturn,   // Mean of G over the first latents, reward units.
  kPolicyKl,       // Mean of D, nats a dimension (CROSS_ENTROPY: -log density).
  kPolicyEntropy,  // Mean of H as it enters the loss.
  kPolicyStd,      // Mean std of the sampling policy.
  kReturnScale,    // S_G
  kKlScale,        // S_D
  kKlWeight,       // lambda
  kPriorLoss,      // KL(p || pi_p), nats a dimension.
  kPriorGradientNorm,
  kValueTarget,  // Mean of the value targets.
  kCount,
};
const char* StatName(Stat stat);       // "consistency_loss", ...
std::vector<const char*> StatNames();  // Of all, in their order.

struct UpdateStats {
  at::Tensor values;       // [Stat::kCount], on the model's device.
  at::Tensor model_error;  // [T] ModelLoss.model_error, there too.
  // Both wait for the device.
  std::array<double, static_cast<size_t>(Stat::kCount)> Read() const;
  std::vector<double> ReadModelError() const;
};

enum class UpdateKind {
  kFull,
  kModelOnly,  // Model, value and targets; neither policy nor prior (BMPC's pretraining).
  kCount,
};

struct UpdateRequest {
  UpdateKind kind = UpdateKind::kFull;
  int64_t env_steps = 0;  // Environment (control) steps so far; for a lambda schedule.
  bool want_stats = false;
  // When re-planning is due: the batch's re-planned windows, if that has been done already.
  std::optional<ReanalyzedPrior> reanalyzed;
};

struct UpdateResult {
  std::optional<UpdateStats> stats;           // If asked for.
  std::optional<ReanalyzedPrior> reanalyzed;  // When re-planning was due: to write back to replay.
  absl::Duration reanalyze_duration;          // Of that re-planning, if it was made here.
  // [B] ModelLoss.td_error, on the model's device: the windows' next priorities, of all ranks.
  // Undefined without batch.weights.
  at::Tensor td_error;
};

struct UpdaterOptions {
  int64_t obs_dim = 0;
  int64_t action_dim = 0;
  int64_t episode_decisions = 0;          // Length of an episode, from which the discount follows.
  uint64_t seed = 0;                      // Of the initial parameters.
  at::TensorOptions tensor = at::kFloat;  // Device; dtype float32 (tests also use float64).
  bool record = true;                     // On a GPU: as CUDA graphs, not kernel by kernel.
  // Of this rank of a data-parallel update; must outlive the Updater. Null: the only one.
  Collective* collective = nullptr;
  Clock* clock = RealClock();  // For reanalyze_duration. Must outlive the Updater.
};

class Updater {
 public:
  // `config`: one that Validate() of common/config accepts. INVALID_ARGUMENT: sizes or planner
  // settings that cannot be. On a GPU it sets the process's arithmetic of float32 products to
  // learner.matmul_precision; on a CPU it makes the process keep freed memory.
  static absl::StatusOr<std::unique_ptr<Updater>> Create(const v1::RunConfig& config,
                                                         const UpdaterOptions& options);

  // Draws, in order: those of the re-planning, when due; Normal [T, B, A] and Heads for the value
  // target; dropout mask for the value loss; then for the policy Normal [S, B, A] (S = T, or T+1
  // with policy_loss_on_last_latent), Heads if c_Q > 0 or CROSS_ENTROPY, dropout mask. Masks only
  // with dropout > 0 (dropout_everywhere: for the target too, after its Heads).
  // When re-planning is due, the batch's prior is refreshed in place. On a GPU all batches of an
  // Updater have the same shapes. INVALID_ARGUMENT: shapes. A rank that gets an error aborts the
  // Collective, or the others wait for it.
  absl::StatusOr<UpdateResult> Update(const UpdateRequest& request, Batch& batch, Noise& noise);

  // Whether full updates re-plan now and then, and whether the next one does.
  bool Reanalyzes() const;
  bool ReanalyzeDue() const {
    return Reanalyzes() && (full_updates_ + 1) % config_.learning().reanalyze_interval() == 0;
  }
  // Plans the first `num_windows` windows of the batch (of all ranks: each plans them all, alike)
  // again, without their last observation.
  absl::StatusOr<ReanalyzedPrior> Reanalyze(const Batch& batch, int64_t num_windows,
                                            Noise& noise) const;

  // Updates made: all, and those that counted for policy and re-planning.
  int64_t updates() const { return updates_; }
  int64_t full_updates() const { return full_updates_; }

  // The live parameters: they change with each update; take a Snapshot() to publish.
  const std::shared_ptr<Parameters>& parameters() const { return parameters_; }
  const std::shared_ptr<const WorldModel>& model() const { return model_; }

  // Everything that later updates depend on.
  Checkpoint Save() const;
  // INVALID_ARGUMENT: a tensor is missing or has another shape; state is then undefined.
  absl::Status Restore(const Checkpoint& checkpoint);

 private:
  Updater(const v1::RunConfig& config, const UpdaterOptions& options,
          std::shared_ptr<Parameters> parameters, std::shared_ptr<const WorldModel> model,
          std::unique_ptr<MppiPlanner> planner);
  absl::StatusOr<UpdateResult> UpdateOrThrow(const UpdateRequest& request, Batch& batch,
                                             Noise& noise);
  // All but re-planning, without waiting for a device. -> statistics [Stat::kCount], and behind
  // them the model errors [T], and the TD errors [B] if the batch has weights.
  at::Tensor Compute(UpdateKind kind, const Batch& batch, Noise& noise);
  ModelLoss LossOfModel(const Batch& batch, Noise& noise);
  // Steps what the policy's step needs; FinishModel() the rest of model and targets. Returns the
  // gradient's norm.
  at::Tensor StepModel(const ModelLoss& loss);
  void FinishModel(const at::Tensor& norm);
  void StepPrior(const Batch& batch, const at::Tensor& latents);
  void UsePrior(const ReanalyzedPrior& prior, Batch& batch) const;
  // Over the ranks, in place.
  void Average(const at::Tensor& t) const;
  void StepPolicy(const PolicyLoss& loss);
  void SetKlWeight(int64_t env_steps);
  void Report(Stat stat, const at::Tensor& value);
  // All tensors of the state by name, sharing memory.
  std::map<std::string, at::Tensor> State() const;

  v1::RunConfig config_;
  Clock* const clock_;
  Collective* const collective_;
  std::shared_ptr<Parameters> parameters_;
  std::shared_ptr<const WorldModel> model_;  // Parameters as constants.
  WorldModel tracked_;                       // Parameters as leaves.
  std::unique_ptr<MppiPlanner> planner_;
  Adam model_adam_, policy_adam_, prior_adam_;
  RunningScale return_scale_, kl_scale_;
  at::Tensor log_kl_weight_;                // [], only moved by dual ascent.
  at::Tensor kl_weight_;                    // [], lambda of this update.
  std::optional<double> filled_kl_weight_;  // What kl_weight_ was filled with.
  at::Tensor stale_policy_norm_;            // [], gradient norm left by the last policy step.
  at::Tensor zero_, one_;                   // []
  std::vector<at::Tensor> loss_weights_;    // [] each: consistency, reward, value, termination.
  std::array<at::Tensor, static_cast<size_t>(Stat::kCount)> report_;
  // Of each kind; null on the CPU.
  std::array<std::unique_ptr<UpdateGraph>, static_cast<size_t>(UpdateKind::kCount)> graphs_;
  int64_t updates_ = 0;
  int64_t full_updates_ = 0;
};

}  // namespace pompc

#endif  // POMPC_LEARNER_CORE_UPDATER_H_
