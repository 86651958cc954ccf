#include "common/model/world_model.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/model/gpu_layers.h"

namespace pompc {
namespace {

// The layers of the network `name`, each tensor by way of `get`.
template <typename Get>
Mlp CollectLayers(const ParameterLayout& layout, const std::string& name, const Get& get) {
  Mlp mlp;
  for (int i = 0; layout.Contains(absl::StrCat(name, ".", i, ".weight")); ++i) {
    const std::string prefix = absl::StrCat(name, ".", i);
    Layer& layer = mlp.emplace_back();
    layer.weight = get(prefix + ".weight");
    layer.bias = get(prefix + ".bias");
    if (layout.Contains(prefix + ".ln.weight")) {
      layer.gain = get(prefix + ".ln.weight");
      layer.shift = get(prefix + ".ln.bias");
    }
  }
  return mlp;
}

// The layers of one network, or of one head of an ensemble (head >= 0).
PackedMlp PackLayers(const Mlp& mlp, int64_t head, Factors factors,
                     const NormedLinearOptions& last = {}, int64_t tail = 0) {
  const auto select = [&](const at::Tensor& t) {
    return head < 0 || !t.defined() ? t : t.select(0, head);
  };
  std::vector<PlainLayer> layers;
  for (const Layer& layer : mlp) {
    layers.push_back(
        {select(layer.weight), select(layer.bias), select(layer.gain), select(layer.shift)});
  }
  return PackedMlp(layers, last, factors, tail);
}

}  // namespace

at::Tensor PolicyDistribution::Sample(const at::Tensor& eps) const {
  const GpuLayers* const gpu = GpuLayersOf(log_std);
  if (gpu != nullptr && eps.sizes() == log_std.sizes()) {
    const bool squashed = form == v1::ModelConfig::SQUASHED;
    return gpu->Sample(squashed, squashed ? pre_tanh_mean : mean, log_std, eps);
  }
  const at::Tensor noise = eps * at::exp(log_std);
  if (form == v1::ModelConfig::SQUASHED) return at::tanh(pre_tanh_mean + noise);
  return (mean + noise).clamp(-1, 1);
}

WorldModel::WorldModel(std::shared_ptr<const Parameters> parameters, Gradients gradients)
    : parameters_(std::move(parameters)) {
  const v1::ModelConfig& config = spec().config;
  bins_ = {config.num_bins(), config.bin_min(), config.bin_max()};
  simnorm_ = {Activation::kSimNorm, config.simnorm_dim()};
  const auto collect = [&](const std::string& name) {
    return CollectLayers(parameters_->layout(), name, [&](const std::string& tensor) {
      return gradients == Gradients::kTracked ? parameters_->Leaf(tensor)
                                              : parameters_->View(tensor);
    });
  };
  encoder_ = collect("encoder");
  dynamics_ = collect("dynamics");
  reward_ = collect("reward");
  termination_ = collect("termination");
  value_ = collect("value");
  policy_ = collect("policy");
  prior_ = collect("prior");
  if (parameters_->target().defined()) {
    target_value_ = CollectLayers(parameters_->layout(), "value", [&](const std::string& name) {
      return parameters_->TargetView(name);
    });
  }
}

bool WorldModel::CanPack() const {
  const at::Tensor& flat = parameters_->flat();
  return flat.is_cpu() && flat.scalar_type() == at::kFloat && KernelsInUse();
}

std::shared_ptr<const PackedModel> WorldModel::Pack(Factors factors) const {
  POMPC_CHECK(CanPack()) << "the parameters are not float32 on the CPU";
  const int64_t action_dim = spec().action_dim;
  auto packed = std::make_shared<PackedModel>(
      PackedModel{PackLayers(encoder_, -1, Factors::kFloat32, simnorm_),
                  PackLayers(dynamics_, -1, factors, simnorm_, action_dim),
                  PackLayers(reward_, -1, factors, {}, action_dim),
                  PackLayers(policy_, -1, factors),
                  std::nullopt,
                  std::nullopt,
                  {}});
  if (!termination_.empty()) packed->termination = PackLayers(termination_, -1, factors);
  if (!prior_.empty()) packed->prior = PackLayers(prior_, -1, factors);
  for (int64_t head = 0; head < num_value_heads(); ++head) {
    packed->value.push_back(PackLayers(value_, head, factors));
  }
  for (const PackedMlp* mlp : {&packed->encoder, &packed->dynamics, &packed->reward,
                               &packed->policy, &packed->value.front()}) {
    packed->scratch_size = std::max(packed->scratch_size, mlp->scratch_size());
  }
  return packed;
}

at::Tensor WorldModel::Encode(const at::Tensor& obs) const {
  return MlpForward(obs, encoder_, simnorm_);
}

at::Tensor WorldModel::Join(const at::Tensor& z, const at::Tensor& a) const {
  if (const GpuLayers* gpu = GpuLayersOf(z)) return gpu->Join(z, a);
  return at::cat({z, a}, -1);
}

at::Tensor WorldModel::Next(const at::Tensor& za) const {
  return MlpForward(za, dynamics_, simnorm_);
}

at::Tensor WorldModel::RewardLogits(const at::Tensor& za) const { return MlpForward(za, reward_); }

at::Tensor WorldModel::Reward(const at::Tensor& za) const { return Decode(RewardLogits(za)); }

at::Tensor WorldModel::TerminationLogit(const at::Tensor& z) const {
  POMPC_CHECK(!termination_.empty()) << "the model predicts no termination";
  return MlpForward(z, termination_).squeeze(-1);
}

PolicyDistribution WorldModel::DistributionOf(const at::Tensor& output, LogStdRange range) const {
  const std::vector<at::Tensor> out = output.chunk(2, -1);
  if (const GpuLayers* gpu = GpuLayersOf(output)) {
    const auto [m, mean, log_std] = gpu->Policy(output, range);
    return {spec().config.policy_form(), m, mean, log_std, out[1]};
  }
  return {spec().config.policy_form(), out[0], at::tanh(out[0]), LogStd(out[1], range), out[1]};
}

PolicyDistribution WorldModel::Policy(const at::Tensor& z) const {
  return Policy(z, {spec().config.log_std_min(), spec().config.log_std_max()});
}

PolicyDistribution WorldModel::Policy(const at::Tensor& z, LogStdRange range) const {
  return DistributionOf(MlpForward(z, policy_), range);
}

PolicyDistribution WorldModel::Prior(const at::Tensor& z) const {
  POMPC_CHECK(!prior_.empty()) << "the model has no intermediate prior";
  return DistributionOf(MlpForward(z, prior_),
                        {spec().config.log_std_min(), spec().config.log_std_max()});
}

at::Tensor WorldModel::ValueLogits(const at::Tensor& input, Heads set, const at::Tensor& heads,
                                   const at::Tensor& mask) const {
  const Mlp& mlp = set == Heads::kTarget ? target_value_ : value_;
  POMPC_CHECK(!mlp.empty()) << "target value heads exist only in training";
  std::vector<int64_t> shape = input.sizes().vec();
  const at::Tensor logits = EnsembleForward(input.reshape({-1, shape.back()}), mlp, heads, mask);
  shape.back() = logits.size(-1);
  shape.insert(shape.begin(), logits.size(0));
  return logits.view(shape);
}

std::vector<int64_t> WorldModel::DropoutShape(const at::Tensor& input, int64_t num_heads) const {
  return {num_heads, input.numel() / input.size(-1), spec().config.mlp_dim()};
}

at::Tensor WorldModel::Decode(const at::Tensor& logits) const {
  return TwoHotDecode(logits, bins_);
}

}  // namespace pompc
