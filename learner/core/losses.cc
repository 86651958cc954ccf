#include "learner/core/losses.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <vector>

#include "common/model/branch.h"
#include "common/model/gpu_layers.h"

namespace pompc {
namespace {

// values [.., B], each window's times its weight. Its mean is what a uniformly drawn batch would
// give on average, up to a common factor.
at::Tensor Weighted(const at::Tensor& values, const Batch& batch) {
  return batch.weights.defined() ? values * batch.weights : values;
}

// Dropout in training, where every value head computes; undefined without dropout.
at::Tensor Mask(const WorldModel& model, const at::Tensor& input, int64_t heads, Noise& noise) {
  const double rate = model.spec().config.dropout();
  return rate > 0 ? noise.DropoutMask(model.DropoutShape(input, heads), rate) : at::Tensor();
}

at::Tensor NormalAction(Noise& noise, const at::Tensor& z, int64_t action_dim) {
  return noise.Normal({z.size(0), z.size(1), action_dim});
}

// TimeMean() of the mean over the dimensions `others`, all but time_dim.
at::Tensor TimeMeanOf(const at::Tensor& x, int64_t time_dim, at::IntArrayRef others, double rho) {
  if (const GpuLayers* gpu = GpuLayersOf(x)) return gpu->TimeMeanOf(x, time_dim, rho, {});
  return TimeMean(x.mean(others), rho);
}

// Sets consistency and model_error from z_1 .. z_T, reached, and h(o_1) .. h(o_T), encoded, both
// [T, B, L]. No gradient reaches `encoded`.
void CompareLatents(const at::Tensor& reached, const at::Tensor& encoded, const Batch& batch,
                    double rho, ModelLoss* loss) {
  constexpr std::array<int64_t, 2> kOthers = {1, 2};
  const GpuLayers* const gpu = batch.weights.defined() ? nullptr : GpuLayersOf(reached);
  if (gpu != nullptr) {  // One kernel, gradient included.
    loss->consistency = gpu->TimeMeanOf(reached, 0, rho, encoded);
    loss->model_error = (reached.detach() - encoded).square().mean(kOthers);
    return;
  }
  const at::Tensor errors = (reached - encoded).square();
  const at::Tensor means = errors.mean(kOthers);
  loss->model_error = means.detach();
  loss->consistency = batch.weights.defined()
                          ? TimeMeanOf(errors * batch.weights.unsqueeze(-1), 0, kOthers, rho)
                          : TimeMean(means, rho);
}

// 1 while the episode goes on after reaching z, by the model's prediction. [..]
at::Tensor Continues(const WorldModel& model, const at::Tensor& z) {
  if (!model.spec().config.predict_termination()) return at::ones({}, z.options());
  return (model.TerminationLogit(z) <= 0).to(z.scalar_type());
}

// TD-M(PC)^2 weighs its prior by A / 61, 61 being the largest action size of its tasks.
constexpr double kCrossEntropyActions = 61;

// The actions of the tasks that kl_weight was tuned on; see kl_action_scaling.
constexpr double kTunedActions = 6;

// Advantage weights exp(advantage / kAwacTemperature) of AWAC, and their limits.
constexpr double kAwacTemperature = 0.3333;
constexpr double kAwacMinWeight = 0.1, kAwacMaxWeight = 10;
// Keeps the standard score of a replayed action finite.
constexpr double kStdGuard = 1e-8;
constexpr double kLeastLogProb = -50000;  // Of BC, against outliers.

// G(z) = Q(z, a), or R(z, a) + gamma V(d(z, a)). [S, B]
at::Tensor PolicyReturn(const WorldModel& model, double discount, const at::Tensor& za,
                        Noise& noise) {
  const at::Tensor heads = noise.Heads(model.num_value_heads());
  const at::Tensor input = model.values_take_actions() ? za : model.Next(za);
  const at::Tensor mask = Mask(model, input, 2, noise);
  const at::Tensor value =
      model.Decode(model.ValueLogits(input, WorldModel::Heads::kOnline, heads, mask)).mean(0);
  if (model.values_take_actions()) return value;
  return model.Reward(za) + discount * Continues(model, input) * value;
}

// log p(action) of the planner prior as TD-M(PC)^2 scales it. [S, B]
at::Tensor PriorLogProb(const at::Tensor& mean, const at::Tensor& prior_std, double min_std,
                        const at::Tensor& action) {
  const at::Tensor std = prior_std.clamp_min(min_std);
  return ScaledGaussianLogProb((action - mean) / std, at::log(std));
}

// What TD-M(PC)^2 is compared with. value: [S, B] G(z, a) / S_G. -> [S, B].
at::Tensor AblationObjective(const WorldModel& model, const PolicyLossOptions& options,
                             const Batch& batch, const PolicyDraw& draw, const at::Tensor& value,
                             const at::Tensor& return_scale, Noise& noise) {
  const v1::LearningConfig& config = options.config;
  switch (config.policy_objective()) {
    case v1::LearningConfig::BC_SAC:
      return -config.entropy_weight() * draw.entropy - config.return_weight() * value +
             options.kl_weight * (draw.action - batch.action).square().sum(-1);
    case v1::LearningConfig::BC:
      return -options.kl_weight *
             PriorLogProb(batch.prior_mean, batch.prior_std, options.min_std, draw.action)
                 .clamp(kLeastLogProb, 0) /
             return_scale;
    default: {
      const at::Tensor replayed =
          PolicyReturn(model, options.discount, model.Join(draw.z, batch.action), noise) /
          return_scale;
      const at::Tensor weight = at::exp((value - replayed).detach() / kAwacTemperature)
                                    .clamp(kAwacMinWeight, kAwacMaxWeight);
      // As published: the density before tanh, with the network's log std as it comes.
      const at::Tensor& log_std = draw.policy.raw_log_std;
      const at::Tensor eps =
          (batch.action - draw.policy.pre_tanh_mean) / (at::exp(log_std) + kStdGuard);
      return -weight * ScaledGaussianLogProb(eps, log_std);
    }
  }
}

}  // namespace

std::vector<at::Tensor> TensorsOf(const Batch& batch) {
  std::vector<at::Tensor> tensors;
  MapBatch(batch, [&](const at::Tensor& t) { return tensors.emplace_back(t); });
  return tensors;
}

at::Tensor ValueTarget(const WorldModel& model, const v1::LearningConfig& config, double discount,
                       const Batch& batch, const at::Tensor& encoded, Noise& noise) {
  const at::NoGradGuard no_grad;
  const int64_t steps = batch.action.size(0), action_dim = batch.action.size(2);
  // The target is sum + weight * value(z_end).
  at::Tensor sum, weight, input;
  if (config.value_target() == v1::LearningConfig::Q_MODEL_FREE) {
    const at::Tensor z = encoded.narrow(0, 1, steps);
    input = model.Join(z, model.Policy(z).Sample(NormalAction(noise, z, action_dim)));
    sum = batch.reward;
    weight = discount * (1 - batch.terminated);
  } else {
    at::Tensor z = encoded.narrow(0, 0, steps);
    sum = at::zeros_like(batch.reward);
    weight = at::ones_like(batch.reward);
    for (int i = 0; i < config.td_horizon(); ++i) {
      const at::Tensor za =
          model.Join(z, model.Policy(z).Sample(NormalAction(noise, z, action_dim)));
      sum = sum + weight * model.Reward(za);
      z = model.Next(za);
      weight = weight * discount * Continues(model, z);
    }
    input = z;
  }
  const at::Tensor heads = noise.Heads(model.num_value_heads());
  const at::Tensor mask = config.dropout_everywhere() ? Mask(model, input, 2, noise) : at::Tensor();
  const at::Tensor values =
      model.Decode(model.ValueLogits(input, WorldModel::Heads::kTarget, heads, mask));
  const bool minimum = config.target_reduction() == v1::LearningConfig::MIN;
  return sum + weight * (minimum ? values.amin(0) : values.mean(0));
}

ModelLoss ComputeModelLoss(const WorldModel& tracked, const v1::LearningConfig& config,
                           const Batch& batch, const at::Tensor& first,
                           const at::Tensor& encoded_next, const at::Tensor& target, Noise& noise) {
  const int64_t steps = batch.action.size(0);
  const double rho = config.rho();
  std::vector<at::Tensor> latents = {first}, joined;
  for (int64_t t = 0; t < steps; ++t) {
    joined.push_back(tracked.Join(latents.back(), batch.action[t]));
    latents.push_back(tracked.Next(joined.back()));
  }
  const at::Tensor z = at::stack(latents);
  const at::Tensor za = at::stack(joined);
  const at::Tensor reached = z.narrow(0, 1, steps);

  ModelLoss loss;
  loss.latents = z.detach();
  const Branch targets(BranchStream::kTarget), losses(BranchStream::kLosses);
  losses.Uses(za);
  losses.Uses(z);
  loss.reward = losses.Run([&] {
    const at::Tensor logits = tracked.RewardLogits(za);
    return TimeMeanOf(Weighted(TwoHotCrossEntropy(logits, batch.reward, tracked.bins()), batch), 0,
                      {1}, rho);
  });
  if (tracked.spec().config.predict_termination()) {
    loss.termination = losses.Run([&] {
      return at::binary_cross_entropy_with_logits(tracked.TerminationLogit(reached),
                                                  batch.terminated, batch.weights);
    });
  }
  losses.Run([&] {
    targets.Join();
    CompareLatents(reached, encoded_next, batch, rho, &loss);
  });
  const at::Tensor input = tracked.values_take_actions() ? za : z.narrow(0, 0, steps);
  const at::Tensor mask = Mask(tracked, input, tracked.num_value_heads(), noise);
  const at::Tensor logits = tracked.ValueLogits(input, WorldModel::Heads::kOnline, {}, mask);
  targets.Join();
  loss.value = TimeMeanOf(Weighted(TwoHotCrossEntropy(logits, target, tracked.bins()), batch), 1,
                          {0, 2}, rho);
  if (batch.weights.defined()) {
    const at::NoGradGuard no_grad;
    loss.td_error = (tracked.Decode(logits.detach()).mean(0) - target).abs().mean(0);
  }
  return loss;
}

at::Tensor ComputePriorLoss(const WorldModel& tracked, const v1::LearningConfig& config,
                            const Batch& batch, const at::Tensor& latents) {
  const PolicyDistribution prior = tracked.Prior(latents);
  at::Tensor kl = GaussianKl(batch.prior_mean, batch.prior_std, prior.mean, at::exp(prior.log_std));
  if (batch.weights.defined()) kl = kl * batch.weights.unsqueeze(-1);
  return TimeMeanOf(kl, 0, {1, 2}, config.rho());
}

PolicyDraw DrawPolicy(const WorldModel& tracked, const WorldModel& model,
                      const PolicyLossOptions& options, const Batch& batch,
                      const at::Tensor& latents, RunningScale& kl_scale, Noise& noise) {
  const v1::LearningConfig& config = options.config;
  const int64_t action_dim = batch.action.size(2);
  PolicyDraw draw;
  draw.z =
      config.policy_loss_on_last_latent() ? latents : latents.narrow(0, 0, batch.action.size(0));
  draw.policy = tracked.Policy(draw.z);
  const at::Tensor std = at::exp(draw.policy.log_std);
  const at::Tensor eps = NormalAction(noise, draw.z, action_dim);
  draw.action = draw.policy.Sample(eps);
  draw.za = model.Join(draw.z, draw.action);
  // H(pi) by the sample. The published codes scale that of the Gaussian by A, not the correction.
  if (config.entropy_tanh_correction()) {
    draw.entropy = SquashCorrection(draw.action) - ScaledGaussianLogProb(eps, draw.policy.log_std);
  } else {
    draw.entropy = -static_cast<double>(action_dim) * GaussianLogProb(eps, draw.policy.log_std);
  }
  draw.mean_entropy = draw.entropy.detach().mean();
  draw.mean_std = std.detach().mean();
  draw.objective = -config.entropy_weight() * draw.entropy;
  if (!IsRegularised(config)) return draw;

  if (config.prior_source() == v1::LearningConfig::LEARNED) {
    const PolicyDistribution prior = model.Prior(draw.z);
    draw.reference_mean = prior.mean;
    draw.reference_std = at::exp(prior.log_std);
  } else {
    draw.reference_mean = batch.prior_mean;
    draw.reference_std = batch.prior_std;
  }
  if (config.divergence() == v1::LearningConfig::CROSS_ENTROPY) return draw;  // Needs S_G.
  const bool forward = config.divergence() == v1::LearningConfig::FORWARD;
  const at::Tensor divergence =
      (forward ? GaussianKl(draw.reference_mean, draw.reference_std, draw.policy.mean, std)
               : GaussianKl(draw.policy.mean, std, draw.reference_mean, draw.reference_std))
          .mean(-1);
  kl_scale.Update(divergence[0]);
  const double factor = config.kl_action_scaling()
                            ? std::max(1.0, static_cast<double>(action_dim) / kTunedActions)
                            : 1;
  draw.objective = at::addcmul(draw.objective, divergence,
                               options.kl_weight * kl_scale.value().reciprocal(), factor);
  draw.mean_kl = divergence.detach().mean();
  return draw;
}

PolicyLoss ComputePolicyLoss(const WorldModel& model, const PolicyLossOptions& options,
                             const Batch& batch, const PolicyDraw& draw, RunningScale& return_scale,
                             Noise& noise) {
  const v1::LearningConfig& config = options.config;
  const bool ablation = config.policy_objective() != v1::LearningConfig::REGULARISED;
  PolicyLoss loss = {{}, {}, draw.mean_kl, draw.mean_entropy, draw.mean_std};
  at::Tensor objective = draw.objective;
  if (ablation || config.return_weight() > 0) {
    const at::Tensor value = PolicyReturn(model, options.discount, draw.za, noise);
    return_scale.Update(value[0]);
    const at::Tensor& scale = return_scale.value();
    objective = ablation
                    ? AblationObjective(model, options, batch, draw, value / scale, scale, noise)
                    : at::addcmul(objective, value, config.return_weight() / scale, -1);
    const Branch losses(BranchStream::kLosses);
    losses.Uses(value);
    loss.mean_return = losses.Run([&] { return value.detach().mean(); });
  }
  if (IsRegularised(config) && config.divergence() == v1::LearningConfig::CROSS_ENTROPY) {
    const at::Tensor divergence =
        -static_cast<double>(batch.action.size(2)) / kCrossEntropyActions *
        PriorLogProb(draw.reference_mean, draw.reference_std, options.min_std, draw.action);
    const at::Tensor& scale = return_scale.value();
    const at::Tensor factor =
        (scale > config.cross_entropy_threshold()).to(scale.scalar_type()) / scale;
    objective = objective + options.kl_weight * factor * divergence;
    loss.kl = divergence.detach().mean();
  }
  loss.loss = TimeMeanOf(Weighted(objective, batch), 0, {1}, config.rho());
  return loss;
}

}  // namespace pompc
