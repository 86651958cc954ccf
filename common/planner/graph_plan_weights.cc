#include "common/planner/graph_plan_weights.h"

#include "absl/strings/str_cat.h"

namespace pompc {

GraphPlanner::Weights::Weights(const WorldModel& model, at::ScalarType type)
    : parameters_(model.parameters()) {
  const ModelSpec& spec = parameters_->spec();
  const int64_t latent = spec.config.latent_dim(), joined = Padded(latent + spec.action_dim);
  const at::TensorOptions options = parameters_->flat().options();
  for (int i = 0; parameters_->layout().Contains(absl::StrCat("encoder.", i, ".weight")); ++i) {
    encoder.push_back(Views("encoder", i));
  }
  for (int i = 0; i < kLayers; ++i) {
    dynamics[i] = Pack("dynamics", i, joined, options.dtype(type));
    reward[i] = Pack("reward", i, joined, options.dtype(type));
    policy[i] = Pack("policy", i, latent, options.dtype(type));
    policy_at_observation[i] = Views("policy", i);
  }
  dynamics_at_observation = Views("dynamics", 0);
  reward_at_observation = Views("reward", 0);
  PackHeads(model.values_take_actions() ? joined : latent, options, type);
}

void GraphPlanner::Weights::Refresh() {
  if (version_ == parameters_->version()) return;
  for (auto& [to, from] : copies_) to.copy_(from);
  version_ = parameters_->version();
}

GraphPlanner::Weights::Network GraphPlanner::Weights::HeadLayers(const at::Tensor& weights,
                                                                 const at::Tensor& vectors) const {
  Network layers;
  for (int i = 0; i < kLayers; ++i) {
    const HeadSlot& slot = slots_[i];
    const auto vector = [&](int64_t offset) { return vectors.narrow(1, offset, slot.out); };
    layers[i].weight =
        weights.narrow(1, slot.weight, slot.out * slot.in).unflatten(1, {slot.out, slot.in});
    layers[i].bias = vector(slot.bias);
    if (i + 1 < kLayers) {
      layers[i].gain = vector(slot.bias + slot.out);
      layers[i].shift = vector(slot.bias + 2 * slot.out);
    }
  }
  return layers;
}

Layer GraphPlanner::Weights::Views(const std::string& network, int i) const {
  const std::string prefix = absl::StrCat(network, ".", i);
  Layer layer = {
      parameters_->View(prefix + ".weight"), parameters_->View(prefix + ".bias"), {}, {}};
  if (parameters_->layout().Contains(prefix + ".ln.weight")) {
    layer.gain = parameters_->View(prefix + ".ln.weight");
    layer.shift = parameters_->View(prefix + ".ln.bias");
  }
  return layer;
}

Layer GraphPlanner::Weights::Pack(const std::string& network, int i, int64_t first_in,
                                  const at::TensorOptions& options) {
  Layer layer = Views(network, i);
  const at::Tensor from = layer.weight;
  layer.weight = at::zeros({Padded(from.size(0)), i == 0 ? first_in : from.size(1)}, options);
  copies_.emplace_back(layer.weight.narrow(0, 0, from.size(0)).narrow(1, 0, from.size(1)), from);
  return layer;
}

void GraphPlanner::Weights::PackHeads(int64_t first_in, const at::TensorOptions& options,
                                      at::ScalarType type) {
  int64_t heads = 0, weight_size = 0, vector_size = 0;
  for (int i = 0; i < kLayers; ++i) {
    const Layer from = Views("value", i);
    heads = from.weight.size(0);
    const int64_t out = Padded(from.weight.size(1)), in = i == 0 ? first_in : from.weight.size(2);
    slots_[i] = {out, in, weight_size, vector_size};
    weight_size += out * in;
    vector_size += (from.gain.defined() ? 3 : 1) * out;
  }
  head_weights = at::zeros({heads, weight_size}, options.dtype(type));
  head_vectors = at::zeros({heads, vector_size}, options);
  const Network to = HeadLayers(head_weights, head_vectors);
  for (int i = 0; i < kLayers; ++i) {
    const Layer from = Views("value", i);
    const int64_t out = from.weight.size(1), in = from.weight.size(2);
    copies_.emplace_back(to[i].weight.narrow(1, 0, out).narrow(2, 0, in), from.weight);
    copies_.emplace_back(to[i].bias.narrow(1, 0, out), from.bias);
    if (!from.gain.defined()) continue;
    copies_.emplace_back(to[i].gain.narrow(1, 0, out), from.gain);
    copies_.emplace_back(to[i].shift.narrow(1, 0, out), from.shift);
  }
}

}  // namespace pompc
