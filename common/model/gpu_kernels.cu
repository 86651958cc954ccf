#include <cuda_runtime.h>

#include <cstdint>
#include <type_traits>

#include "common/model/gpu_kernels.h"
#include "common/model/launch.cuh"

namespace pompc::gpu {
namespace {

constexpr float kEpsilon = 1e-5f;
constexpr int kWarp = 32;
constexpr unsigned kAll = 0xffffffffu;
constexpr int kForwardWarps = 4;  // A block of the norm kernels; each warp takes whole rows.
constexpr int kBackwardWarps = 8;
constexpr int kMaxNormBlocks = 264;  // Of a backward with sums to add up: 2 a multiprocessor.
constexpr int kTwoHotWarps = 4;

// Whether four columns of every row can be loaded at once.
__host__ __device__ bool Aligned(const float* data, int64_t head_stride = 0,
                                 int64_t row_stride = 0) {
  return reinterpret_cast<uintptr_t>(data) % 16 == 0 && head_stride % 4 == 0 && row_stride % 4 == 0;
}

__device__ float WarpSum(float v) {
  for (int o = 16; o > 0; o >>= 1) v += __shfl_xor_sync(kAll, v, o);
  return v;
}
__device__ float WarpMax(float v) {
  for (int o = 16; o > 0; o >>= 1) v = fmaxf(v, __shfl_xor_sync(kAll, v, o));
  return v;
}
// Over groups of `dim` neighbouring columns, of which each lane holds kWidth in v.
template <int kWidth>
__device__ float GroupSum(const float* v, int dim) {
  float sum = v[0];
#pragma unroll
  for (int j = 1; j < kWidth; ++j) sum += v[j];
  for (int o = dim / kWidth / 2; o > 0; o >>= 1) sum += __shfl_xor_sync(kAll, sum, o);
  return sum;
}
template <int kWidth>
__device__ float GroupMax(const float* v, int dim) {
  float max = v[0];
#pragma unroll
  for (int j = 1; j < kWidth; ++j) max = fmaxf(max, v[j]);
  for (int o = dim / kWidth / 2; o > 0; o >>= 1) max = fmaxf(max, __shfl_xor_sync(kAll, max, o));
  return max;
}

// Mish is x tanh(softplus(x)) = x n / (n + 2), n = e (e + 2), e = exp(x). Beyond 20 it is x.
__device__ float Mish(float x) {
  const float e = expf(fminf(x, 20.0f));
  const float n = e * (e + 2.0f);
  return x > 20.0f ? x : x * __fdividef(n, n + 2.0f);
}
__device__ float MishSlope(float x) {
  const float e = expf(fminf(x, 20.0f));
  const float n = e * (e + 2.0f);
  const float r = __fdividef(1.0f, n + 2.0f);
  return x > 20.0f ? 1.0f : n * r + 4.0f * x * (e * r) * ((e + 1.0f) * r);
}

// The columns of a row that a lane of its warp holds: kChunks times kWidth neighbours (4: loaded
// at once). A kernel loads all it needs of a row before it computes, so that it waits once.
template <int kWidth, int kChunks>
struct RowPart {
  float v[kChunks * kWidth];

  __device__ static int Column(int lane, int chunk) { return (lane + chunk * kWarp) * kWidth; }
  // Zeros beyond the last column.
  __device__ void Load(const float* source, int cols, int lane) {
#pragma unroll
    for (int i = 0; i < kChunks; ++i) {
      const int c = Column(lane, i);
      if constexpr (kWidth == 4) {
        const float4 t = c < cols ? *reinterpret_cast<const float4*>(source + c)
                                  : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        v[4 * i] = t.x, v[4 * i + 1] = t.y, v[4 * i + 2] = t.z, v[4 * i + 3] = t.w;
      } else {
        v[i] = c < cols ? source[c] : 0.0f;
      }
    }
  }
  __device__ void Store(float* target, int cols, int lane) const {
#pragma unroll
    for (int i = 0; i < kChunks; ++i) {
      const int c = Column(lane, i);
      if (c >= cols) continue;
      if constexpr (kWidth == 4) {
        *reinterpret_cast<float4*>(target + c) =
            make_float4(v[4 * i], v[4 * i + 1], v[4 * i + 2], v[4 * i + 3]);
      } else {
        target[c] = v[i];
      }
    }
  }
};

// Activation of a row, in place.
template <int kWidth, int kChunks, bool kSimNorm>
__device__ void Activate(RowPart<kWidth, kChunks>& row, int dim) {
#pragma unroll
  for (int i = 0; i < kChunks; ++i) {
    float* const v = row.v + i * kWidth;
    if constexpr (kSimNorm) {
      const float max = GroupMax<kWidth>(v, dim);
#pragma unroll
      for (int j = 0; j < kWidth; ++j) v[j] = expf(v[j] - max);
      const float scale = 1.0f / GroupSum<kWidth>(v, dim);
#pragma unroll
      for (int j = 0; j < kWidth; ++j) v[j] *= scale;
    } else {
#pragma unroll
      for (int j = 0; j < kWidth; ++j) v[j] = Mish(v[j]);
    }
  }
}

template <int kWidth, int kChunks, bool kSimNorm>
__global__ void __launch_bounds__(kForwardWarps* kWarp)
    NormForwardKernel(NormLayer layer, In x, Out y, float* statistics) {
  WaitForKernelBefore();
  using Part = RowPart<kWidth, kChunks>;
  const int lane = threadIdx.x % kWarp, cols = static_cast<int>(layer.cols);
  const int64_t index = static_cast<int64_t>(blockIdx.x) * kForwardWarps + threadIdx.x / kWarp;
  if (index >= layer.heads * layer.rows) return;
  const int64_t head = index / layer.rows, row = index % layer.rows;
  Part t, bias, gain, shift;
  t.Load(x.data + head * x.head_stride + row * x.row_stride, cols, lane);
  bias.Load(layer.bias + head * cols, cols, lane);
  gain.Load(layer.gain + head * cols, cols, lane);
  shift.Load(layer.shift + head * cols, cols, lane);
#pragma unroll
  for (int k = 0; k < kChunks * kWidth; ++k) t.v[k] += bias.v[k];
  if (layer.mask != nullptr) {
    Part mask;
    mask.Load(layer.mask + index * cols, cols, lane);
#pragma unroll
    for (int k = 0; k < kChunks * kWidth; ++k) t.v[k] *= mask.v[k];
  }
  float sum = 0;
#pragma unroll
  for (int k = 0; k < kChunks * kWidth; ++k) sum += t.v[k];  // 0 beyond the last column.
  const float mean = WarpSum(sum) / static_cast<float>(cols);
  float square = 0;
#pragma unroll
  for (int i = 0; i < kChunks; ++i) {
    const bool inside = Part::Column(lane, i) < cols;
#pragma unroll
    for (int k = i * kWidth; k < (i + 1) * kWidth; ++k) {
      t.v[k] -= mean;
      square += inside ? t.v[k] * t.v[k] : 0.0f;
    }
  }
  const float rstd = 1.0f / sqrtf(WarpSum(square) / static_cast<float>(cols) + kEpsilon);
  if (statistics != nullptr && lane == 0) {
    statistics[2 * index] = mean;
    statistics[2 * index + 1] = rstd;
  }
#pragma unroll
  for (int k = 0; k < kChunks * kWidth; ++k) t.v[k] = t.v[k] * rstd * gain.v[k] + shift.v[k];
  Activate<kWidth, kChunks, kSimNorm>(t, static_cast<int>(layer.simnorm_dim));
  t.Store(y.data + head * y.head_stride + row * y.row_stride, cols, lane);
}

// Block b of a head takes every gridDim.x-th group of rows and leaves the sums of its rows'
// parameter gradients in partial[head][b][dbias, dgain, dshift][cols].
template <int kWidth, int kChunks, bool kSimNorm>
__global__ void __launch_bounds__(kBackwardWarps* kWarp)
    NormBackwardKernel(NormLayer layer, In x, const float* statistics, In dy, Out dx,
                       float* partial) {
  WaitForKernelBefore();
  using Part = RowPart<kWidth, kChunks>;
  constexpr int kPerLane = kWidth * kChunks;
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const int cols = static_cast<int>(layer.cols), dim = static_cast<int>(layer.simnorm_dim);
  const int64_t head = blockIdx.y;
  Part sums[3] = {};  // Of dbias, dgain and dshift.

  for (int64_t row = static_cast<int64_t>(blockIdx.x) * kBackwardWarps + warp; row < layer.rows;
       row += static_cast<int64_t>(gridDim.x) * kBackwardWarps) {
    const int64_t index = head * layer.rows + row;
    Part normed, d, gain, shift, mask;  // d: the gradient, of y at first.
    normed.Load(x.data + head * x.head_stride + row * x.row_stride, cols, lane);
    shift.Load(layer.bias + head * cols, cols, lane);
    d.Load(dy.data + head * dy.head_stride + row * dy.row_stride, cols, lane);
    gain.Load(layer.gain + head * cols, cols, lane);
    if (layer.mask != nullptr) mask.Load(layer.mask + index * cols, cols, lane);
    const float mean = statistics[2 * index], rstd = statistics[2 * index + 1];
#pragma unroll
    for (int k = 0; k < kPerLane; ++k) normed.v[k] += shift.v[k];
    shift.Load(layer.shift + head * cols, cols, lane);
    if (layer.mask != nullptr) {
#pragma unroll
      for (int k = 0; k < kPerLane; ++k) normed.v[k] *= mask.v[k];
    }
    float sum = 0, dot = 0;
#pragma unroll
    for (int i = 0; i < kChunks; ++i) {
      // Beyond the last column gain, shift and dy are 0, and so is all that is added up.
      float p[kWidth], weighted[kWidth];
      float scale = 0, mean_p = 0;
#pragma unroll
      for (int j = 0; j < kWidth; ++j) {
        const int k = i * kWidth + j;
        normed.v[k] = (normed.v[k] - mean) * rstd;
        p[j] = normed.v[k] * gain.v[k] + shift.v[k];
      }
      if constexpr (kSimNorm) {
        const float max = GroupMax<kWidth>(p, dim);
#pragma unroll
        for (int j = 0; j < kWidth; ++j) p[j] = expf(p[j] - max);
        scale = 1.0f / GroupSum<kWidth>(p, dim);
#pragma unroll
        for (int j = 0; j < kWidth; ++j) {
          p[j] *= scale;
          weighted[j] = d.v[i * kWidth + j] * p[j];
        }
        mean_p = GroupSum<kWidth>(weighted, dim);
      }
#pragma unroll
      for (int j = 0; j < kWidth; ++j) {
        const int k = i * kWidth + j;
        const float dv = kSimNorm ? p[j] * (d.v[k] - mean_p) : d.v[k] * MishSlope(p[j]);
        sums[1].v[k] += dv * normed.v[k];
        sums[2].v[k] += dv;
        d.v[k] = dv * gain.v[k];
        sum += d.v[k];
        dot += d.v[k] * normed.v[k];
      }
    }
    const float mean_d = WarpSum(sum) / static_cast<float>(cols);
    const float mean_dot = WarpSum(dot) / static_cast<float>(cols);
#pragma unroll
    for (int k = 0; k < kPerLane; ++k) {
      d.v[k] = rstd * (d.v[k] - mean_d - normed.v[k] * mean_dot);
    }
    if (layer.mask != nullptr) {
#pragma unroll
      for (int k = 0; k < kPerLane; ++k) d.v[k] *= mask.v[k];
    }
#pragma unroll
    for (int k = 0; k < kPerLane; ++k) sums[0].v[k] += d.v[k];
    d.Store(dx.data + head * dx.head_stride + row * dx.row_stride, cols, lane);
  }
  if (partial == nullptr) return;

  extern __shared__ float4 shared[];  // Sums of each warp, [kBackwardWarps][cols].
  float* const warps = reinterpret_cast<float*>(shared);
  float* const out = partial + (head * gridDim.x + blockIdx.x) * 3 * cols;
#pragma unroll
  for (int i = 0; i < 3; ++i) {
    sums[i].Store(warps + warp * cols, cols, lane);
    __syncthreads();
    for (int c = threadIdx.x; c < cols; c += kBackwardWarps * kWarp) {
      float sum = 0;
#pragma unroll
      for (int w = 0; w < kBackwardWarps; ++w) sum += warps[w * cols + c];
      out[i * cols + c] = sum;
    }
    __syncthreads();
  }
}

constexpr int kSumLanes = 16;  // Threads that share a column.

// The sum of column c of `count` rows, in a block of 32 columns by kSumLanes.
__device__ float BlockColumnSum(const float* data, int64_t count, int64_t stride, int c,
                                bool inside) {
  __shared__ float part[kSumLanes][kWarp];
  float sum = 0;
  if (inside) {
#pragma unroll 4
    for (int64_t r = threadIdx.y; r < count; r += kSumLanes) sum += data[r * stride + c];
  }
  part[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y != 0) return 0;
  sum = 0;
#pragma unroll
  for (int i = 0; i < kSumLanes; ++i) sum += part[i][threadIdx.x];
  return sum;
}

// The partial sums of NormBackwardKernel, added to the gradients.
__global__ void NormGradientKernel(const float* partial, int blocks, int cols, NormGradients out) {
  WaitForKernelBefore();
  const int c = blockIdx.x * kWarp + threadIdx.x;
  const int64_t head = blockIdx.y;
  const float sum =
      BlockColumnSum(partial + head * blocks * 3 * cols, blocks, 3 * cols, c, c < 3 * cols);
  if (threadIdx.y != 0 || c >= 3 * cols) return;
  float* const target = c < cols ? out.bias : c < 2 * cols ? out.gain : out.shift;
  target[head * cols + c % cols] += sum;
}

__global__ void ColumnSumKernel(int64_t rows, int64_t cols, In x, float* out) {
  WaitForKernelBefore();
  const int c = blockIdx.x * kWarp + threadIdx.x;
  const int64_t head = blockIdx.y;
  const float sum = BlockColumnSum(x.data + head * x.head_stride, rows, x.row_stride, c, c < cols);
  if (threadIdx.y == 0 && c < cols) out[head * cols + c] += sum;
}

// exp(logit - max) of a row, lane l holding bins l, l + 32, ...; a warp has a row.
template <int kPerLane>
struct SoftmaxRow {
  float e[kPerLane];
  float max, sum, expectation;  // Expectation of the bins' positions.

  __device__ void Load(const TwoHotRows& bins, const float* logits, float min, float step,
                       int lane) {
    max = -INFINITY;
#pragma unroll
    for (int i = 0; i < kPerLane; ++i) {
      const int k = lane + i * kWarp;
      e[i] = k < bins.size ? logits[k] : -INFINITY;
      max = fmaxf(max, e[i]);
    }
    max = WarpMax(max);
    sum = 0;
    float weighted = 0;
#pragma unroll
    for (int i = 0; i < kPerLane; ++i) {
      const int k = lane + i * kWarp;
      e[i] = k < bins.size ? expf(e[i] - max) : 0.0f;
      sum += e[i];
      weighted += e[i] * (min + step * static_cast<float>(k));
    }
    sum = WarpSum(sum);
    expectation = WarpSum(weighted) / sum;
  }
};

struct TwoHot {
  int lower, upper;  // Bins.
  float weight;      // Of `upper`.
};
__device__ TwoHot TwoHotOf(float target, int size, float low, float high, float step) {
  float y = copysignf(logf(1.0f + fabsf(target)), target);
  y = y < low ? low : y;
  y = y > high ? high : y;
  const float position = (y - low) / step;
  const float lower = floorf(position);
  // NaN compares false: it stays at bin 0 with a NaN weight, so that the loss is NaN too.
  const int index = lower > 0.0f ? min(static_cast<int>(lower), size - 1) : 0;
  return {index, (index + 1) % size, position - lower};
}

enum class TwoHotTask { kDecode, kDecodeBackward, kCrossEntropy, kCrossEntropyBackward };

// out: one number a row, or with `Backward` the gradients of the logits, for `grad` of that number.
template <int kPerLane, TwoHotTask kTask>
__global__ void TwoHotKernel(TwoHotRows bins, const float* logits, const float* targets,
                             int64_t num_targets, const float* grad, float* out) {
  WaitForKernelBefore();
  const int lane = threadIdx.x % kWarp;
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kTwoHotWarps + threadIdx.x / kWarp;
  if (row >= bins.rows) return;
  const int size = static_cast<int>(bins.size);
  const float low = static_cast<float>(bins.min), high = static_cast<float>(bins.max);
  const float step = static_cast<float>((bins.max - bins.min) / static_cast<double>(size - 1));
  const int width = static_cast<int>(bins.width);
  const float* l = logits + row * width;
  SoftmaxRow<kPerLane> s;
  s.Load(bins, l, low, step, lane);
  if constexpr (kTask == TwoHotTask::kDecode) {
    if (lane == 0) out[row] = copysignf(expf(fabsf(s.expectation)) - 1.0f, s.expectation);
  } else if constexpr (kTask == TwoHotTask::kDecodeBackward) {
    const float scale = grad[row] * expf(fabsf(s.expectation)) / s.sum;
#pragma unroll
    for (int i = 0; i < kPerLane; ++i) {
      const int k = lane + i * kWarp;
      if (k >= width) continue;
      const float position = low + step * static_cast<float>(k);
      out[row * width + k] = k < size ? scale * s.e[i] * (position - s.expectation) : 0.0f;
    }
  } else {
    const TwoHot hot = TwoHotOf(targets[row % num_targets], size, low, high, step);
    if constexpr (kTask == TwoHotTask::kCrossEntropy) {
      const float log_sum = s.max + logf(s.sum);
      if (lane == 0) {
        out[row] =
            (1.0f - hot.weight) * (log_sum - l[hot.lower]) + hot.weight * (log_sum - l[hot.upper]);
      }
    } else {
      const float g = grad[row], scale = g / s.sum;
#pragma unroll
      for (int i = 0; i < kPerLane; ++i) {
        const int k = lane + i * kWarp;
        if (k >= width) continue;
        float d = scale * s.e[i];  // 0 beyond the last bin.
        if (k == hot.lower) d -= g * (1.0f - hot.weight);
        if (k == hot.upper) d -= g * hot.weight;
        out[row * width + k] = k < size ? d : 0.0f;
      }
    }
  }
}

constexpr int kElementThreads = 256;  // A block of the elementwise kernels.

__device__ int64_t Element() { return static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; }

__global__ void PolicyForwardKernel(PolicyRows rows, const float* output, float* m, float* mean,
                                    float* log_std) {
  WaitForKernelBefore();
  const int64_t i = Element(), n = rows.action_dim;
  if (i >= rows.rows * n) return;
  const float* row = output + i / n * 2 * n + i % n;
  const float low = static_cast<float>(rows.log_std_low);
  const float half = static_cast<float>(rows.log_std_half);
  m[i] = row[0];
  mean[i] = tanhf(row[0]);
  log_std[i] = low + half * (tanhf(row[n]) + 1.0f);
}

__global__ void PolicyBackwardKernel(PolicyRows rows, const float* output, const float* dm,
                                     const float* dmean, const float* dlog_std, float* doutput) {
  WaitForKernelBefore();
  const int64_t i = Element(), n = rows.action_dim;
  if (i >= rows.rows * n) return;
  const int64_t at = i / n * 2 * n + i % n;
  float dcentre = dm != nullptr ? dm[i] : 0.0f;
  if (dmean != nullptr) {
    const float t = tanhf(output[at]);
    dcentre += dmean[i] * (1.0f - t * t);
  }
  doutput[at] = dcentre;
  const float t = tanhf(output[at + n]);
  doutput[at + n] = dlog_std != nullptr
                        ? dlog_std[i] * static_cast<float>(rows.log_std_half) * (1.0f - t * t)
                        : 0.0f;
}

__global__ void SampleForwardKernel(int64_t size, bool squashed, const float* centre,
                                    const float* log_std, const float* eps, float* action) {
  WaitForKernelBefore();
  const int64_t i = Element();
  if (i >= size) return;
  const float u = centre[i] + eps[i] * expf(log_std[i]);
  // As LibTorch's clamp, NaN stays NaN.
  action[i] = squashed ? tanhf(u) : u < -1.0f ? -1.0f : u > 1.0f ? 1.0f : u;
}

__global__ void SampleBackwardKernel(int64_t size, bool squashed, const float* centre,
                                     const float* log_std, const float* eps, const float* daction,
                                     float* dcentre, float* dlog_std) {
  WaitForKernelBefore();
  const int64_t i = Element();
  if (i >= size) return;
  const float noise = eps[i] * expf(log_std[i]);
  const float u = centre[i] + noise;
  float slope;
  if (squashed) {
    const float t = tanhf(u);
    slope = 1.0f - t * t;
  } else {
    slope = u >= -1.0f && u <= 1.0f ? 1.0f : 0.0f;
  }
  dcentre[i] = daction[i] * slope;
  dlog_std[i] = daction[i] * slope * noise;
}

constexpr int kRowWarps = 4;  // A block of the kernels that sum rows, a warp each.

// out[row] = sum of term(i) over the row's elements i.
template <typename Term>
__device__ void SumRow(int64_t rows, int64_t cols, float* out, const Term& term) {
  const int lane = threadIdx.x % kWarp;
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kRowWarps + threadIdx.x / kWarp;
  if (row >= rows) return;
  float sum = 0;
  for (int64_t c = lane; c < cols; c += kWarp) sum += term(row * cols + c);
  sum = WarpSum(sum);
  if (lane == 0) out[row] = sum;
}

__global__ void LogKernelForwardKernel(int64_t rows, int64_t cols, const float* eps,
                                       const float* log_std, float* out) {
  WaitForKernelBefore();
  SumRow(rows, cols, out, [&](int64_t i) { return -0.5f * eps[i] * eps[i] - log_std[i]; });
}

__global__ void LogKernelBackwardKernel(int64_t rows, int64_t cols, const float* eps,
                                        const float* dout, float* deps, float* dlog_std) {
  WaitForKernelBefore();
  const int64_t i = Element();
  if (i >= rows * cols) return;
  const float d = dout[i / cols];
  if (deps != nullptr) deps[i] = -d * eps[i];
  if (dlog_std != nullptr) dlog_std[i] = -d;
}

constexpr float kSquashGuard = 1e-6f;

__global__ void SquashCorrectionForwardKernel(int64_t rows, int64_t cols, const float* action,
                                              float* out) {
  WaitForKernelBefore();
  SumRow(rows, cols, out, [&](int64_t i) {
    const float slope = 1.0f - action[i] * action[i];
    // As LibTorch's relu, NaN stays NaN.
    return logf((slope < 0.0f ? 0.0f : slope) + kSquashGuard);
  });
}

__global__ void SquashCorrectionBackwardKernel(int64_t rows, int64_t cols, const float* action,
                                               const float* dout, float* daction) {
  WaitForKernelBefore();
  const int64_t i = Element();
  if (i >= rows * cols) return;
  const float slope = 1.0f - action[i] * action[i];
  daction[i] = slope <= 0.0f ? 0.0f : -2.0f * action[i] * dout[i / cols] / (slope + kSquashGuard);
}

__global__ void GaussianKlForwardKernel(GaussianPairs pairs, float* kl) {
  WaitForKernelBefore();
  const int64_t i = Element();
  if (i >= pairs.size) return;
  const float ratio = pairs.p_std[i] / pairs.q_std[i];
  const float shift = (pairs.p_mean[i] - pairs.q_mean[i]) / pairs.q_std[i];
  kl[i] = 0.5f * (ratio * ratio + shift * shift - 1.0f - logf(ratio * ratio));
}

__global__ void GaussianKlBackwardKernel(GaussianPairs pairs, const float* dkl,
                                         GaussianGradients out) {
  WaitForKernelBefore();
  const int64_t i = Element();
  if (i >= pairs.size) return;
  const float d = dkl[i], p_std = pairs.p_std[i], q_std = pairs.q_std[i];
  const float ratio = p_std / q_std, shift = (pairs.p_mean[i] - pairs.q_mean[i]) / q_std;
  const float dmean = d * shift / q_std;
  if (out.p_mean != nullptr) out.p_mean[i] = dmean;
  if (out.q_mean != nullptr) out.q_mean[i] = -dmean;
  if (out.p_std != nullptr) out.p_std[i] = d * (ratio / q_std - 1.0f / p_std);
  if (out.q_std != nullptr) out.q_std[i] = d * (1.0f - ratio * ratio - shift * shift) / q_std;
}

constexpr int kSumThreads = 512;
constexpr int64_t kSumBlockElements = 4096;

__device__ float TimeWeight(const TimeRows& rows, int64_t i) {
  const int64_t t = i / rows.inner % rows.steps;
  return powf(static_cast<float>(rows.rho), static_cast<float>(t)) /
         (static_cast<float>(rows.steps) * static_cast<float>(rows.outer * rows.inner));
}

// The block's sum, in thread 0.
__device__ float BlockSum(float v) {
  __shared__ float part[kSumThreads / kWarp];
  v = WarpSum(v);
  if (threadIdx.x % kWarp == 0) part[threadIdx.x / kWarp] = v;
  __syncthreads();
  if (threadIdx.x >= kWarp) return 0;
  return WarpSum(threadIdx.x < kSumThreads / kWarp ? part[threadIdx.x] : 0.0f);
}

__global__ void TimeMeanKernel(TimeRows rows, const float* x, const float* y, float* out) {
  WaitForKernelBefore();
  const int64_t size = rows.outer * rows.steps * rows.inner;
  const int64_t begin = blockIdx.x * kSumBlockElements;
  const int64_t end = begin + kSumBlockElements < size ? begin + kSumBlockElements : size;
  float sum = 0;
#pragma unroll 4
  for (int64_t i = begin + threadIdx.x; i < end; i += kSumThreads) {
    float v = x[i];
    if (y != nullptr) {
      v -= y[i];
      v *= v;
    }
    sum += TimeWeight(rows, i) * v;
  }
  sum = BlockSum(sum);
  if (threadIdx.x == 0) out[blockIdx.x] = sum;
}

__global__ void SumKernel(const float* x, int count, float* out) {
  WaitForKernelBefore();
  float sum = 0;
  for (int i = threadIdx.x; i < count; i += kSumThreads) sum += x[i];
  sum = BlockSum(sum);
  if (threadIdx.x == 0) out[0] = sum;
}

__global__ void TimeMeanBackwardKernel(TimeRows rows, const float* x, const float* y,
                                       const float* dout, float* dx) {
  WaitForKernelBefore();
  const int64_t i = Element();
  if (i >= rows.outer * rows.steps * rows.inner) return;
  const float d = dout[0] * TimeWeight(rows, i);
  dx[i] = y != nullptr ? 2.0f * (x[i] - y[i]) * d : d;
}

constexpr int kJoinThreads = 128;
constexpr int kJoinBlockColumns = 5 * kJoinThreads;  // The widest odd layers here have 550 inputs.

__global__ void __launch_bounds__(kJoinThreads)
    JoinRowsKernel(int64_t cols, int64_t more, int64_t padded, const float* __restrict__ a,
                   const float* __restrict__ b, float* __restrict__ to) {
  WaitForKernelBefore();
  const int64_t row = blockIdx.x;
#pragma unroll 5
  for (int64_t c = static_cast<int64_t>(blockIdx.y) * kJoinThreads + threadIdx.x; c < padded;
       c += static_cast<int64_t>(gridDim.y) * kJoinThreads) {
    to[row * padded + c] = c < cols          ? a[row * cols + c]
                           : c < cols + more ? b[row * more + c - cols]
                                             : 0.0f;
  }
}

__device__ float Percentile(const float* sorted, int size, double q) {
  const double position = q * (size - 1);
  const int lower = static_cast<int>(position), upper = min(lower + 1, size - 1);
  const double weight = position - lower;
  return sorted[lower] * static_cast<float>(1 - weight) +
         sorted[upper] * static_cast<float>(weight);
}

// Numbers in the order of their values; NaN is the greatest, as for LibTorch's sort.
__device__ unsigned SortKey(float v) {
  const unsigned bits = isnan(v) ? 0x7fffffffu : __float_as_uint(v);
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

constexpr int kRankLanes = 4;  // Threads that share a number.

// One block, which counts for each number those before it.
__global__ void __launch_bounds__(kMaxPercentileSize)
    PercentileRangeKernel(int size, const float* x, float* out) {
  WaitForKernelBefore();
  __shared__ float values[kMaxPercentileSize], sorted[kMaxPercentileSize];
  __shared__ unsigned long long keys[kMaxPercentileSize];
  for (int i = threadIdx.x; i < size; i += blockDim.x) {
    values[i] = x[i];
    keys[i] = static_cast<unsigned long long>(SortKey(x[i])) << 32 | i;
  }
  __syncthreads();
  const int lane = threadIdx.x % kRankLanes;
  // All lanes of a number take the same turns.
  for (int i = threadIdx.x / kRankLanes; i < size; i += blockDim.x / kRankLanes) {
    const unsigned long long key = keys[i];
    int rank = 0;
#pragma unroll 8
    for (int j = lane; j < size; j += kRankLanes) rank += keys[j] < key ? 1 : 0;
    const unsigned group = ((1u << kRankLanes) - 1)
                           << (threadIdx.x % kWarp / kRankLanes * kRankLanes);
    for (int o = kRankLanes / 2; o > 0; o >>= 1) rank += __shfl_xor_sync(group, rank, o);
    if (lane == 0) sorted[rank] = values[i];
  }
  __syncthreads();
  if (threadIdx.x != 0) return;
  const float range = Percentile(sorted, size, 0.95) - Percentile(sorted, size, 0.05);
  out[0] = range < 1.0f ? 1.0f : range;
}

// The sum of the squares that this block meets, to partial[block].
__global__ void __launch_bounds__(kSumThreads)
    SquareSumKernel(int64_t size, const float* x, float* partial) {
  WaitForKernelBefore();
  float sum = 0;
  const bool quads = Aligned(x);
  const int64_t count = quads ? size / 4 : 0;
  const int64_t stride = static_cast<int64_t>(gridDim.x) * blockDim.x;
#pragma unroll 4
  for (int64_t i = Element(); i < count; i += stride) {
    const float4 v = reinterpret_cast<const float4*>(x)[i];
    sum += v.x * v.x + v.y * v.y + v.z * v.z + v.w * v.w;
  }
  for (int64_t i = 4 * count + Element(); i < size; i += stride) sum += x[i] * x[i];
  sum = BlockSum(sum);
  if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

__global__ void SquareRootKernel(const float* partial, float* out) {
  WaitForKernelBefore();
  float sum = 0;
  for (int i = threadIdx.x; i < kNormBlocks; i += kSumThreads) sum += partial[i];
  sum = BlockSum(sum);
  if (threadIdx.x == 0) out[0] = sqrtf(sum);
}

constexpr int kSelectBlocks = 128;  // For each row.
constexpr int kCopyBlocks = 528;    // For each copy.

template <typename T>
__device__ void CopyOverGrid(const T* __restrict__ from, T* __restrict__ to, int64_t size) {
#pragma unroll 4
  for (int64_t i = Element(); i < size; i += static_cast<int64_t>(gridDim.x) * blockDim.x) {
    to[i] = from[i];
  }
}

__global__ void __launch_bounds__(kElementThreads) CopyMemoryKernel(MemoryCopies copies) {
  WaitForKernelBefore();
  const MemoryCopy copy = copies.copies[blockIdx.y];
  const auto aligned = [](const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; };
  const int64_t quads = aligned(copy.from) && aligned(copy.to) ? copy.bytes / 16 : 0;
  CopyOverGrid(static_cast<const float4*>(copy.from), static_cast<float4*>(copy.to), quads);
  CopyOverGrid(static_cast<const char*>(copy.from) + 16 * quads,
               static_cast<char*>(copy.to) + 16 * quads, copy.bytes - 16 * quads);
}

__global__ void SelectHeadsKernel(HeadTensors tensors, const int64_t* heads) {
  WaitForKernelBefore();
  const HeadTensor tensor = tensors.tensors[blockIdx.y];
  const int64_t size = tensor.rows * tensor.cols, padded_size = tensor.rows * tensor.padded;
  const float* from = tensor.from + heads[blockIdx.z] * size;
  float* to = tensor.to + blockIdx.z * padded_size;
  if (tensor.padded != tensor.cols) {
    const int cols = static_cast<int>(tensor.cols), padded = static_cast<int>(tensor.padded);
    for (int row = blockIdx.x; row < tensor.rows; row += gridDim.x) {
#pragma unroll 4
      for (int c = threadIdx.x; c < padded; c += blockDim.x) {
        to[static_cast<int64_t>(row) * padded + c] =
            c < cols ? from[static_cast<int64_t>(row) * cols + c] : 0.0f;
      }
    }
  } else if (size % 4 == 0 && Aligned(from) && Aligned(to)) {
    CopyOverGrid(reinterpret_cast<const float4*>(from), reinterpret_cast<float4*>(to), size / 4);
  } else {
    CopyOverGrid(from, to, size);
  }
}

constexpr double kAdamBeta1 = 0.9, kAdamBeta2 = 0.999;
// 4 on each multiprocessor: half of it stays free for what runs beside this.
constexpr int kAdamBlocks = 528;

__global__ void __launch_bounds__(kElementThreads)
    AdamKernel(AdamSettings adam, const float* norm, const float* step, float4* values,
               float4* grads, float4* first, float4* second) {
  WaitForKernelBefore();
  __shared__ float shared[3];  // Factor of the gradient, step size, 1 / sqrt(bias correction 2).
  if (threadIdx.x == 0) {
    const double divisor = (static_cast<double>(*norm) + 1e-6) / adam.clip_norm;
    // A norm that is NaN must show in the parameters.
    shared[0] = static_cast<float>(divisor < 1 ? 1.0 : 1 / divisor);
    shared[1] = static_cast<float>(adam.learning_rate / (1 - pow(kAdamBeta1, *step)));
    shared[2] = static_cast<float>(1 / sqrt(1 - pow(kAdamBeta2, *step)));
  }
  __syncthreads();
  const float factor = shared[0], step_size = shared[1], correction = shared[2];
  const float epsilon = static_cast<float>(adam.epsilon);
  const auto update = [&](float& p, float& g, float& m, float& v) {
    g *= factor;
    m += static_cast<float>(1 - kAdamBeta1) * (g - m);
    v = static_cast<float>(kAdamBeta2) * v + static_cast<float>(1 - kAdamBeta2) * g * g;
    p -= step_size * m / (sqrtf(v) * correction + epsilon);
  };
  const int64_t count = adam.size / 4, stride = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = Element(); i < count; i += stride) {
    float4 p = values[i], g = grads[i], m = first[i], v = second[i];
    update(p.x, g.x, m.x, v.x);
    update(p.y, g.y, m.y, v.y);
    update(p.z, g.z, m.z, v.z);
    update(p.w, g.w, m.w, v.w);
    values[i] = p, first[i] = m, second[i] = v;
    if (factor != 1.0f) grads[i] = g;
  }
}

int Blocks(int64_t work, int64_t per_block) {
  return static_cast<int>((work + per_block - 1) / per_block);
}

// Calls f with the number of columns of each lane as a constant.
template <typename F>
void WithPerLane(int64_t cols, const F& f) {
  if (cols <= 2 * kWarp) return f(std::integral_constant<int, 2>());
  if (cols <= 4 * kWarp) return f(std::integral_constant<int, 4>());
  if (cols <= 8 * kWarp) return f(std::integral_constant<int, 8>());
  if (cols <= 16 * kWarp) return f(std::integral_constant<int, 16>());
  f(std::integral_constant<int, 32>());
}

// Of each head, in a backward with gradients of parameters.
int NormBlocks(const NormLayer& layer) {
  const int64_t most = kMaxNormBlocks / layer.heads;
  const int blocks = Blocks(layer.rows, kBackwardWarps);
  return most < 1 ? 1 : blocks < most ? blocks : static_cast<int>(most);
}

// Calls f(width, chunks, simnorm) with the constants of the norm kernels. quads: whether four
// columns at a time can be loaded of every tensor.
template <typename F>
void WithNormShape(const NormLayer& layer, bool quads, const F& f) {
  const bool simnorm = layer.activation == Activation::kSimNorm;
  quads = quads && layer.cols % 4 == 0 && Aligned(layer.bias) && Aligned(layer.gain) &&
          Aligned(layer.shift) && Aligned(layer.mask) && (!simnorm || layer.simnorm_dim % 4 == 0);
  const auto with = [&](auto width, auto chunks) {
    if (simnorm) {
      f(width, chunks, std::true_type());
    } else {
      f(width, chunks, std::false_type());
    }
  };
  constexpr std::integral_constant<int, 4> kQuad;
  constexpr std::integral_constant<int, 1> kSingle;
  if (!quads) {
    if (layer.cols <= 8 * kWarp) return with(kSingle, std::integral_constant<int, 8>());
    return with(kSingle, std::integral_constant<int, 32>());
  }
  if (layer.cols <= 4 * kWarp) return with(kQuad, std::integral_constant<int, 1>());
  if (layer.cols <= 8 * kWarp) return with(kQuad, std::integral_constant<int, 2>());
  if (layer.cols <= 16 * kWarp) return with(kQuad, std::integral_constant<int, 4>());
  with(kQuad, std::integral_constant<int, 8>());
}

template <TwoHotTask kTask>
int LaunchTwoHot(const TwoHotRows& bins, const float* logits, const float* targets,
                 int64_t num_targets, const float* grad, float* out, Stream stream) {
  if (bins.rows == 0) return 0;
  WithPerLane(bins.width, [&](auto per_lane) {
    Start(TwoHotKernel<per_lane.value, kTask>, Blocks(bins.rows, kTwoHotWarps),
          kTwoHotWarps * kWarp, 0, stream, bins, logits, targets, num_targets, grad, out);
  });
  return cudaGetLastError();
}

}  // namespace

bool Supports(int64_t cols, Activation activation, int64_t simnorm_dim) {
  const bool power_of_two = simnorm_dim > 0 && (simnorm_dim & (simnorm_dim - 1)) == 0;
  return cols <= kMaxNormCols &&
         (activation == Activation::kMish || (power_of_two && simnorm_dim <= kWarp));
}

int NormForward(const NormLayer& layer, In x, Out y, float* statistics, Stream stream) {
  const int64_t rows = layer.heads * layer.rows;
  if (rows == 0) return 0;
  const bool quads =
      Aligned(x.data, x.head_stride, x.row_stride) && Aligned(y.data, y.head_stride, y.row_stride);
  WithNormShape(layer, quads, [&](auto width, auto chunks, auto simnorm) {
    Start(NormForwardKernel<width.value, chunks.value, simnorm.value>, Blocks(rows, kForwardWarps),
          kForwardWarps * kWarp, 0, stream, layer, x, y, statistics);
  });
  return cudaGetLastError();
}

int64_t NormPartialSize(const NormLayer& layer) {
  return layer.heads * NormBlocks(layer) * 3 * layer.cols;
}

int NormBackward(const NormLayer& layer, In x, const float* statistics, In dy, Out dx,
                 float* partial, Stream stream) {
  if (layer.heads * layer.rows == 0) return 0;
  const int blocks = partial != nullptr ? NormBlocks(layer) : Blocks(layer.rows, kBackwardWarps);
  const size_t shared = partial != nullptr ? kBackwardWarps * sizeof(float) * layer.cols : 0;
  const bool quads = Aligned(x.data, x.head_stride, x.row_stride) &&
                     Aligned(dy.data, dy.head_stride, dy.row_stride) &&
                     Aligned(dx.data, dx.head_stride, dx.row_stride);
  WithNormShape(layer, quads, [&](auto width, auto chunks, auto simnorm) {
    Start(NormBackwardKernel<width.value, chunks.value, simnorm.value>,
          dim3(blocks, static_cast<int>(layer.heads)), kBackwardWarps * kWarp, shared, stream,
          layer, x, statistics, dy, dx, partial);
  });
  return cudaGetLastError();
}

int AddNormGradients(const NormLayer& layer, const float* partial, const NormGradients& gradients,
                     Stream stream) {
  if (layer.heads * layer.rows == 0) return 0;
  const int cols = static_cast<int>(layer.cols);
  Start(NormGradientKernel, dim3(Blocks(3 * cols, kWarp), static_cast<int>(layer.heads)),
        dim3(kWarp, kSumLanes), 0, stream, partial, NormBlocks(layer), cols, gradients);
  return cudaGetLastError();
}

int AddColumnSums(int64_t heads, int64_t rows, int64_t cols, In x, float* out, Stream stream) {
  if (heads * rows == 0) return 0;
  Start(ColumnSumKernel, dim3(Blocks(cols, kWarp), static_cast<int>(heads)), dim3(kWarp, kSumLanes),
        0, stream, rows, cols, x, out);
  return cudaGetLastError();
}

int JoinRows(int64_t rows, int64_t cols, int64_t more, int64_t padded, const float* a,
             const float* b, float* to, Stream stream) {
  if (rows == 0) return 0;
  Start(JoinRowsKernel, dim3(static_cast<unsigned>(rows), Blocks(padded, kJoinBlockColumns)),
        kJoinThreads, 0, stream, cols, more, padded, a, b, to);
  return cudaGetLastError();
}

int DecodeForward(const TwoHotRows& bins, const float* logits, float* out, Stream stream) {
  return LaunchTwoHot<TwoHotTask::kDecode>(bins, logits, nullptr, 1, nullptr, out, stream);
}

int DecodeBackward(const TwoHotRows& bins, const float* logits, const float* dout, float* dlogits,
                   Stream stream) {
  return LaunchTwoHot<TwoHotTask::kDecodeBackward>(bins, logits, nullptr, 1, dout, dlogits, stream);
}

int CrossEntropyForward(const TwoHotRows& bins, const float* logits, const float* targets,
                        int64_t num_targets, float* loss, Stream stream) {
  return LaunchTwoHot<TwoHotTask::kCrossEntropy>(bins, logits, targets, num_targets, nullptr, loss,
                                                 stream);
}

int CrossEntropyBackward(const TwoHotRows& bins, const float* logits, const float* targets,
                         int64_t num_targets, const float* dloss, float* dlogits, Stream stream) {
  return LaunchTwoHot<TwoHotTask::kCrossEntropyBackward>(bins, logits, targets, num_targets, dloss,
                                                         dlogits, stream);
}

int PolicyForward(const PolicyRows& rows, const float* output, float* m, float* mean,
                  float* log_std, Stream stream) {
  const int64_t size = rows.rows * rows.action_dim;
  if (size == 0) return 0;
  Start(PolicyForwardKernel, Blocks(size, kElementThreads), kElementThreads, 0, stream, rows,
        output, m, mean, log_std);
  return cudaGetLastError();
}

int PolicyBackward(const PolicyRows& rows, const float* output, const float* dm, const float* dmean,
                   const float* dlog_std, float* doutput, Stream stream) {
  const int64_t size = rows.rows * rows.action_dim;
  if (size == 0) return 0;
  Start(PolicyBackwardKernel, Blocks(size, kElementThreads), kElementThreads, 0, stream, rows,
        output, dm, dmean, dlog_std, doutput);
  return cudaGetLastError();
}

int SampleForward(int64_t size, bool squashed, const float* centre, const float* log_std,
                  const float* eps, float* action, Stream stream) {
  if (size == 0) return 0;
  Start(SampleForwardKernel, Blocks(size, kElementThreads), kElementThreads, 0, stream, size,
        squashed, centre, log_std, eps, action);
  return cudaGetLastError();
}

int SampleBackward(int64_t size, bool squashed, const float* centre, const float* log_std,
                   const float* eps, const float* daction, float* dcentre, float* dlog_std,
                   Stream stream) {
  if (size == 0) return 0;
  Start(SampleBackwardKernel, Blocks(size, kElementThreads), kElementThreads, 0, stream, size,
        squashed, centre, log_std, eps, daction, dcentre, dlog_std);
  return cudaGetLastError();
}

int LogKernelForward(int64_t rows, int64_t cols, const float* eps, const float* log_std, float* out,
                     Stream stream) {
  if (rows == 0) return 0;
  Start(LogKernelForwardKernel, Blocks(rows, kRowWarps), kRowWarps * kWarp, 0, stream, rows, cols,
        eps, log_std, out);
  return cudaGetLastError();
}

int LogKernelBackward(int64_t rows, int64_t cols, const float* eps, const float* dout, float* deps,
                      float* dlog_std, Stream stream) {
  if (rows * cols == 0) return 0;
  Start(LogKernelBackwardKernel, Blocks(rows * cols, kElementThreads), kElementThreads, 0, stream,
        rows, cols, eps, dout, deps, dlog_std);
  return cudaGetLastError();
}

int SquashCorrectionForward(int64_t rows, int64_t cols, const float* action, float* out,
                            Stream stream) {
  if (rows == 0) return 0;
  Start(SquashCorrectionForwardKernel, Blocks(rows, kRowWarps), kRowWarps * kWarp, 0, stream, rows,
        cols, action, out);
  return cudaGetLastError();
}

int SquashCorrectionBackward(int64_t rows, int64_t cols, const float* action, const float* dout,
                             float* daction, Stream stream) {
  if (rows * cols == 0) return 0;
  Start(SquashCorrectionBackwardKernel, Blocks(rows * cols, kElementThreads), kElementThreads, 0,
        stream, rows, cols, action, dout, daction);
  return cudaGetLastError();
}

int GaussianKlForward(const GaussianPairs& pairs, float* kl, Stream stream) {
  if (pairs.size == 0) return 0;
  Start(GaussianKlForwardKernel, Blocks(pairs.size, kElementThreads), kElementThreads, 0, stream,
        pairs, kl);
  return cudaGetLastError();
}

int GaussianKlBackward(const GaussianPairs& pairs, const float* dkl, const GaussianGradients& out,
                       Stream stream) {
  if (pairs.size == 0) return 0;
  Start(GaussianKlBackwardKernel, Blocks(pairs.size, kElementThreads), kElementThreads, 0, stream,
        pairs, dkl, out);
  return cudaGetLastError();
}

int64_t TimeMeanScratchSize(const TimeRows& rows) {
  return Blocks(rows.outer * rows.steps * rows.inner, kSumBlockElements);
}

int TimeMeanForward(const TimeRows& rows, const float* x, const float* y, float* out,
                    float* scratch, Stream stream) {
  const int blocks = static_cast<int>(TimeMeanScratchSize(rows));
  if (blocks <= 1) {
    Start(TimeMeanKernel, 1, kSumThreads, 0, stream, rows, x, y, out);
  } else {
    Start(TimeMeanKernel, blocks, kSumThreads, 0, stream, rows, x, y, scratch);
    Start(SumKernel, 1, kSumThreads, 0, stream, scratch, blocks, out);
  }
  return cudaGetLastError();
}

int TimeMeanBackward(const TimeRows& rows, const float* x, const float* y, const float* dout,
                     float* dx, Stream stream) {
  const int64_t size = rows.outer * rows.steps * rows.inner;
  if (size == 0) return 0;
  Start(TimeMeanBackwardKernel, Blocks(size, kElementThreads), kElementThreads, 0, stream, rows, x,
        y, dout, dx);
  return cudaGetLastError();
}

int PercentileRange(int64_t size, const float* x, float* out, Stream stream) {
  const int64_t lanes = Blocks(size * kRankLanes, kWarp) * kWarp;
  const int64_t threads = lanes < kMaxPercentileSize ? lanes : kMaxPercentileSize;
  Start(PercentileRangeKernel, 1, static_cast<int>(threads), 0, stream, static_cast<int>(size), x,
        out);
  return cudaGetLastError();
}

int Norm(int64_t size, const float* x, float* out, float* scratch, Stream stream) {
  Start(SquareSumKernel, kNormBlocks, kSumThreads, 0, stream, size, x, scratch);
  Start(SquareRootKernel, 1, kSumThreads, 0, stream, scratch, out);
  return cudaGetLastError();
}

int CopyMemory(const MemoryCopies& copies, Stream stream) {
  if (copies.count == 0) return 0;
  Start(CopyMemoryKernel, dim3(kCopyBlocks, copies.count), kElementThreads, 0, stream, copies);
  return cudaGetLastError();
}

int SelectHeads(const HeadTensors& tensors, const int64_t* heads, Stream stream) {
  Start(SelectHeadsKernel, dim3(kSelectBlocks, tensors.count, 2), kElementThreads, 0, stream,
        tensors, heads);
  return cudaGetLastError();
}

int StepAdam(const AdamSettings& adam, const float* norm, const float* step, float* values,
             float* grads, float* first_moment, float* second_moment, Stream stream) {
  if (adam.size == 0) return 0;
  const int needed = Blocks(adam.size, 4 * kElementThreads);
  const int blocks = needed < kAdamBlocks ? needed : kAdamBlocks;
  Start(AdamKernel, blocks, kElementThreads, 0, stream, adam, norm, step,
        reinterpret_cast<float4*>(values), reinterpret_cast<float4*>(grads),
        reinterpret_cast<float4*>(first_moment), reinterpret_cast<float4*>(second_moment));
  return cudaGetLastError();
}

}  // namespace pompc::gpu
