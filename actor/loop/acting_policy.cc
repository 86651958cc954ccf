#include "actor/loop/acting_policy.h"

#include <exception>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/model/device.h"
#include "common/model/parameters.h"
#include "common/model/world_model.h"

namespace pompc {

ActingPolicy::ActingPolicy(const v1::RunConfig& config, const v1::TaskSizes& sizes,
                           const ActingOptions& options)
    : options_(options),
      seed_(config.seed()),
      obs_dim_(sizes.observation_dim()),
      action_dim_(sizes.action_dim()),
      num_samples_(config.planner().num_samples()) {}

absl::StatusOr<std::unique_ptr<ActingPolicy>> ActingPolicy::Create(const v1::RunConfig& config,
                                                                   const v1::TaskSizes& sizes,
                                                                   const ActingOptions& options) {
  std::unique_ptr<ActingPolicy> policy(new ActingPolicy(config, sizes, options));
  POMPC_ASSIGN_OR_RETURN(const at::Device device, FindDevice("actor.device", options.device));
  MppiOptions planning = MppiOptions::FromConfig(config, sizes.episode_decisions());
  planning.precision = config.actor().matmul_precision();
  planning.leaves_room = config.share_gpus();
  try {
    policy->tensor_options_ = at::TensorOptions(at::kFloat).device(device);
    POMPC_ASSIGN_OR_RETURN(policy->parameters_,
                           Parameters::Create(ModelSpec::FromConfig(config, sizes.observation_dim(),
                                                                    sizes.action_dim()),
                                              ParameterUse::kActing, policy->tensor_options_));
    POMPC_ASSIGN_OR_RETURN(
        policy->planner_,
        MppiPlanner::Create(planning, std::make_shared<WorldModel>(policy->parameters_,
                                                                   WorldModel::Gradients::kNone)));
    policy->noise_ = std::make_unique<GeneratorNoise>(0, policy->tensor_options_);
  } catch (const std::exception& e) {
    return absl::InternalError(
        absl::StrCat("cannot plan on device \"", options.device, "\": ", e.what()));
  }
  return policy;
}

absl::Status ActingPolicy::Load(const v1::ParameterSnapshot& snapshot) {
  if (snapshot.version() == version_) return absl::OkStatus();
  if (snapshot.trained()) POMPC_RETURN_IF_ERROR(parameters_->LoadSnapshot(snapshot.data()));
  trained_ = snapshot.trained();
  version_ = snapshot.version();
  updates_ = snapshot.updates();
  return absl::OkStatus();
}

absl::StatusOr<Decision> ActingPolicy::Act(const at::Tensor& obs, const at::Tensor& reset,
                                           uint64_t step, uint32_t first) {
  if (obs.dim() != 2 || obs.size(1) != obs_dim_ || reset.dim() != 1 ||
      reset.size(0) != obs.size(0)) {
    return absl::InvalidArgumentError(
        absl::StrCat("observations have to be [E, ", obs_dim_, "] with one reset flag each"));
  }
  if (!trained_) return RandomDecision(obs.size(0), step, first);
  noise_->Seed(SeedFor(seed_, options_.planner_stream, options_.first_environment + first, step));
  PlannerState& state = states_[first];
  absl::StatusOr<PlanResult> plan;
  try {
    plan = planner_->Plan({.obs = obs.to(tensor_options_.device()),
                           .reset = reset,
                           .mode = options_.mode,
                           .keep_candidates = options_.keep_candidates},
                          *noise_, &state);
    if (absl::IsFailedPrecondition(plan.status())) {
      // What the episodes' plans were until now no longer matches what is executed.
      state = PlannerState();
      Decision decision = RandomDecision(obs.size(0), step, first);
      decision.plan_failed = true;
      decision.num_nonfinite = num_samples_;
      return decision;
    }
    if (!plan.ok()) return std::move(plan).status();
    Decision decision{.action = plan->action.cpu().contiguous(),
                      .prior_mean = plan->prior_mean.cpu().contiguous(),
                      .prior_std = plan->prior_std.cpu().contiguous(),
                      .planned = true,
                      .num_nonfinite = plan->num_nonfinite};
    if (options_.keep_candidates) {
      decision.candidates = plan->candidates.cpu();
      decision.candidate_value = plan->candidate_value.cpu();
    }
    return decision;
  } catch (const std::exception& e) {
    return absl::InternalError(absl::StrCat("planning failed: ", e.what()));
  }
}

Decision ActingPolicy::RandomDecision(int64_t environments, uint64_t step, uint32_t first) const {
  Decision decision{.action = at::empty({environments, action_dim_}, at::kFloat),
                    .prior_mean = at::zeros({environments, action_dim_}, at::kFloat),
                    .prior_std = at::ones({environments, action_dim_}, at::kFloat)};
  float* action = decision.action.data_ptr<float>();
  for (int64_t e = 0; e < environments; ++e) {
    const uint32_t environment = options_.first_environment + first + static_cast<uint32_t>(e);
    Rng rng(seed_, RngRole::kSeedAction, environment, step);
    for (int64_t a = 0; a < action_dim_; ++a) {
      // Rounding to float32 never leaves [-1, 1].
      *action++ = static_cast<float>(rng.Uniform(-1, 1));
    }
  }
  return decision;
}

}  // namespace pompc
