// Multi-layer perceptrons of the world model, single and in ensembles, over the layer functions of
// fused_layers.h.
//
// Source: TD-MPC2 (arXiv:2310.16828) section 3; nicklashansen/tdmpc2@e9f5932 common/layers.py.
// Shapes: x [.., in]; an ensemble's layers are stacked, weight [Q, out, in]. Differentiable.
// Thread-safety: pure functions.
#ifndef POMPC_COMMON_MODEL_LAYERS_H_
#define POMPC_COMMON_MODEL_LAYERS_H_

#include <vector>

#include "common/model/fused_layers.h"
#include "common/model/tensor.h"

namespace pompc {

struct Layer {
  at::Tensor weight;  // [out, in], or [Q, out, in].
  at::Tensor bias;    // [out], or [Q, out].
  at::Tensor gain;    // LayerNorm's, shaped like bias; undefined in a plain (last) layer.
  at::Tensor shift;   // Likewise.
};

using Mlp = std::vector<Layer>;

// Hidden layers act(LayerNorm(W x + b)) with Mish; the last one likewise with `last` if it has a
// gain, else plain. simnorm_dim: group size of SimNorm. x: [.., in] -> [.., out].
at::Tensor MlpForward(const at::Tensor& x, const Mlp& mlp, const NormedLinearOptions& last = {});

// All heads of an ensemble, or two of them. x: [M, in], shared by the heads -> [Q, M, out]. heads:
// int64 [2] or undefined for all; indices on the CPU select views of the weights, indices on a
// device are gathered there and never read by the host. mask: dropout after the first layer's
// product, [Q, M, hidden] of the heads used, or undefined.
at::Tensor EnsembleForward(const at::Tensor& x, const Mlp& mlp, const at::Tensor& heads,
                           const at::Tensor& mask);

}  // namespace pompc

#endif  // POMPC_COMMON_MODEL_LAYERS_H_
