// Reductions of a whole tensor to one number (gpu_kernels.h): means over time, percentiles, norms.
#include <cstdint>

#include "common/model/gpu_device.cuh"
#include "common/model/gpu_kernels.h"
#include "common/model/launch.cuh"

namespace pompc::gpu {
namespace {

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

}  // namespace

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

}  // namespace pompc::gpu
