#include "common/model/layers.h"

#include <vector>

#include "common/model/gpu_layers.h"

namespace pompc {
namespace {

// Applies `select` to the tensors of every layer.
template <typename Select>
Mlp SelectLayers(const Mlp& mlp, const Select& select) {
  Mlp selected;
  selected.reserve(mlp.size());
  for (const Layer& layer : mlp) {
    Layer& out = selected.emplace_back();
    out.weight = select(layer.weight);
    out.bias = select(layer.bias);
    if (layer.gain.defined()) {
      out.gain = select(layer.gain);
      out.shift = select(layer.shift);
    }
  }
  return selected;
}

// Two heads, gathered on the device.
Mlp SelectHeads(const Mlp& mlp, const at::Tensor& heads) {
  const GpuLayers* const gpu = GpuLayersOf(mlp.front().weight);
  if (gpu == nullptr || mlp.front().weight.requires_grad()) {
    return SelectLayers(mlp, [&](const at::Tensor& t) { return t.index_select(0, heads); });
  }
  std::vector<at::Tensor> tensors;
  SelectLayers(mlp, [&](const at::Tensor& t) {
    tensors.push_back(t);
    return t;
  });
  tensors = gpu->SelectHeads(tensors, heads);
  auto next = tensors.begin();
  return SelectLayers(mlp, [&](const at::Tensor&) { return *next++; });
}

at::Tensor Forward(const at::Tensor& x, const Mlp& mlp, const NormedLinearOptions& last,
                   const at::Tensor& mask, bool logits) {
  at::Tensor y = x;
  for (size_t i = 0; i < mlp.size(); ++i) {
    const Layer& layer = mlp[i];
    if (!layer.gain.defined()) {
      y = logits ? TwoHotLogits(y, layer.weight, layer.bias) : Linear(y, layer.weight, layer.bias);
      continue;
    }
    y = NormedLinear(y, layer.weight, layer.bias, layer.gain, layer.shift,
                     i == 0 ? mask : at::Tensor(),
                     i + 1 == mlp.size() ? last : NormedLinearOptions{});
  }
  return y;
}

}  // namespace

at::Tensor MlpForward(const at::Tensor& x, const Mlp& mlp, const NormedLinearOptions& last) {
  return Forward(x, mlp, last, {}, /*logits=*/false);
}

at::Tensor EnsembleForward(const at::Tensor& x, const Mlp& mlp, const at::Tensor& heads,
                           const at::Tensor& mask) {
  if (!heads.defined()) return Forward(x, mlp, {}, mask, /*logits=*/true);
  if (!heads.is_cpu()) return Forward(x, SelectHeads(mlp, heads), {}, mask, /*logits=*/true);
  // Views of single heads: copying the weights of a pair costs more than one call for each.
  std::vector<at::Tensor> outputs;
  for (int64_t i = 0; i < heads.numel(); ++i) {
    const int64_t head = heads.const_data_ptr<int64_t>()[i];
    const Mlp selected = SelectLayers(mlp, [&](const at::Tensor& t) { return t.select(0, head); });
    outputs.push_back(Forward(x, selected, {}, mask.defined() ? mask[i] : mask, /*logits=*/true));
  }
  return at::stack(outputs);
}

}  // namespace pompc
