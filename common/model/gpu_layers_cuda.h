// The layers of gpu_layers.h in a build with CUDA, and what their files share.
//
// Where to look: gpu_layers_linear.cc has products and LayerNorm, gpu_layers_two_hot.cc two-hot
// distributions, gpu_layers_policy.cc Gaussian policies, gpu_layers_cuda.cc means, norms and
// percentiles, heads picked from an ensemble, and Adam.
#ifndef POMPC_COMMON_MODEL_GPU_LAYERS_CUDA_H_
#define POMPC_COMMON_MODEL_GPU_LAYERS_CUDA_H_

#include <c10/cuda/CUDAStream.h>

#include <array>
#include <cstdint>
#include <vector>

#include "common/model/gpu_kernels.h"
#include "common/model/gpu_layers.h"

namespace pompc {

class CudaLayers final : public GpuLayers {
 public:
  at::Tensor Linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                    bool wide, bool track) const override;
  bool Supports(int64_t out, const NormedLinearOptions& options) const override;
  at::Tensor NormedLinear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                          const at::Tensor& gain, const at::Tensor& shift, const at::Tensor& mask,
                          const NormedLinearOptions& options, bool track) const override;
  at::Tensor Join(const at::Tensor& z, const at::Tensor& a) const override;
  at::Tensor TwoHotDecode(const at::Tensor& logits, const Bins& bins, bool track) const override;
  at::Tensor TwoHotCrossEntropy(const at::Tensor& logits, const at::Tensor& target,
                                const Bins& bins, bool track) const override;
  std::array<at::Tensor, 3> Policy(const at::Tensor& output, LogStdRange range) const override;
  at::Tensor Sample(bool squashed, const at::Tensor& centre, const at::Tensor& log_std,
                    const at::Tensor& eps) const override;
  at::Tensor LogKernel(const at::Tensor& eps, const at::Tensor& log_std) const override;
  at::Tensor SquashCorrection(const at::Tensor& action) const override;
  at::Tensor GaussianKl(const at::Tensor& p_mean, const at::Tensor& p_std, const at::Tensor& q_mean,
                        const at::Tensor& q_std) const override;
  at::Tensor TimeMeanOf(const at::Tensor& x, int64_t time_dim, double rho,
                        const at::Tensor& y) const override;
  at::Tensor PercentileRange(const at::Tensor& x) const override;
  at::Tensor Norm(const at::Tensor& x) const override;
  std::vector<at::Tensor> SelectHeads(const std::vector<at::Tensor>& tensors,
                                      const at::Tensor& heads) const override;
  void StepAdam(double learning_rate, double epsilon, double clip_norm, const at::Tensor& norm,
                const at::Tensor& step, const at::Tensor& values, const at::Tensor& grad,
                const at::Tensor& first_moment, const at::Tensor& second_moment) const override;
};

namespace gpu {

inline Stream CurrentStream() { return c10::cuda::getCurrentCUDAStream().stream(); }

inline void Check(int launched) {
  TORCH_CHECK(launched == 0,
              "CUDA kernel: ", cudaGetErrorString(static_cast<cudaError_t>(launched)));
}

inline const float* Data(const at::Tensor& t) {
  return t.defined() ? t.const_data_ptr<float>() : nullptr;
}

// cuBLAS takes slow kernels where rows are not whole units of 16 bytes: this size instead of
// `size`.
inline int64_t AlignedSize(int64_t size) { return size % 4 == 0 ? size : (size + 7) / 8 * 8; }

// Autograd takes no undefined tensor as an input, so one that may be absent travels inside a
// struct.
struct Optional {
  at::Tensor tensor;
};

}  // namespace gpu
}  // namespace pompc

#endif  // POMPC_COMMON_MODEL_GPU_LAYERS_CUDA_H_
