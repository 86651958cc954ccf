#include "common/planner/mppi_planner.h"

#include <c10/core/DeviceGuard.h>

#include <cmath>
#include <exception>
#include <limits>
#include <optional>
#include <sstream>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/planner/packed_plan.h"
#ifdef POMPC_CUDA
#include "common/planner/graph_plan.h"
#endif

namespace pompc {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr int kLargeAction = 20;  // Dimensions from which on an action space counts as large.

absl::Status CheckShape(const char* name, const at::Tensor& t, at::IntArrayRef shape) {
  if (t.sizes() == shape) return absl::OkStatus();
  std::ostringstream text;
  text << name << " has shape " << t.sizes() << ", not " << shape;
  return absl::InvalidArgumentError(text.str());
}

// Plans of the last decision, moved on by one step. -> [B, H, A].
at::Tensor InitialMean(const PlanRequest& request, const PlannerState* state, at::IntArrayRef shape,
                       const at::TensorOptions& options) {
  at::Tensor mean = at::zeros(shape, options);
  const bool warm =
      state != nullptr && state->mean.defined() && request.mode != PlanMode::kReanalyze;
  if (!warm) return mean;
  const int64_t horizon = shape[1];
  mean.narrow(1, 0, horizon - 1).copy_(state->mean.narrow(1, 1, horizon - 1));
  if (request.reset.defined()) {
    mean.masked_fill_(request.reset.to(options.device()).view({-1, 1, 1}), 0);
  }
  return mean;
}

}  // namespace

double RunDiscount(const v1::LearningConfig& config, int64_t episode_decisions) {
  return Discount(static_cast<double>(episode_decisions),
                  {config.discount_divisor(), config.discount_min(), config.discount_max()});
}

MppiOptions MppiOptions::FromConfig(const v1::RunConfig& config, int64_t episode_decisions) {
  const v1::LearningConfig& learning = config.learning();
  return {config.planner(),
          RunDiscount(learning, episode_decisions),
          {learning.reanalyze_log_std_min(), learning.reanalyze_log_std_max()},
          learning.dropout_everywhere() ? config.model().dropout() : 0};
}

absl::Status MppiOptions::Validate() const {
  const auto reject = [](const auto&... parts) {
    return absl::InvalidArgumentError(absl::StrCat("planner.", parts...));
  };
  if (config.horizon() < 1) return reject("horizon must be >= 1");
  if (config.iterations() < 1) return reject("iterations must be >= 1");
  if (config.num_elites() < 1 || config.num_elites() > config.num_samples()) {
    return reject("num_elites=", config.num_elites(), " is outside [1, num_samples]");
  }
  if (config.num_policy_samples() < 0 || config.num_policy_samples() > config.num_samples()) {
    return reject("num_policy_samples=", config.num_policy_samples(),
                  " is outside [0, num_samples]");
  }
  if (!(config.min_std() > 0 && config.min_std() <= config.max_std())) {
    return reject("min_std=", config.min_std(), " is outside (0, max_std]");
  }
  if (!(discount > 0 && discount <= 1)) return reject("discount=", discount, " is outside (0, 1]");
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<MppiPlanner>> MppiPlanner::Create(
    const MppiOptions& options, std::shared_ptr<const WorldModel> model) {
  POMPC_RETURN_IF_ERROR(options.Validate());
  if (options.config.proposal_mix() > 0 && !model->spec().intermediate_prior) {
    return absl::InvalidArgumentError("planner.proposal_mix needs an intermediate prior");
  }
  return std::unique_ptr<MppiPlanner>(new MppiPlanner(options, std::move(model)));
}

MppiPlanner::MppiPlanner(const MppiOptions& options, std::shared_ptr<const WorldModel> model)
    : options_(options), model_(std::move(model)) {
  const bool large = model_->spec().action_dim >= kLargeAction;
  iterations_ =
      options_.config.iterations() + (large ? options_.config.large_action_extra_iterations() : 0);
#ifdef POMPC_CUDA
  if (GraphPlanner::Supports(options_, *model_)) {
    graphs_ = std::make_shared<GraphPlanner>(options_, iterations_, model_);
  }
#endif
}

absl::StatusOr<PlanResult> MppiPlanner::Plan(const PlanRequest& request, Noise& noise,
                                             PlannerState* state) const {
  const ModelSpec& spec = model_->spec();
  if (request.obs.dim() != 2) return absl::InvalidArgumentError("obs is not of shape [B, O]");
  const int64_t batch = request.obs.size(0);
  POMPC_RETURN_IF_ERROR(CheckShape("obs", request.obs, {batch, spec.obs_dim}));
  if (request.reset.defined()) POMPC_RETURN_IF_ERROR(CheckShape("reset", request.reset, {batch}));
  if (state != nullptr && state->mean.defined()) {
    POMPC_RETURN_IF_ERROR(CheckShape("the planner state", state->mean,
                                     {batch, options_.config.horizon(), spec.action_dim}));
  }
  const at::NoGradGuard no_grad;
  try {
#ifdef POMPC_CUDA
    if (graphs_ != nullptr && KernelsInUse() && !request.keep_candidates) {
      if (const std::optional<uint64_t> seed = noise.KernelSeed()) {
        return graphs_->Plan(request, *seed, state);
      }
    }
#endif
    return model_->CanPack() ? PlanOnKernels(request, noise, state)
                             : PlanOnOperators(request, noise, state);
  } catch (const std::exception& e) {
    return absl::InternalError(absl::StrCat("planning failed: ", e.what()));
  }
}

std::shared_ptr<const PackedModel> MppiPlanner::Packed() const {
  absl::MutexLock lock(&mu_);
  const uint32_t version = model_->parameters()->version();
  if (packed_ == nullptr || packed_version_ != version) {
    packed_ = nullptr;  // Its memory serves the next.
    const bool bfloat16 = options_.precision == v1::BF16 && HasBFloat16Products();
    packed_ = model_->Pack(bfloat16 ? Factors::kBFloat16 : Factors::kFloat32);
    packed_version_ = version;
  }
  return packed_;
}

absl::StatusOr<PlanResult> MppiPlanner::PlanOnKernels(const PlanRequest& request, Noise& noise,
                                                      PlannerState* state) const {
  const std::shared_ptr<const PackedModel> packed = Packed();
  PlannerState cold;
  if (state == nullptr || request.mode == PlanMode::kReanalyze) state = &cold;
  POMPC_RETURN_IF_ERROR(
      PlanPacked({*packed, model_->spec(), options_, iterations_, request, state->mean}, noise,
                 state->result, state->mean));
  return state->result;
}

absl::StatusOr<PlanResult> MppiPlanner::PlanOnOperators(const PlanRequest& request, Noise& noise,
                                                        PlannerState* state) const {
  const c10::DeviceGuard current(model_->parameters()->flat().device());  // For layers of our own.
  const v1::PlannerConfig& config = options_.config;
  const int64_t batch = request.obs.size(0), horizon = config.horizon(),
                samples = config.num_samples(), proposals = config.num_policy_samples(),
                action_dim = model_->spec().action_dim;
  const at::Tensor z = model_->Encode(request.obs);
  at::Tensor actions = at::empty({batch, horizon, samples, action_dim}, z.options());
  if (proposals > 0) RollOutPolicy(z, request.mode, noise, actions);

  at::Tensor mean = InitialMean(request, state, {batch, horizon, action_dim}, z.options());
  at::Tensor std = at::full_like(mean, config.max_std());
  at::Tensor num_nonfinite = at::zeros({}, z.options());
  at::Tensor sampled = actions.narrow(2, proposals, samples - proposals);
  Refit refit;
  PlanResult result;
  for (int i = 0; i < iterations_; ++i) {
    const at::Tensor eps = noise.Normal({batch, horizon, samples - proposals, action_dim});
    sampled.copy_(at::addcmul(mean.unsqueeze(2), std.unsqueeze(2), eps).clamp_(-1, 1));
    at::Tensor value =
        EstimateValue(*model_, z, actions, options_.discount, options_.dropout, noise);
    const at::Tensor rejected = at::isfinite(value).logical_not_();
    num_nonfinite += rejected.sum();
    value.masked_fill_(rejected, -kInfinity);
    refit = RefitToElites(value, actions, config);
    mean = refit.mean;
    std = refit.std;
    if (request.keep_candidates) result.candidate_value = value;
  }
  if (request.keep_candidates) result.candidates = actions.permute({0, 2, 1, 3}).contiguous();

  const at::Tensor index = noise.Index(refit.score).view({batch, 1});
  result.elite = refit.elite_actions.select(1, 0)
                     .gather(1, index.unsqueeze(-1).expand({batch, 1, action_dim}))
                     .squeeze(1);
  result.value = refit.elite_value.gather(1, index).squeeze(1);
  result.mean = mean.select(1, 0);
  result.prior_std = std.select(1, 0);
  result.prior_mean = config.prior_centre() == v1::PlannerConfig::MEAN ? result.mean : result.elite;
  switch (request.mode) {
    case PlanMode::kAct:
      result.action = at::addcmul(result.elite, result.prior_std, noise.Normal({batch, action_dim}))
                          .clamp_(-1, 1);
      break;
    case PlanMode::kEvaluate:
      result.action =
          config.evaluation_action() == v1::PlannerConfig::MEAN ? result.mean : result.elite;
      break;
    case PlanMode::kReanalyze:
      result.action = result.elite;
      break;
  }
  // Both counts in one transfer from the device.
  const at::Tensor all_rejected = at::isinf(refit.elite_value.select(1, 0)).sum();
  const at::Tensor counts = at::stack({num_nonfinite, all_rejected.to(z.scalar_type())}).cpu();
  result.num_nonfinite = static_cast<int64_t>(counts[0].item<double>());
  if (const auto hopeless = static_cast<int64_t>(counts[1].item<double>()); hopeless > 0) {
    return absl::FailedPreconditionError(
        absl::StrCat("no action sequence of ", hopeless, " observations has a finite value"));
  }
  if (state != nullptr && request.mode != PlanMode::kReanalyze) state->mean = mean;
  return result;
}

void MppiPlanner::RollOutPolicy(const at::Tensor& z, PlanMode mode, Noise& noise,
                                at::Tensor& actions) const {
  const WorldModel& model = *model_;
  const int64_t batch = z.size(0), horizon = actions.size(1),
                proposals = options_.config.num_policy_samples();
  const int64_t from_prior = std::llround(options_.config.proposal_mix() * proposals);
  const int64_t from_policy = proposals - from_prior;
  const v1::ModelConfig& config = model.spec().config;
  const LogStdRange range = mode == PlanMode::kReanalyze
                                ? options_.reanalyze_log_std
                                : LogStdRange{config.log_std_min(), config.log_std_max()};
  at::Tensor zt = z.unsqueeze(1).expand({batch, proposals, z.size(1)});
  for (int64_t t = 0; t < horizon; ++t) {
    const at::Tensor eps = noise.Normal({batch, proposals, actions.size(3)});
    at::Tensor action = actions.select(1, t).narrow(1, 0, proposals);
    if (from_policy > 0) {
      action.narrow(1, 0, from_policy)
          .copy_(model.Policy(zt.narrow(1, 0, from_policy), range)
                     .Sample(eps.narrow(1, 0, from_policy)));
    }
    if (from_prior > 0) {
      action.narrow(1, from_policy, from_prior)
          .copy_(model.Prior(zt.narrow(1, from_policy, from_prior))
                     .Sample(eps.narrow(1, from_policy, from_prior)));
    }
    if (t + 1 < horizon) zt = model.Next(model.Join(zt, action));
  }
}

at::Tensor EstimateValue(const WorldModel& model, const at::Tensor& z, const at::Tensor& actions,
                         double discount, double dropout, Noise& noise) {
  const int64_t batch = actions.size(0), horizon = actions.size(1), samples = actions.size(2);
  const bool terminates = model.spec().config.predict_termination();
  at::Tensor zt = z.unsqueeze(1).expand({batch, samples, z.size(1)});
  at::Tensor value = at::zeros({batch, samples}, z.options());
  // gamma^t, times 0 once the episode has ended.
  at::Tensor weight = at::ones_like(value);
  for (int64_t t = 0; t < horizon; ++t) {
    const at::Tensor za = model.Join(zt, actions.select(1, t));
    value.addcmul_(weight, model.Reward(za));
    zt = model.Next(za);
    weight.mul_(discount);
    if (terminates) weight.mul_(model.TerminationLogit(zt) <= 0);
  }
  at::Tensor input = zt;
  if (model.values_take_actions()) {
    const at::Tensor eps = noise.Normal({batch, samples, actions.size(3)});
    input = model.Join(zt, model.Policy(zt).Sample(eps));
  }
  const at::Tensor heads = noise.Heads(model.num_value_heads());
  at::Tensor mask;
  if (dropout > 0) mask = noise.DropoutMask(model.DropoutShape(input, 2), dropout);
  const at::Tensor logits = model.ValueLogits(input, WorldModel::Heads::kOnline, heads, mask);
  return value.addcmul_(weight, model.Decode(logits).mean(0));
}

Refit RefitToElites(const at::Tensor& value, const at::Tensor& actions,
                    const v1::PlannerConfig& config) {
  const int64_t batch = actions.size(0), horizon = actions.size(1), elites = config.num_elites();
  Refit refit;
  std::tie(refit.elite_value, refit.elite_index) = at::topk(value, elites);
  const at::Tensor index = refit.elite_index.view({batch, 1, elites, 1});
  // A rejected sequence weighs 0, and its actions may be NaN.
  refit.elite_actions = actions.gather(2, index.expand({batch, horizon, elites, actions.size(3)}))
                            .masked_fill_(at::isinf(refit.elite_value).view(index.sizes()), 0);
  const at::Tensor best = refit.elite_value.narrow(1, 0, 1);
  refit.score = at::exp(config.inverse_temperature() * (refit.elite_value - best));
  refit.score /= refit.score.sum(1, true);
  const at::Tensor weight = refit.score.view(index.sizes());
  const at::Tensor total = refit.score.sum(1).view({batch, 1, 1}) + 1e-9;
  refit.mean = (weight * refit.elite_actions).sum(2) / total;
  const at::Tensor deviation = refit.elite_actions - refit.mean.unsqueeze(2);
  refit.std = at::sqrt((weight * deviation.square()).sum(2) / total)
                  .clamp_(config.min_std(), config.max_std());
  return refit;
}

}  // namespace pompc
