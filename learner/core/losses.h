// The losses of one update, as pure functions of model, batch and noise.
//
// Equations and sources: docs/algorithm.md. Shapes: T transitions, B windows, S = T or T+1 latents
// of the policy loss, L latent size, A action size, O obs size; time-major. Sums over time are
// weighted by rho^t and divided by the number of steps.
// Thread-safety: pure functions, but for the RunningScale arguments, which they update.
#ifndef POMPC_LEARNER_CORE_LOSSES_H_
#define POMPC_LEARNER_CORE_LOSSES_H_

#include <vector>

#include "common/model/noise.h"
#include "common/model/world_model.h"
#include "learner/core/running_scale.h"
#include "proto/pompc/v1/config.pb.h"

namespace pompc {

// Windows of T+1 consecutive observations. action[t], reward[t], terminated[t] and the prior lead
// from obs[t] to obs[t+1]. float32, on the model's device.
struct Batch {
  at::Tensor obs;         // [T+1, B, O]
  at::Tensor action;      // [T, B, A]
  at::Tensor reward;      // [T, B]
  at::Tensor terminated;  // [T, B] 1 where the task ended (not: was cut off) after the action.
  at::Tensor prior_mean;  // [T, B, A] planner prior p at obs[t]; 0 for random actions.
  at::Tensor prior_std;   // [T, B, A] its std; 1 for random actions.
  // [B] of each window in the losses, for batches drawn by priority; undefined: 1 each.
  at::Tensor weights;
};

// The batch with `map` applied to each of its tensors, in their order.
template <typename Map>
Batch MapBatch(const Batch& batch, const Map& map) {
  Batch mapped = {map(batch.obs),        map(batch.action),     map(batch.reward),
                  map(batch.terminated), map(batch.prior_mean), map(batch.prior_std)};
  if (batch.weights.defined()) mapped.weights = map(batch.weights);
  return mapped;
}

// All that are defined, in their order.
std::vector<at::Tensor> TensorsOf(const Batch& batch);

// Priors of re-planned windows: the first n of the batch.
struct ReanalyzedPrior {
  at::Tensor mean, std;       // [T, n, A]
  int64_t num_nonfinite = 0;  // PlanResult.num_nonfinite.
};

struct ModelLoss {
  // [], unweighted, with gradient.
  at::Tensor consistency, reward, value, termination;
  at::Tensor latents;      // [T+1, B, L] z_0 .. z_T of the rollout, without gradient.
  at::Tensor model_error;  // [T] mean of (z_t - h(o_t))^2, t = 1 .. T, without gradient.
  // [B] mean over time of |value - target|, the value being the mean over heads; without gradient.
  // Undefined without batch.weights.
  at::Tensor td_error;
};

// Value targets [T, B], without gradient. encoded: [T+1, B, L] encoded observations.
at::Tensor ValueTarget(const WorldModel& model, const v1::LearningConfig& config, double discount,
                       const Batch& batch, const at::Tensor& encoded, Noise& noise);

// tracked: the model with gradients. encoded_next: [T, B, L] h(o_1) .. h(o_T), no gradient; first:
// z_0 with gradient; target: [T, B]. encoded_next and target may be work of BranchStream::kTarget;
// losses are of BranchStream::kLosses, but for that of the value.
ModelLoss ComputeModelLoss(const WorldModel& tracked, const v1::LearningConfig& config,
                           const Batch& batch, const at::Tensor& first,
                           const at::Tensor& encoded_next, const at::Tensor& target, Noise& noise);

// KL(p || pi_p) over the window, [] in nats a dimension, with gradient to pi_p. latents: [T, B, L].
at::Tensor ComputePriorLoss(const WorldModel& tracked, const v1::LearningConfig& config,
                            const Batch& batch, const at::Tensor& latents);

struct PolicyLossOptions {
  const v1::LearningConfig& config;
  double discount = 0;
  double min_std = 0;    // The planner's, a lower bound of p's std in CROSS_ENTROPY.
  at::Tensor kl_weight;  // [] lambda.
};

// What the policy loss needs of policy, prior and replay alone: not of the model's parameters.
struct PolicyDraw {
  at::Tensor z;  // [S, B, L]
  PolicyDistribution policy;
  at::Tensor action;                           // [S, B, A] a ~ pi.
  at::Tensor za;                               // Of z and action.
  at::Tensor entropy;                          // [S, B] H.
  at::Tensor reference_mean, reference_std;    // [S, B, A] pi_ref; undefined if not regularised.
  at::Tensor objective;                        // [S, B] the loss's terms so far.
  at::Tensor mean_entropy, mean_std, mean_kl;  // [], as those of PolicyLoss.
};

// `tracked` gives the policy, `model` the prior. latents: [T+1, B, L].
PolicyDraw DrawPolicy(const WorldModel& tracked, const WorldModel& model,
                      const PolicyLossOptions& options, const Batch& batch,
                      const at::Tensor& latents, RunningScale& kl_scale, Noise& noise);

struct PolicyLoss {
  at::Tensor loss;                           // [], with gradient to the policy.
  at::Tensor mean_return, kl, entropy, std;  // [], means without gradient; kl in nats a dimension.
};

// `model` gives everything that is frozen.
PolicyLoss ComputePolicyLoss(const WorldModel& model, const PolicyLossOptions& options,
                             const Batch& batch, const PolicyDraw& draw, RunningScale& return_scale,
                             Noise& noise);

}  // namespace pompc

#endif  // POMPC_LEARNER_CORE_LOSSES_H_
