#include "learner/core/updater.h"

#include <c10/core/DeviceGuard.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <cmath>
#include <exception>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/status_macros.h"
#include "common/model/branch.h"
#include "common/model/device.h"
#include "common/model/gpu_layers.h"
#include "learner/core/rank_noise.h"

namespace pompc {
namespace {

// Dual ascent: log lambda moves by at most this much an update, within these bounds of lambda.
constexpr double kDualRate = 1e-3;
constexpr double kMinKlWeight = 1e-4;
constexpr double kMaxKlWeight = 1e4;

absl::Status CheckBatch(const Batch& batch, const ModelSpec& spec) {
  const int64_t steps = batch.action.dim() == 3 ? batch.action.size(0) : 0;
  const int64_t windows = steps > 0 ? batch.action.size(1) : 0;
  const std::vector<int64_t> scalars = {steps, windows};
  const std::vector<int64_t> actions = {steps, windows, spec.action_dim};
  const std::vector<int64_t> obs = {steps + 1, windows, spec.obs_dim};
  if (steps > 0 && batch.action.sizes() == actions && batch.obs.sizes() == obs &&
      batch.reward.sizes() == scalars && batch.terminated.sizes() == scalars &&
      batch.prior_mean.sizes() == actions && batch.prior_std.sizes() == actions &&
      (!batch.weights.defined() || batch.weights.sizes() == at::IntArrayRef{windows})) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError("batch: shapes do not fit each other or the model");
}

// The last range is what the policy's step needs first: Q heads alone, or V heads and the model.
std::vector<AdamRange> ModelRanges(const ParameterLayout& layout, const v1::RunConfig& config) {
  const v1::LearningConfig& learning = config.learning();
  const ParameterRange encoder = layout.range(ParameterGroup::kEncoder);
  const ParameterRange value = layout.range(ParameterGroup::kValue);
  const double rate = learning.learning_rate(), epsilon = learning.adam_epsilon();
  std::vector<AdamRange> ranges = {
      {encoder, rate * learning.encoder_learning_rate_scale(), epsilon}};
  const bool split = config.model().value_kind() == v1::ModelConfig::Q;
  if (split) ranges.push_back({{encoder.end, value.begin}, rate, epsilon});
  ranges.push_back({{split ? value.begin : encoder.end, value.end}, rate, epsilon});
  return ranges;
}

std::vector<AdamRange> HeadRange(const ParameterLayout& layout, const v1::LearningConfig& config,
                                 ParameterGroup group) {
  return {{layout.range(group), config.learning_rate(), config.policy_adam_epsilon()}};
}

at::Tensor NormOf(const at::Tensor& gradient) {
  const GpuLayers* const gpu = GpuLayersOf(gradient);
  return gpu != nullptr ? gpu->Norm(gradient) : gradient.norm();
}

// Behind this, gradients that the last backward gave to branches are there.
void JoinGradients() {
  for (const BranchStream stream :
       {BranchStream::kProducts, BranchStream::kEnsembleProducts, BranchStream::kSums}) {
    Branch(stream).Join();
  }
}

}  // namespace

const char* StatName(Stat stat) {
  static constexpr const char* kNames[] = {"total_loss",          "consistency_loss",
                                           "reward_loss",         "value_loss",
                                           "termination_loss",    "model_gradient_norm",
                                           "policy_loss",         "policy_gradient_norm",
                                           "policy_return",       "policy_kl",
                                           "policy_entropy",      "policy_std",
                                           "return_scale",        "kl_scale",
                                           "kl_weight",           "prior_loss",
                                           "prior_gradient_norm", "value_target"};
  static_assert(std::size(kNames) == static_cast<size_t>(Stat::kCount));
  return kNames[static_cast<int>(stat)];
}

std::vector<const char*> StatNames() {
  std::vector<const char*> names;
  for (int i = 0; i < static_cast<int>(Stat::kCount); ++i) {
    names.push_back(StatName(static_cast<Stat>(i)));
  }
  return names;
}

std::array<double, static_cast<size_t>(Stat::kCount)> UpdateStats::Read() const {
  const at::Tensor host = values.to(at::kCPU, at::kDouble).contiguous();
  std::array<double, static_cast<size_t>(Stat::kCount)> result;
  std::copy_n(host.const_data_ptr<double>(), result.size(), result.begin());
  return result;
}

std::vector<double> UpdateStats::ReadModelError() const {
  const at::Tensor host = model_error.to(at::kCPU, at::kDouble).contiguous();
  return {host.const_data_ptr<double>(), host.const_data_ptr<double>() + host.numel()};
}

absl::StatusOr<std::unique_ptr<Updater>> Updater::Create(const v1::RunConfig& config,
                                                         const UpdaterOptions& options) {
  const ModelSpec spec = ModelSpec::FromConfig(config, options.obs_dim, options.action_dim);
  POMPC_ASSIGN_OR_RETURN(std::shared_ptr<Parameters> parameters,
                         Parameters::Create(spec, ParameterUse::kTraining, options.tensor));
  parameters->Initialise(options.seed);
  const auto model = std::make_shared<const WorldModel>(parameters, WorldModel::Gradients::kNone);
  if (options.tensor.device().is_cuda()) {
    SetFloat32Products(config.learner().matmul_precision());
  } else {
    KeepFreedMemory();
  }
  MppiOptions planning = MppiOptions::FromConfig(config, options.episode_decisions);
  planning.precision = config.actor().matmul_precision();  // Reanalyze plans as the actors do.
  POMPC_ASSIGN_OR_RETURN(std::unique_ptr<MppiPlanner> planner,
                         MppiPlanner::Create(planning, model));
  if (options.collective != nullptr && options.tensor.device().is_cuda()) {
    // The first plan is recorded, which changes settings of the whole process: not beside others.
    const int64_t plans = config.learning().window() * config.learning().reanalyze_windows();
    GeneratorNoise noise(0, options.tensor);
    if (plans > 0) {
      POMPC_RETURN_IF_ERROR(planner
                                ->Plan({.obs = at::zeros({plans, options.obs_dim}, options.tensor),
                                        .mode = PlanMode::kReanalyze},
                                       noise, nullptr)
                                .status());
    }
  }
  return std::unique_ptr<Updater>(
      new Updater(config, options, std::move(parameters), model, std::move(planner)));
}

Updater::Updater(const v1::RunConfig& config, const UpdaterOptions& options,
                 std::shared_ptr<Parameters> parameters, std::shared_ptr<const WorldModel> model,
                 std::unique_ptr<MppiPlanner> planner)
    : config_(config),
      clock_(options.clock),
      collective_(options.collective),
      parameters_(std::move(parameters)),
      model_(std::move(model)),
      tracked_(parameters_, WorldModel::Gradients::kTracked),
      planner_(std::move(planner)),
      model_adam_(ModelRanges(parameters_->layout(), config_), parameters_->flat().options()),
      policy_adam_(HeadRange(parameters_->layout(), config_.learning(), ParameterGroup::kPolicy),
                   parameters_->flat().options()),
      prior_adam_(HeadRange(parameters_->layout(), config_.learning(), ParameterGroup::kPrior),
                  parameters_->flat().options()),
      return_scale_(config_.learning().scale_rate(), parameters_->flat().options(), collective_),
      kl_scale_(config_.learning().scale_rate(), parameters_->flat().options(), collective_) {
  const double initial = std::clamp(config_.learning().kl_weight(), kMinKlWeight, kMaxKlWeight);
  log_kl_weight_ = at::full({}, std::log(initial), parameters_->flat().options());
  kl_weight_ = at::zeros({}, parameters_->flat().options());
  stale_policy_norm_ = at::zeros({}, parameters_->flat().options());
  zero_ = at::zeros({}, parameters_->flat().options());
  one_ = at::ones({}, parameters_->flat().options());
  for (const double weight :
       {config_.learning().consistency_weight(), config_.learning().reward_weight(),
        config_.learning().value_weight(), config_.learning().termination_weight()}) {
    loss_weights_.push_back(at::full({}, weight, parameters_->flat().options()));
  }
  for (std::unique_ptr<UpdateGraph>& graph : graphs_) {
    graph = UpdateGraph::Create(parameters_->flat().device(), options.record);
  }
}

absl::StatusOr<UpdateResult> Updater::Update(const UpdateRequest& request, Batch& batch,
                                             Noise& noise) {
  POMPC_RETURN_IF_ERROR(CheckBatch(batch, parameters_->spec()));
  try {
    // LibTorch's operators find the device of their tensors; kernels of our own, NCCL and recording
    // go to the stream of the current device.
    const c10::DeviceGuard current(parameters_->flat().device());
    const at::AutoGradMode with_gradients(true);
    return UpdateOrThrow(request, batch, noise);
  } catch (const std::exception& e) {
    return absl::InternalError(absl::StrCat("update failed: ", e.what()));
  }
}

absl::StatusOr<UpdateResult> Updater::UpdateOrThrow(const UpdateRequest& request, Batch& batch,
                                                    Noise& noise) {
  UpdateResult result;
  const bool full = request.kind == UpdateKind::kFull;
  if (full && ReanalyzeDue()) {
    if (request.reanalyzed.has_value()) {
      result.reanalyzed = request.reanalyzed;
    } else {
      const absl::Time start = clock_->Now();
      POMPC_ASSIGN_OR_RETURN(result.reanalyzed,
                             Reanalyze(batch, config_.learning().reanalyze_windows(), noise));
      result.reanalyze_duration = clock_->Now() - start;
    }
    UsePrior(*result.reanalyzed, batch);
  }
  if (full) SetKlWeight(request.env_steps);
  std::optional<RankNoise> of_rank;
  if (collective_ != nullptr) {
    of_rank.emplace(&noise, collective_->rank(), collective_->size(), batch.action.size(1));
  }
  Noise& draws = of_rank.has_value() ? *of_rank : noise;
  UpdateGraph* const graph = graphs_[static_cast<size_t>(request.kind)].get();
  at::Tensor computed;
  if (graph != nullptr) {
    computed = graph->Run(batch, draws, [this, kind = request.kind](const Batch& b, Noise& n) {
      return Compute(kind, b, n);
    });
    // What a graph writes, nobody else counts as a write.
    parameters_->flat().unsafeGetTensorImpl()->bump_version();
  } else {
    computed = Compute(request.kind, batch, draws);
  }
  ++updates_;
  if (full) ++full_updates_;
  constexpr auto kStats = static_cast<int64_t>(Stat::kCount);
  const int64_t steps = batch.action.size(0);
  if (request.want_stats) {
    // Means over windows, or the same on all ranks.
    const at::Tensor stats = computed.narrow(0, 0, kStats + steps).clone();
    Average(stats);
    result.stats = UpdateStats{stats.narrow(0, 0, kStats), stats.narrow(0, kStats, steps)};
  }
  if (batch.weights.defined()) {
    const int64_t before = kStats + steps;
    const at::Tensor errors = computed.narrow(0, before, computed.numel() - before);
    result.td_error = collective_ != nullptr ? collective_->Gather(errors) : errors.clone();
  }
  return result;
}

void Updater::UsePrior(const ReanalyzedPrior& prior, Batch& batch) const {
  const int64_t windows = batch.action.size(1);
  const int64_t first = collective_ != nullptr ? collective_->rank() * windows : 0;
  const int64_t count = std::clamp<int64_t>(prior.mean.size(1) - first, 0, windows);
  if (count == 0) return;
  batch.prior_mean.narrow(1, 0, count).copy_(prior.mean.narrow(1, first, count));
  batch.prior_std.narrow(1, 0, count).copy_(prior.std.narrow(1, first, count));
}

void Updater::Average(const at::Tensor& t) const {
  if (collective_ != nullptr) collective_->Mean(t);
}

at::Tensor Updater::Compute(UpdateKind kind, const Batch& batch, Noise& noise) {
  report_ = {};
  Branch(BranchStream::kSums).Run([&] { parameters_->grad().zero_(); });
  const ModelLoss model = LossOfModel(batch, noise);
  JoinGradients();
  PolicyDraw draw;
  const PolicyLossOptions options = {config_.learning(), planner_->options().discount,
                                     config_.planner().min_std(), kl_weight_};
  const Branch policy(BranchStream::kPolicy), targets(BranchStream::kTarget);
  if (kind == UpdateKind::kFull) {
    draw = policy.Run([&] {
      if (parameters_->spec().intermediate_prior) StepPrior(batch, model.latents);
      return DrawPolicy(tracked_, *model_, options, batch, model.latents, kl_scale_, noise);
    });
  }
  const at::Tensor norm = StepModel(model);
  PolicyLoss policy_loss;
  if (kind == UpdateKind::kFull) {
    policy.Join();
    policy_loss = ComputePolicyLoss(*model_, options, batch, draw, return_scale_, noise);
  }
  // Memory is what this is short of: beside the policy's backward, which is not.
  targets.Run([&] { FinishModel(norm); });
  if (kind == UpdateKind::kFull) StepPolicy(policy_loss);
  Branch(BranchStream::kLosses).Join();
  const at::NoGradGuard no_grad;
  std::vector<at::Tensor> values;
  for (const at::Tensor& stat : report_) values.push_back(stat.defined() ? stat : zero_);
  const at::Tensor stats = at::cat({at::stack(values), model.model_error});
  return model.td_error.defined() ? at::cat({stats, model.td_error}) : stats;
}

bool Updater::Reanalyzes() const {
  const v1::LearningConfig& learning = config_.learning();
  const bool used = IsRegularised(learning) || parameters_->spec().intermediate_prior;
  return used && learning.prior_source() != v1::LearningConfig::REPLAY &&
         learning.reanalyze_windows() > 0;
}

absl::StatusOr<ReanalyzedPrior> Updater::Reanalyze(const Batch& batch, int64_t num_windows,
                                                   Noise& noise) const {
  const int64_t steps = batch.action.size(0), action_dim = batch.action.size(2);
  at::Tensor obs = batch.obs.narrow(0, 0, steps);
  if (collective_ != nullptr) obs = collective_->Gather(obs.transpose(0, 1)).transpose(0, 1);
  const int64_t windows = std::min(num_windows, obs.size(1));
  const at::Tensor planned = obs.narrow(1, 0, windows).flatten(0, 1);
  POMPC_ASSIGN_OR_RETURN(const PlanResult plan,
                         planner_->Plan({planned, {}, PlanMode::kReanalyze}, noise, nullptr));
  const std::vector<int64_t> shape = {steps, windows, action_dim};
  return ReanalyzedPrior{plan.prior_mean.reshape(shape), plan.prior_std.reshape(shape),
                         plan.num_nonfinite};
}

ModelLoss Updater::LossOfModel(const Batch& batch, Noise& noise) {
  const v1::LearningConfig& learning = config_.learning();
  const Branch targets(BranchStream::kTarget);
  const at::Tensor encoded_next =
      targets.Run([&] { return model_->Encode(batch.obs.narrow(0, 1, batch.action.size(0))); });
  const at::Tensor first = tracked_.Encode(batch.obs[0]);
  const at::Tensor target = targets.Run([&] {
    const at::Tensor encoded = at::cat({first.detach().unsqueeze(0), encoded_next});
    const at::Tensor values =
        ValueTarget(*model_, learning, planner_->options().discount, batch, encoded, noise);
    Report(Stat::kValueTarget, values.mean());
    return values;
  });
  return ComputeModelLoss(tracked_, learning, batch, first, encoded_next, target, noise);
}

at::Tensor Updater::StepModel(const ModelLoss& loss) {
  const v1::LearningConfig& learning = config_.learning();
  const at::Tensor grad = parameters_->layout().model_range().Of(parameters_->grad());
  // The gradient of the weighted sum, without the kernels that would make it.
  std::vector<at::Tensor> losses = {loss.consistency, loss.reward, loss.value};
  if (loss.termination.defined()) losses.push_back(loss.termination);
  torch::autograd::backward(losses, {loss_weights_.begin(), loss_weights_.begin() + losses.size()});
  JoinGradients();
  Average(grad);
  at::Tensor norm = NormOf(grad);
  if (learning.clip_with_stale_policy_gradient()) norm = at::hypot(norm, stale_policy_norm_);
  model_adam_.Step(parameters_->flat(), parameters_->grad(), norm, learning.gradient_clip_norm());

  Report(Stat::kTotalLoss, Branch(BranchStream::kLosses).Run([&] {
    const at::NoGradGuard no_grad;
    at::Tensor total = losses[0] * loss_weights_[0];
    for (size_t i = 1; i < losses.size(); ++i) total = total + losses[i] * loss_weights_[i];
    return total;
  }));
  Report(Stat::kConsistencyLoss, loss.consistency);
  Report(Stat::kRewardLoss, loss.reward);
  Report(Stat::kValueLoss, loss.value);
  if (loss.termination.defined()) Report(Stat::kTerminationLoss, loss.termination);
  Report(Stat::kModelGradientNorm, norm);
  return norm;
}

void Updater::FinishModel(const at::Tensor& norm) {
  const at::NoGradGuard no_grad;
  model_adam_.StepRest(parameters_->flat(), parameters_->grad(), norm,
                       config_.learning().gradient_clip_norm());
  const ParameterRange value = parameters_->layout().range(ParameterGroup::kValue);
  parameters_->target().lerp_(value.Of(parameters_->flat()), config_.learning().target_rate());
}

void Updater::StepPrior(const Batch& batch, const at::Tensor& latents) {
  const v1::LearningConfig& learning = config_.learning();
  const at::Tensor grad =
      parameters_->layout().range(ParameterGroup::kPrior).Of(parameters_->grad());
  const at::Tensor loss =
      ComputePriorLoss(tracked_, learning, batch, latents.narrow(0, 0, batch.action.size(0)));
  loss.backward(one_);
  JoinGradients();
  Average(grad);
  const at::Tensor norm = NormOf(grad);
  prior_adam_.Step(parameters_->flat(), parameters_->grad(), norm, learning.gradient_clip_norm());
  Report(Stat::kPriorLoss, loss);
  Report(Stat::kPriorGradientNorm, norm);
}

void Updater::StepPolicy(const PolicyLoss& loss) {
  const v1::LearningConfig& learning = config_.learning();
  const at::Tensor grad =
      parameters_->layout().range(ParameterGroup::kPolicy).Of(parameters_->grad());
  loss.loss.backward(one_);
  JoinGradients();
  Average(grad);
  const at::Tensor norm = NormOf(grad);
  policy_adam_.Step(parameters_->flat(), parameters_->grad(), norm, learning.gradient_clip_norm());
  if (learning.clip_with_stale_policy_gradient()) stale_policy_norm_.copy_(NormOf(grad));
  Report(Stat::kKlWeight, kl_weight_.clone());
  if (learning.has_target_kl()) {
    Average(loss.kl);
    const at::Tensor excess = (loss.kl / learning.target_kl() - 1).clamp(-1, 1);
    log_kl_weight_.add_(excess, kDualRate).clamp_(std::log(kMinKlWeight), std::log(kMaxKlWeight));
  }
  Report(Stat::kPolicyLoss, loss.loss);
  Report(Stat::kPolicyGradientNorm, norm);
  if (loss.mean_return.defined()) Report(Stat::kPolicyReturn, loss.mean_return);
  if (loss.kl.defined()) Report(Stat::kPolicyKl, loss.kl);
  Report(Stat::kPolicyEntropy, loss.entropy);
  Report(Stat::kPolicyStd, loss.std);
  Report(Stat::kReturnScale, return_scale_.value());
  Report(Stat::kKlScale, kl_scale_.value());
}

void Updater::SetKlWeight(int64_t env_steps) {
  const v1::LearningConfig& learning = config_.learning();
  if (learning.has_target_kl()) {
    kl_weight_.copy_(log_kl_weight_.exp());
    return;
  }
  double weight = learning.kl_weight();
  if (learning.has_kl_weight_final()) {
    const double progress = std::clamp(
        static_cast<double>(env_steps) / static_cast<double>(learning.kl_weight_steps()), 0.0, 1.0);
    weight = std::lerp(weight, learning.kl_weight_final(), progress);
  }
  // Mostly it stays, and to write it costs a launch.
  if (filled_kl_weight_ != weight) kl_weight_.fill_(weight);
  filled_kl_weight_ = weight;
}

void Updater::Report(Stat stat, const at::Tensor& value) {
  report_[static_cast<size_t>(stat)] = value.detach();
}

std::map<std::string, at::Tensor> Updater::State() const {
  const ParameterLayout& layout = parameters_->layout();
  std::map<std::string, at::Tensor> state = {
      {"adam.model.first_moment", model_adam_.first_moment},
      {"adam.model.second_moment", model_adam_.second_moment},
      {"adam.model.step", model_adam_.step},
      {"adam.policy.first_moment", policy_adam_.first_moment},
      {"adam.policy.second_moment", policy_adam_.second_moment},
      {"adam.policy.step", policy_adam_.step},
      {"adam.prior.first_moment", prior_adam_.first_moment},
      {"adam.prior.second_moment", prior_adam_.second_moment},
      {"adam.prior.step", prior_adam_.step},
      {"return_scale", return_scale_.value()},
      {"kl_scale", kl_scale_.value()},
      {"log_kl_weight", log_kl_weight_},
      {"stale_policy_norm", stale_policy_norm_},
  };
  for (const NamedParameter& p : layout.parameters()) {
    state[p.name] = parameters_->View(p.name);
    if (p.group == ParameterGroup::kValue) {
      state["target_" + p.name] = parameters_->TargetView(p.name);
    }
  }
  return state;
}

Checkpoint Updater::Save() const {
  Checkpoint checkpoint;
  for (const auto& [name, tensor] : State()) checkpoint.tensors[name] = tensor.clone();
  checkpoint.tensors["updates"] = at::scalar_tensor(updates_, at::kLong);
  checkpoint.tensors["full_updates"] = at::scalar_tensor(full_updates_, at::kLong);
  return checkpoint;
}

absl::Status Updater::Restore(const Checkpoint& checkpoint) {
  std::map<std::string, at::Tensor> state = State();
  at::Tensor updates = at::zeros({}, at::kLong), full_updates = at::zeros({}, at::kLong);
  state["updates"] = updates;
  state["full_updates"] = full_updates;
  for (const auto& [name, tensor] : state) {
    const auto saved = checkpoint.tensors.find(name);
    if (saved == checkpoint.tensors.end()) {
      return absl::InvalidArgumentError(absl::StrCat("checkpoint has no tensor ", name));
    }
    if (saved->second.sizes() != tensor.sizes()) {
      return absl::InvalidArgumentError(
          absl::StrCat("checkpoint was made with other sizes: ", name));
    }
  }
  for (auto& [name, tensor] : state) tensor.copy_(checkpoint.tensors.at(name));
  updates_ = updates.item<int64_t>();
  full_updates_ = full_updates.item<int64_t>();
  return absl::OkStatus();
}

}  // namespace pompc
