// What the kernels of gpu_kernels.h share on the device: sums of a warp, numbers of elements and
// blocks. For .cu files.
#ifndef POMPC_COMMON_MODEL_GPU_DEVICE_CUH_
#define POMPC_COMMON_MODEL_GPU_DEVICE_CUH_

#include <cuda_runtime.h>

#include <cstdint>

namespace pompc::gpu {

inline constexpr int kWarp = 32;
inline constexpr unsigned kAll = 0xffffffffu;
inline constexpr int kElementThreads = 256;  // A block of the elementwise kernels.

// Whether four columns of every row can be loaded at once.
inline __host__ __device__ bool Aligned(const float* data, int64_t head_stride = 0,
                                        int64_t row_stride = 0) {
  return reinterpret_cast<uintptr_t>(data) % 16 == 0 && head_stride % 4 == 0 && row_stride % 4 == 0;
}

inline __device__ float WarpSum(float v) {
  for (int o = 16; o > 0; o >>= 1) v += __shfl_xor_sync(kAll, v, o);
  return v;
}
inline __device__ float WarpMax(float v) {
  for (int o = 16; o > 0; o >>= 1) v = fmaxf(v, __shfl_xor_sync(kAll, v, o));
  return v;
}

inline __device__ int64_t Element() {
  return static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
}

inline int Blocks(int64_t work, int64_t per_block) {
  return static_cast<int>((work + per_block - 1) / per_block);
}

}  // namespace pompc::gpu

#endif  // POMPC_COMMON_MODEL_GPU_DEVICE_CUH_
