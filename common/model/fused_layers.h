// Differentiable layers on fused kernels, of the CPU or, in a CUDA build, of a GPU (gpu_layers.h),
// with the operators of LibTorch elsewhere (other dtypes, widths that the GPU's kernels do not
// take). common/model/layers.h builds every network from these.
//
// Shapes: `weight` [out, in] takes x [..., in] to [..., out]. An ensemble's weight [Q, out, in]
//   takes x [rows, in] (shared by the heads) or [Q, rows, in] to [Q, rows, out]; its bias, gain and
//   shift are [Q, out].
// Thread-safety: as LibTorch's operators.
// Errors: shapes are the caller's invariant; a mismatch throws c10::Error.
#ifndef POMPC_COMMON_MODEL_FUSED_LAYERS_H_
#define POMPC_COMMON_MODEL_FUSED_LAYERS_H_

#include <cstdint>

#include "common/model/kernels.h"
#include "common/model/tensor.h"

namespace pompc {

// While one lives, layers and plans of this thread take LibTorch's operators everywhere: what tests
// and benchmarks compare the kernels with.
class OperatorsOnly {
 public:
  OperatorsOnly();
  ~OperatorsOnly();
  OperatorsOnly(const OperatorsOnly&) = delete;
  OperatorsOnly& operator=(const OperatorsOnly&) = delete;
};
// Whether our kernels run in this thread, where they apply: no OperatorsOnly lives.
bool KernelsInUse();

// x W^T + b.
at::Tensor Linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias);

struct NormedLinearOptions {
  Activation activation = Activation::kMish;
  int64_t simnorm_dim = 8;  // Divides `out`; for kSimNorm.
};

// act(LayerNorm((x W^T + b) * mask) * gain + shift). `mask` has the shape of the result and already
// holds 1 / (1 - p) where it keeps; undefined: no dropout.
at::Tensor NormedLinear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                        const at::Tensor& gain, const at::Tensor& shift, const at::Tensor& mask,
                        const NormedLinearOptions& options);

// The bins of a two-hot distribution: `size` of them, evenly over [min, max] in symlog space.
struct Bins {
  int64_t size = 101;
  double min = -10;
  double max = 10;
};

// Expectation of two-hot logits [..., K], back in reward units: [...].
at::Tensor TwoHotDecode(const at::Tensor& logits, const Bins& bins);

// Cross entropy of logits [..., K] against targets in reward units [...]: [...]. No gradient
// reaches the target.
at::Tensor TwoHotCrossEntropy(const at::Tensor& logits, const at::Tensor& target, const Bins& bins);

}  // namespace pompc

#endif  // POMPC_COMMON_MODEL_FUSED_LAYERS_H_
