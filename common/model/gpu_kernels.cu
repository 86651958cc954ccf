#include <cuda_runtime.h>

#include <type_traits>

#include "common/model/gpu_kernels.h"

namespace pompc::gpu {
namespace {

constexpr float kEpsilon = 1e-5f;
constexpr int kWarp = 32;
constexpr unsigned kAll = 0xffffffffu;
constexpr int kNormWarps = 8;       // A block of the norm kernels; each warp takes whole rows.
constexpr int kMaxNormBlocks = 64;  // Of one head, in the backward: partial sums to add up.
constexpr int kTwoHotWarps = 4;

__device__ float WarpSum(float v) {
  for (int o = 16; o > 0; o >>= 1) v += __shfl_xor_sync(kAll, v, o);
  return v;
}
__device__ float WarpMax(float v) {
  for (int o = 16; o > 0; o >>= 1) v = fmaxf(v, __shfl_xor_sync(kAll, v, o));
  return v;
}
// Over groups of `dim` neighbouring lanes.
__device__ float GroupSum(float v, int dim) {
  for (int o = dim / 2; o > 0; o >>= 1) v += __shfl_xor_sync(kAll, v, o);
  return v;
}
__device__ float GroupMax(float v, int dim) {
  for (int o = dim / 2; o > 0; o >>= 1) v = fmaxf(v, __shfl_xor_sync(kAll, v, o));
  return v;
}

// tanh(softplus(x)), by which Mish multiplies x.
__device__ float MishGate(float x) {
  const float e = expf(fminf(x, 20.0f));
  const float n = e * (e + 2.0f);
  return x > 20.0f ? 1.0f : n / (n + 2.0f);
}
__device__ float MishSlope(float x) {
  const float w = MishGate(x);
  const float sigmoid = 1.0f / (1.0f + expf(-x));
  return w + x * (1.0f - w * w) * sigmoid;
}

// Lane l of the warp that has a row holds its columns l, l + 32, ...
template <int kPerLane>
struct NormRow {
  float normed[kPerLane];  // (t - mean) / std
  float mean, rstd;

  __device__ void LoadPre(const NormLayer& layer, const In& x, int64_t head, int64_t row,
                          int lane) {
    const float* source = x.data + head * x.head_stride + row * x.row_stride;
    const float* bias = layer.bias + head * layer.cols;
    const float* mask =
        layer.mask == nullptr ? nullptr : layer.mask + (head * layer.rows + row) * layer.cols;
#pragma unroll
    for (int i = 0; i < kPerLane; ++i) {
      const int c = lane + i * kWarp;
      normed[i] = c < layer.cols ? source[c] + bias[c] : 0.0f;
      if (mask != nullptr && c < layer.cols) normed[i] *= mask[c];
    }
  }
  __device__ void ComputeStatistics(int cols, int lane) {
    float sum = 0;
#pragma unroll
    for (int i = 0; i < kPerLane; ++i) sum += normed[i];  // 0 beyond the last column.
    mean = WarpSum(sum) / static_cast<float>(cols);
    float square = 0;
#pragma unroll
    for (int i = 0; i < kPerLane; ++i) {
      const float d = lane + i * kWarp < cols ? normed[i] - mean : 0.0f;
      square += d * d;
    }
    rstd = 1.0f / sqrtf(WarpSum(square) / static_cast<float>(cols) + kEpsilon);
  }
  __device__ void Normalise() {
#pragma unroll
    for (int i = 0; i < kPerLane; ++i) normed[i] = (normed[i] - mean) * rstd;
  }
};

template <int kPerLane>
__global__ void NormForwardKernel(NormLayer layer, In x, Out y, float* statistics) {
  const int lane = threadIdx.x % kWarp;
  const int64_t index = static_cast<int64_t>(blockIdx.x) * kNormWarps + threadIdx.x / kWarp;
  if (index >= layer.heads * layer.rows) return;
  const int64_t head = index / layer.rows, row = index % layer.rows;
  NormRow<kPerLane> r;
  r.LoadPre(layer, x, head, row, lane);
  r.ComputeStatistics(static_cast<int>(layer.cols), lane);
  r.Normalise();
  if (statistics != nullptr && lane == 0) {
    statistics[2 * index] = r.mean;
    statistics[2 * index + 1] = r.rstd;
  }
  float* out = y.data + head * y.head_stride + row * y.row_stride;
  const float* gain = layer.gain + head * layer.cols;
  const float* shift = layer.shift + head * layer.cols;
  const int dim = static_cast<int>(layer.simnorm_dim);
#pragma unroll
  for (int i = 0; i < kPerLane; ++i) {
    const int c = lane + i * kWarp;
    const bool inside = c < layer.cols;
    const float v = inside ? r.normed[i] * gain[c] + shift[c] : 0.0f;
    float result;
    if (layer.activation == Activation::kMish) {
      result = v * MishGate(v);
    } else {
      const float e = expf(v - GroupMax(v, dim));
      result = e / GroupSum(e, dim);
    }
    if (inside) out[c] = result;
  }
}

// Block b of a head takes every gridDim.x-th group of rows and leaves the sums of its rows'
// parameter gradients in partial[head][b][dbias, dgain, dshift][cols].
template <int kPerLane>
__global__ void NormBackwardKernel(NormLayer layer, In x, const float* statistics, In dy, Out dx,
                                   float* partial) {
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const int cols = static_cast<int>(layer.cols);
  const int64_t head = blockIdx.y;
  const float* gain = layer.gain + head * cols;
  const float* shift = layer.shift + head * cols;
  const int dim = static_cast<int>(layer.simnorm_dim);
  float dbias[kPerLane], dgain[kPerLane], dshift[kPerLane];
#pragma unroll
  for (int i = 0; i < kPerLane; ++i) dbias[i] = dgain[i] = dshift[i] = 0.0f;

  for (int64_t row = static_cast<int64_t>(blockIdx.x) * kNormWarps + warp; row < layer.rows;
       row += static_cast<int64_t>(gridDim.x) * kNormWarps) {
    const int64_t index = head * layer.rows + row;
    NormRow<kPerLane> r;
    r.LoadPre(layer, x, head, row, lane);
    r.mean = statistics[2 * index];
    r.rstd = statistics[2 * index + 1];
    r.Normalise();
    const float* grad = dy.data + head * dy.head_stride + row * dy.row_stride;
    float d[kPerLane];  // d loss / d normed
    float sum = 0, dot = 0;
#pragma unroll
    for (int i = 0; i < kPerLane; ++i) {
      const int c = lane + i * kWarp;
      const bool inside = c < cols;
      const float v = inside ? r.normed[i] * gain[c] + shift[c] : 0.0f;
      const float g = inside ? grad[c] : 0.0f;
      float dv;
      if (layer.activation == Activation::kMish) {
        dv = g * MishSlope(v);
      } else {
        const float e = expf(v - GroupMax(v, dim));
        const float p = e / GroupSum(e, dim);
        dv = p * (g - GroupSum(g * p, dim));
      }
      if (!inside) dv = 0.0f;
      dgain[i] += inside ? dv * r.normed[i] : 0.0f;
      dshift[i] += dv;
      d[i] = inside ? dv * gain[c] : 0.0f;
      sum += d[i];
      dot += inside ? d[i] * r.normed[i] : 0.0f;
    }
    const float mean_d = WarpSum(sum) / static_cast<float>(cols);
    const float mean_dot = WarpSum(dot) / static_cast<float>(cols);
    float* out = dx.data + head * dx.head_stride + row * dx.row_stride;
    const float* mask = layer.mask == nullptr ? nullptr : layer.mask + index * cols;
#pragma unroll
    for (int i = 0; i < kPerLane; ++i) {
      const int c = lane + i * kWarp;
      if (c >= cols) continue;
      float t = r.rstd * (d[i] - mean_d - r.normed[i] * mean_dot);
      if (mask != nullptr) t *= mask[c];
      out[c] = t;
      dbias[i] += t;
    }
  }
  if (partial == nullptr) return;

  extern __shared__ float sums[];  // [3][cols], filled by one warp after the other.
  for (int w = 0; w < kNormWarps; ++w) {
    if (w == warp) {
#pragma unroll
      for (int i = 0; i < kPerLane; ++i) {
        const int c = lane + i * kWarp;
        if (c >= cols) continue;
        sums[c] = (w == 0 ? 0.0f : sums[c]) + dbias[i];
        sums[cols + c] = (w == 0 ? 0.0f : sums[cols + c]) + dgain[i];
        sums[2 * cols + c] = (w == 0 ? 0.0f : sums[2 * cols + c]) + dshift[i];
      }
    }
    __syncthreads();
  }
  float* out = partial + (head * gridDim.x + blockIdx.x) * 3 * cols;
  for (int c = threadIdx.x; c < 3 * cols; c += blockDim.x) out[c] = sums[c];
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
  const int c = blockIdx.x * kWarp + threadIdx.x;
  const int64_t head = blockIdx.y;
  const float sum =
      BlockColumnSum(partial + head * blocks * 3 * cols, blocks, 3 * cols, c, c < 3 * cols);
  if (threadIdx.y != 0 || c >= 3 * cols) return;
  float* const target = c < cols ? out.bias : c < 2 * cols ? out.gain : out.shift;
  target[head * cols + c % cols] += sum;
}

__global__ void ColumnSumKernel(int64_t rows, int64_t cols, In x, float* out) {
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
  const int lane = threadIdx.x % kWarp;
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kTwoHotWarps + threadIdx.x / kWarp;
  if (row >= bins.rows) return;
  const int size = static_cast<int>(bins.size);
  const float low = static_cast<float>(bins.min), high = static_cast<float>(bins.max);
  const float step = static_cast<float>((bins.max - bins.min) / static_cast<double>(size - 1));
  const float* l = logits + row * size;
  SoftmaxRow<kPerLane> s;
  s.Load(bins, l, low, step, lane);
  if constexpr (kTask == TwoHotTask::kDecode) {
    if (lane == 0) out[row] = copysignf(expf(fabsf(s.expectation)) - 1.0f, s.expectation);
  } else if constexpr (kTask == TwoHotTask::kDecodeBackward) {
    const float scale = grad[row] * expf(fabsf(s.expectation)) / s.sum;
#pragma unroll
    for (int i = 0; i < kPerLane; ++i) {
      const int k = lane + i * kWarp;
      if (k < size) {
        out[row * size + k] = scale * s.e[i] * (low + step * static_cast<float>(k) - s.expectation);
      }
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
        if (k >= size) continue;
        float d = scale * s.e[i];
        if (k == hot.lower) d -= g * (1.0f - hot.weight);
        if (k == hot.upper) d -= g * hot.weight;
        out[row * size + k] = d;
      }
    }
  }
}

constexpr int kElementThreads = 256;  // A block of the elementwise kernels.

__device__ int64_t Element() { return static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; }

__global__ void PolicyForwardKernel(PolicyRows rows, const float* output, float* m, float* mean,
                                    float* log_std) {
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
  const int64_t i = Element();
  if (i >= size) return;
  const float u = centre[i] + eps[i] * expf(log_std[i]);
  // As LibTorch's clamp, NaN stays NaN.
  action[i] = squashed ? tanhf(u) : u < -1.0f ? -1.0f : u > 1.0f ? 1.0f : u;
}

__global__ void SampleBackwardKernel(int64_t size, bool squashed, const float* centre,
                                     const float* log_std, const float* eps, const float* daction,
                                     float* dcentre, float* dlog_std) {
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
  float sum = 0;
  for (int i = threadIdx.x; i < count; i += kSumThreads) sum += x[i];
  sum = BlockSum(sum);
  if (threadIdx.x == 0) out[0] = sum;
}

__global__ void TimeMeanBackwardKernel(TimeRows rows, const float* x, const float* y,
                                       const float* dout, float* dx) {
  const int64_t i = Element();
  if (i >= rows.outer * rows.steps * rows.inner) return;
  const float d = dout[0] * TimeWeight(rows, i);
  dx[i] = y != nullptr ? 2.0f * (x[i] - y[i]) * d : d;
}

constexpr int kSelectBlocks = 64;  // For each row.

__global__ void SelectHeadsKernel(HeadTensors tensors, const int64_t* heads) {
  const HeadTensor tensor = tensors.tensors[blockIdx.y];
  const float* from = tensor.from + heads[blockIdx.z] * tensor.size;
  float* to = tensor.to + blockIdx.z * tensor.size;
  for (int64_t i = Element(); i < tensor.size; i += static_cast<int64_t>(gridDim.x) * blockDim.x) {
    to[i] = from[i];
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

int NormBlocks(const NormLayer& layer) {
  const int blocks = Blocks(layer.rows, kNormWarps);
  return blocks < kMaxNormBlocks ? blocks : kMaxNormBlocks;
}

template <TwoHotTask kTask>
int LaunchTwoHot(const TwoHotRows& bins, const float* logits, const float* targets,
                 int64_t num_targets, const float* grad, float* out, Stream stream) {
  if (bins.rows == 0) return 0;
  WithPerLane(bins.size, [&](auto per_lane) {
    TwoHotKernel<per_lane.value, kTask>
        <<<Blocks(bins.rows, kTwoHotWarps), kTwoHotWarps * kWarp, 0, stream>>>(
            bins, logits, targets, num_targets, grad, out);
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
  WithPerLane(layer.cols, [&](auto per_lane) {
    NormForwardKernel<per_lane.value>
        <<<Blocks(rows, kNormWarps), kNormWarps * kWarp, 0, stream>>>(layer, x, y, statistics);
  });
  return cudaGetLastError();
}

int64_t NormScratchSize(const NormLayer& layer) {
  return layer.heads * NormBlocks(layer) * 3 * layer.cols;
}

int NormBackward(const NormLayer& layer, In x, const float* statistics, In dy, Out dx,
                 const NormGradients* gradients, float* scratch, Stream stream) {
  if (layer.heads * layer.rows == 0) return 0;
  const int cols = static_cast<int>(layer.cols), heads = static_cast<int>(layer.heads);
  const int blocks = gradients != nullptr ? NormBlocks(layer) : Blocks(layer.rows, kNormWarps);
  float* const partial = gradients != nullptr ? scratch : nullptr;
  const size_t shared = gradients != nullptr ? 3 * sizeof(float) * layer.cols : 0;
  WithPerLane(layer.cols, [&](auto per_lane) {
    NormBackwardKernel<per_lane.value><<<dim3(blocks, heads), kNormWarps * kWarp, shared, stream>>>(
        layer, x, statistics, dy, dx, partial);
  });
  if (gradients != nullptr) {
    NormGradientKernel<<<dim3(Blocks(3 * cols, kWarp), heads), dim3(kWarp, kSumLanes), 0, stream>>>(
        scratch, blocks, cols, *gradients);
  }
  return cudaGetLastError();
}

int AddColumnSums(int64_t heads, int64_t rows, int64_t cols, In x, float* out, Stream stream) {
  if (heads * rows == 0) return 0;
  ColumnSumKernel<<<dim3(Blocks(cols, kWarp), static_cast<int>(heads)), dim3(kWarp, kSumLanes), 0,
                    stream>>>(rows, cols, x, out);
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
  PolicyForwardKernel<<<Blocks(size, kElementThreads), kElementThreads, 0, stream>>>(
      rows, output, m, mean, log_std);
  return cudaGetLastError();
}

int PolicyBackward(const PolicyRows& rows, const float* output, const float* dm, const float* dmean,
                   const float* dlog_std, float* doutput, Stream stream) {
  const int64_t size = rows.rows * rows.action_dim;
  if (size == 0) return 0;
  PolicyBackwardKernel<<<Blocks(size, kElementThreads), kElementThreads, 0, stream>>>(
      rows, output, dm, dmean, dlog_std, doutput);
  return cudaGetLastError();
}

int SampleForward(int64_t size, bool squashed, const float* centre, const float* log_std,
                  const float* eps, float* action, Stream stream) {
  if (size == 0) return 0;
  SampleForwardKernel<<<Blocks(size, kElementThreads), kElementThreads, 0, stream>>>(
      size, squashed, centre, log_std, eps, action);
  return cudaGetLastError();
}

int SampleBackward(int64_t size, bool squashed, const float* centre, const float* log_std,
                   const float* eps, const float* daction, float* dcentre, float* dlog_std,
                   Stream stream) {
  if (size == 0) return 0;
  SampleBackwardKernel<<<Blocks(size, kElementThreads), kElementThreads, 0, stream>>>(
      size, squashed, centre, log_std, eps, daction, dcentre, dlog_std);
  return cudaGetLastError();
}

int64_t TimeMeanScratchSize(const TimeRows& rows) {
  return Blocks(rows.outer * rows.steps * rows.inner, kSumBlockElements);
}

int TimeMeanForward(const TimeRows& rows, const float* x, const float* y, float* out,
                    float* scratch, Stream stream) {
  const int blocks = static_cast<int>(TimeMeanScratchSize(rows));
  if (blocks <= 1) {
    TimeMeanKernel<<<1, kSumThreads, 0, stream>>>(rows, x, y, out);
  } else {
    TimeMeanKernel<<<blocks, kSumThreads, 0, stream>>>(rows, x, y, scratch);
    SumKernel<<<1, kSumThreads, 0, stream>>>(scratch, blocks, out);
  }
  return cudaGetLastError();
}

int TimeMeanBackward(const TimeRows& rows, const float* x, const float* y, const float* dout,
                     float* dx, Stream stream) {
  const int64_t size = rows.outer * rows.steps * rows.inner;
  if (size == 0) return 0;
  TimeMeanBackwardKernel<<<Blocks(size, kElementThreads), kElementThreads, 0, stream>>>(rows, x, y,
                                                                                        dout, dx);
  return cudaGetLastError();
}

int SelectHeads(const HeadTensors& tensors, const int64_t* heads, Stream stream) {
  SelectHeadsKernel<<<dim3(kSelectBlocks, tensors.count, 2), kElementThreads, 0, stream>>>(tensors,
                                                                                           heads);
  return cudaGetLastError();
}

}  // namespace pompc::gpu
