// What layers need besides their products (gpu_kernels.h): LayerNorm with its activation, sums of
// columns, rows side by side.
#include <cstdint>
#include <type_traits>

#include "common/model/gpu_device.cuh"
#include "common/model/gpu_kernels.h"
#include "common/model/launch.cuh"

namespace pompc::gpu {
namespace {

constexpr float kEpsilon = 1e-5f;
constexpr int kForwardWarps = 4;  // A block of the norm kernels; each warp takes whole rows.
constexpr int kBackwardWarps = 8;
constexpr int kMaxNormBlocks = 264;  // Of a backward with sums to add up: 2 a multiprocessor.

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

}  // namespace pompc::gpu
