// The layers of fused_layers.h, what is between layers and losses, and the optimiser's step, for
// float32 on a GPU: products by cuBLAS, everything else by the kernels of gpu_kernels.h. Same
// shapes and numbers (to rounding), same errors.
//
// Gradients of parameters that are autograd leaves with a gradient buffer (Parameters::Leaf) are
// added there by the products themselves, without a copy of their own, in branches (branch.h).
// Inside BranchStreams::Run() such parameters are not written before their backward.
// Thread-safety: as LibTorch's operators; work goes to the current stream.
#ifndef POMPC_COMMON_MODEL_GPU_LAYERS_H_
#define POMPC_COMMON_MODEL_GPU_LAYERS_H_

#include <array>
#include <vector>

#include "common/model/fused_layers.h"
#include "common/model/math.h"
#include "common/model/tensor.h"

namespace pompc {

// track: whether the result carries gradients.
class GpuLayers {
 public:
  virtual ~GpuLayers() = default;
  // wide: columns of zeros follow the outputs until rows are aligned as products want them.
  virtual at::Tensor Linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                            bool wide, bool track) const = 0;
  // Whether NormedLinear() takes layers of this width.
  virtual bool Supports(int64_t out, const NormedLinearOptions& options) const = 0;
  virtual at::Tensor NormedLinear(const at::Tensor& x, const at::Tensor& weight,
                                  const at::Tensor& bias, const at::Tensor& gain,
                                  const at::Tensor& shift, const at::Tensor& mask,
                                  const NormedLinearOptions& options, bool track) const = 0;
  // z [.., L] and a [.., A] side by side, with columns of zeros behind them until rows are aligned
  // as products want them: what layers of L+A inputs take. -> [.., >= L+A].
  virtual at::Tensor Join(const at::Tensor& z, const at::Tensor& a) const = 0;
  virtual at::Tensor TwoHotDecode(const at::Tensor& logits, const Bins& bins, bool track) const = 0;
  virtual at::Tensor TwoHotCrossEntropy(const at::Tensor& logits, const at::Tensor& target,
                                        const Bins& bins, bool track) const = 0;

  // A Gaussian policy network's output [.., 2 A], (m, x), as m, tanh(m) and LogStd(x): [.., A]
  // each.
  virtual std::array<at::Tensor, 3> Policy(const at::Tensor& output, LogStdRange range) const = 0;
  // tanh(centre + eps exp(log_std)) when squashed, else clamp(centre + eps exp(log_std), -1, 1).
  // All of one shape; no gradient reaches eps.
  virtual at::Tensor Sample(bool squashed, const at::Tensor& centre, const at::Tensor& log_std,
                            const at::Tensor& eps) const = 0;
  // sum_A(-eps^2/2 - log_std), both [.., A] -> [..].
  virtual at::Tensor LogKernel(const at::Tensor& eps, const at::Tensor& log_std) const = 0;
  // SquashCorrection() of math.h.
  virtual at::Tensor SquashCorrection(const at::Tensor& action) const = 0;
  // GaussianKl() of math.h; all of one shape.
  virtual at::Tensor GaussianKl(const at::Tensor& p_mean, const at::Tensor& p_std,
                                const at::Tensor& q_mean, const at::Tensor& q_std) const = 0;
  // TimeMean() of the mean over all other dimensions of x; with y defined, of (x - y)^2. No
  // gradient reaches y. -> [].
  virtual at::Tensor TimeMeanOf(const at::Tensor& x, int64_t time_dim, double rho,
                                const at::Tensor& y) const = 0;
  // PercentileRange() of math.h for x [B], B <= gpu::kMaxPercentileSize. Without gradients.
  virtual at::Tensor PercentileRange(const at::Tensor& x) const = 0;
  // The L2 norm of a contiguous x. -> []. Without gradients.
  virtual at::Tensor Norm(const at::Tensor& x) const = 0;
  // Of each tensor [Q, ...] the two rows that heads names: [2, ...]; those of three dimensions,
  // weights, with columns of zeros behind them as Join() has them. Without gradients.
  virtual std::vector<at::Tensor> SelectHeads(const std::vector<at::Tensor>& tensors,
                                              const at::Tensor& heads) const = 0;

  // A step of Adam in place, as gpu::StepAdam() of gpu_kernels.h. norm, step: []; the others of one
  // shape.
  virtual void StepAdam(double learning_rate, double epsilon, double clip_norm,
                        const at::Tensor& norm, const at::Tensor& step, const at::Tensor& values,
                        const at::Tensor& grad, const at::Tensor& first_moment,
                        const at::Tensor& second_moment) const = 0;
};

// Linear() of fused_layers.h for two-hot logits: wide where these layers run, for TwoHotDecode()
// and TwoHotCrossEntropy() ignore what follows the bins.
at::Tensor TwoHotLogits(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias);

// Null in a build without CUDA.
const GpuLayers* FindGpuLayers();
// Null where what is made of `t` does not run on these: other devices and dtypes, OperatorsOnly.
const GpuLayers* GpuLayersOf(const at::Tensor& t);

}  // namespace pompc

#endif  // POMPC_COMMON_MODEL_GPU_LAYERS_H_
