// Values of plan_kernels.h: what two-hot logits mean, and the value heads of an iteration.
#include "common/model/launch.cuh"
#include "common/planner/plan_device.cuh"
#include "common/planner/plan_kernels.h"

namespace pompc {
namespace {

constexpr int kMaxRowBlocks = 132 * 16;  // Then warps take several rows.

// A warp takes a row.
__global__ void __launch_bounds__(kThreads) DecodeKernel(const DecodeArgs a) {
  WaitForKernelBefore();
  constexpr int kEach = kMaxBins / 32;
  const int lane = threadIdx.x % 32;
  const float width = (a.bin_max - a.bin_min) / static_cast<float>(a.bins - 1);
  for (int row = blockIdx.x * kWarps + threadIdx.x / 32; row < a.rows; row += gridDim.x * kWarps) {
    float sum = 0, weight = a.scale;
    for (int term = 0; term < a.terms; ++term) {
      const float* logits = a.logits + (static_cast<int64_t>(term) * a.rows + row) * a.stride;
      const float* bias = a.bias + term * a.bias_stride;
      float x[kEach];
      float largest = -INFINITY;
#pragma unroll
      for (int i = 0; i < kEach; ++i) {
        const int bin = i * 32 + lane;
        x[i] = bin < a.bins ? logits[bin] + bias[bin] : -INFINITY;
        largest = fmaxf(largest, x[i]);
      }
      largest = WarpMax(largest);
      float total = 0, weighted = 0;
#pragma unroll
      for (int i = 0; i < kEach; ++i) {
        if (i * 32 + lane >= a.bins) continue;
        const float e = __expf(x[i] - largest);
        total += e;
        weighted += e * (a.bin_min + width * static_cast<float>(i * 32 + lane));
      }
      const float symlog = WarpSum(weighted) / WarpSum(total);
      sum += weight * copysignf(expf(fabsf(symlog)) - 1.0f, symlog);
      weight *= a.ratio;
    }
    if (lane == 0) {
      const int to = Map(a.to, row);
      a.out[to] = sum + (a.base != nullptr ? a.base[to] : 0.0f);
    }
  }
}

__global__ void GatherKernel(const HeadsArgs a) {
  WaitForKernelBefore();
  const uint4 bits = Draw(a.control->seed, kHeads, a.iteration, 0, 0);
  const uint32_t first = bits.x % a.heads, other = bits.y % (a.heads - 1);
  const int64_t size = a.bytes / 16;
  const int64_t head = blockIdx.y == 0 ? first : (other < first ? other : other + 1);
  const uint4* from = static_cast<const uint4*>(a.source) + head * size;
  uint4* to = static_cast<uint4*>(a.out) + blockIdx.y * size;
  for (int64_t i = blockIdx.x * blockDim.x + threadIdx.x; i < size; i += gridDim.x * blockDim.x) {
    to[i] = from[i];
  }
}

}  // namespace

cudaError_t DecodeSum(const DecodeArgs& args, cudaStream_t stream) {
  return Start(DecodeKernel, min(Blocks(args.rows, kWarps), kMaxRowBlocks), kThreads, 0, stream,
               args);
}

cudaError_t GatherHeads(const HeadsArgs& args, cudaStream_t stream) {
  return Start(GatherKernel, dim3(min(Blocks(args.bytes / 16, kElementThreads), 132), 2),
               kElementThreads, 0, stream, args);
}

}  // namespace pompc
