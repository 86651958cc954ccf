// CUDA kernels behind the model's layers, where separate operators of LibTorch would launch many
// kernels and walk memory several times: the counterparts of kernels.h on a GPU. Matrix products
// stay with cuBLAS.
//
// Where to look: gpu_kernels_layers.cu, _two_hot.cu, _policy.cu, _reductions.cu and _buffers.cu;
// what they share is in gpu_device.cuh.
//
// Shapes: float32; H heads, R rows of each head, C columns. `cols` at most kMaxNormCols or
//   kMaxBins. All pointers are to device memory.
// Thread-safety and blocking: each function launches on `stream` and returns; it throws nothing and
//   returns what cudaGetLastError() says (0: fine).
// Determinism: equal inputs give equal bits: sums have a fixed order, nothing is added atomically.
#ifndef POMPC_COMMON_MODEL_GPU_KERNELS_H_
#define POMPC_COMMON_MODEL_GPU_KERNELS_H_

#include <cstdint>

#include "common/model/kernels.h"

struct CUstream_st;

namespace pompc::gpu {

using Stream = CUstream_st*;

inline constexpr int64_t kMaxNormCols = 1024;
inline constexpr int64_t kMaxBins = 1024;

// A matrix [H, R, C]; columns are contiguous.
struct In {
  const float* data;
  int64_t head_stride, row_stride;
};
struct Out {
  float* data;
  int64_t head_stride, row_stride;
};

// y = act(LayerNorm((x + bias) * mask) * gain + shift) for each row, epsilon 1e-5.
struct NormLayer {
  int64_t heads = 1, rows = 0, cols = 0;
  const float* bias = nullptr;   // [H, C]
  const float* gain = nullptr;   // [H, C]
  const float* shift = nullptr;  // [H, C]
  const float* mask = nullptr;   // [H, R, C] dropout mask, already scaled; or null.
  Activation activation = Activation::kMish;
  int64_t simnorm_dim = 8;  // A power of 2, at most 32.
};
// Whether the kernels take a layer of this shape.
bool Supports(int64_t cols, Activation activation, int64_t simnorm_dim);

// statistics [H, R, 2] receives mean and 1/std of every row, for the backward; or null.
int NormForward(const NormLayer& layer, In x, Out y, float* statistics, Stream stream);

// Gradients of a layer's parameters: dbias, dgain and dshift [H, C], each added to what it holds.
struct NormGradients {
  float *bias, *gain, *shift;
};
// x and statistics as above, dy -> dx (gradient of x, with x's strides). partial receives
// NormPartialSize() floats, from which AddNormGradients() adds up the parameters' gradients; null
// if they are not wanted.
int64_t NormPartialSize(const NormLayer& layer);
int NormBackward(const NormLayer& layer, In x, const float* statistics, In dy, Out dx,
                 float* partial, Stream stream);
int AddNormGradients(const NormLayer& layer, const float* partial, const NormGradients& gradients,
                     Stream stream);

// out[h, c] += sum_r x[h, r, c].
int AddColumnSums(int64_t heads, int64_t rows, int64_t cols, In x, float* out, Stream stream);

// Rows of a and b, `cols` and `more` numbers (0: b is not read), side by side with zeros behind
// them: [rows, padded].
int JoinRows(int64_t rows, int64_t cols, int64_t more, int64_t padded, const float* a,
             const float* b, float* to, Stream stream);

// Two-hot distributions over `size` bins, as in kernels.h; logits [rows, width] contiguous, those
// beyond `size` not read, their gradients 0. Row i has the target targets[i % num_targets].
struct TwoHotRows {
  int64_t rows = 0, size = 0, width = 0;
  double min = 0, max = 0;
};
int DecodeForward(const TwoHotRows& bins, const float* logits, float* out, Stream stream);
int DecodeBackward(const TwoHotRows& bins, const float* logits, const float* dout, float* dlogits,
                   Stream stream);
int CrossEntropyForward(const TwoHotRows& bins, const float* logits, const float* targets,
                        int64_t num_targets, float* loss, Stream stream);
int CrossEntropyBackward(const TwoHotRows& bins, const float* logits, const float* targets,
                         int64_t num_targets, const float* dloss, float* dlogits, Stream stream);

// A Gaussian policy network's output [rows, 2 A], (m, x) -> m, tanh(m) and
// log std = low + half (tanh(x) + 1), [rows, A] each.
struct PolicyRows {
  int64_t rows = 0, action_dim = 0;
  double log_std_low = 0, log_std_half = 0;
};
int PolicyForward(const PolicyRows& rows, const float* output, float* m, float* mean,
                  float* log_std, Stream stream);
// Any of dm, dmean and dlog_std may be null, as zeros.
int PolicyBackward(const PolicyRows& rows, const float* output, const float* dm, const float* dmean,
                   const float* dlog_std, float* doutput, Stream stream);

// action = tanh(centre + eps exp(log_std)) when squashed, else clamp(centre + eps exp(log_std), -1,
// 1); `size` numbers each.
int SampleForward(int64_t size, bool squashed, const float* centre, const float* log_std,
                  const float* eps, float* action, Stream stream);
int SampleBackward(int64_t size, bool squashed, const float* centre, const float* log_std,
                   const float* eps, const float* daction, float* dcentre, float* dlog_std,
                   Stream stream);

// out[r] = sum_c(-eps^2 / 2 - log_std), eps and log_std [rows, cols].
int LogKernelForward(int64_t rows, int64_t cols, const float* eps, const float* log_std, float* out,
                     Stream stream);
// deps, dlog_std: null where not wanted.
int LogKernelBackward(int64_t rows, int64_t cols, const float* eps, const float* dout, float* deps,
                      float* dlog_std, Stream stream);

// out[r] = sum_c log(relu(1 - action^2) + 1e-6), action [rows, cols].
int SquashCorrectionForward(int64_t rows, int64_t cols, const float* action, float* out,
                            Stream stream);
int SquashCorrectionBackward(int64_t rows, int64_t cols, const float* action, const float* dout,
                             float* daction, Stream stream);

// KL(p || q) of Gaussians in nats, for each of `size` dimensions.
struct GaussianPairs {
  int64_t size = 0;
  const float *p_mean, *p_std, *q_mean, *q_std;
};
int GaussianKlForward(const GaussianPairs& pairs, float* kl, Stream stream);
// Gradients of the four; null for those that are not wanted.
struct GaussianGradients {
  float *p_mean, *p_std, *q_mean, *q_std;
};
int GaussianKlBackward(const GaussianPairs& pairs, const float* dkl, const GaussianGradients& out,
                       Stream stream);

// out[0] = sum_t rho^t / T mean(x_t), x [outer, T, inner]; with y [like x]: of (x - y)^2.
struct TimeRows {
  int64_t outer = 1, steps = 0, inner = 0;
  double rho = 1;
};
// Floats of scratch memory.
int64_t TimeMeanScratchSize(const TimeRows& rows);
int TimeMeanForward(const TimeRows& rows, const float* x, const float* y, float* out,
                    float* scratch, Stream stream);
int TimeMeanBackward(const TimeRows& rows, const float* x, const float* y, const float* dout,
                     float* dx, Stream stream);

// out[0]: the distance from the 5th to the 95th percentile of x [size], interpolated linearly; at
// least 1. size: from 1 to kMaxPercentileSize.
inline constexpr int64_t kMaxPercentileSize = 1024;
int PercentileRange(int64_t size, const float* x, float* out, Stream stream);

// out[0]: the L2 norm of x [size]. scratch: kNormBlocks floats.
inline constexpr int kNormBlocks = 264;  // 2 on each multiprocessor.
int Norm(int64_t size, const float* x, float* out, float* scratch, Stream stream);

// Copies bytes of memory.
struct MemoryCopy {
  const void* from;
  void* to;
  int64_t bytes;
};
inline constexpr int kMaxCopies = 32;
struct MemoryCopies {
  MemoryCopy copies[kMaxCopies];
  int count = 0;
};
int CopyMemory(const MemoryCopies& copies, Stream stream);

// Copies for each tensor [Q, rows, cols] its two parts heads[0] and heads[1] -> [2, rows, padded],
// with zeros behind the columns.
struct HeadTensor {
  const float* from;
  float* to;
  int64_t rows, cols, padded;
};
inline constexpr int kMaxHeadTensors = 32;
struct HeadTensors {
  HeadTensor tensors[kMaxHeadTensors];
  int count = 0;
};
int SelectHeads(const HeadTensors& tensors, const int64_t* heads, Stream stream);

// One step of Adam, beta = (0.9, 0.999), on `size` parameters (a multiple of 4; pointers aligned to
// 16 bytes). Scales the gradients, in place, by min(1, clip_norm / (norm + 1e-6)) first. norm,
// step: one number each; step counts this one.
struct AdamSettings {
  int64_t size = 0;
  double learning_rate = 0, epsilon = 0, clip_norm = 0;
};
int StepAdam(const AdamSettings& adam, const float* norm, const float* step, float* values,
             float* grads, float* first_moment, float* second_moment, Stream stream);

}  // namespace pompc::gpu

#endif  // POMPC_COMMON_MODEL_GPU_KERNELS_H_
