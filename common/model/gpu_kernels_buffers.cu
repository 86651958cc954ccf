// Whole buffers (gpu_kernels.h): copies, heads picked from an ensemble, a step of Adam.
#include <cstdint>

#include "common/model/gpu_device.cuh"
#include "common/model/gpu_kernels.h"
#include "common/model/launch.cuh"

namespace pompc::gpu {
namespace {

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

}  // namespace

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
