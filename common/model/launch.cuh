// Starting kernels so that each is set up while the one before it on the stream still runs
// (programmatic dependent launch), where a graph is recorded on a Hopper GPU. For .cu files.
#ifndef POMPC_COMMON_MODEL_LAUNCH_CUH_
#define POMPC_COMMON_MODEL_LAUNCH_CUH_

#include <cuda_runtime.h>

namespace pompc {

// Comes before a kernel touches memory, in a warp of each block at least: from here on the kernel
// before it has finished, and so have those before that one; and the next one may be set up. Only
// what is built for Hopper has this.
inline __device__ void WaitForKernelBefore() {
#if __CUDA_ARCH__ == 900
  cudaGridDependencySynchronize();
  cudaTriggerProgrammaticLaunchCompletion();
#endif
}

inline bool OnHopper() {
  int device = 0, major = 0;
  return cudaGetDevice(&device) == cudaSuccess &&
         cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) == cudaSuccess &&
         major == 9;
}

// Whether what is started next on `stream` waits for one kernel alone, in a graph that is recorded.
inline bool FollowsOneKernel(cudaStream_t stream) {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  const cudaGraphNode_t* nodes = nullptr;
  const cudaGraphEdgeData* edges = nullptr;
  size_t count = 0;
  cudaGraphNodeType type;
  return cudaStreamGetCaptureInfo(stream, &status, nullptr, nullptr, &nodes, &edges, &count) ==
             cudaSuccess &&
         status == cudaStreamCaptureStatusActive && count == 1 &&
         cudaGraphNodeGetType(nodes[0], &type) == cudaSuccess && type == cudaGraphNodeTypeKernel;
}

// Starts a kernel that calls WaitForKernelBefore(). An error is left to cudaGetLastError().
template <typename... Parameters, typename... Args>
void Start(void (*kernel)(Parameters...), dim3 blocks, dim3 threads, size_t shared_bytes,
           cudaStream_t stream, const Args&... args) {
  cudaLaunchAttribute early = {};
  early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  early.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = blocks;
  config.blockDim = threads;
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  config.attrs = &early;
  config.numAttrs = FollowsOneKernel(stream) && OnHopper() ? 1 : 0;
  cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(args)...);
}

}  // namespace pompc

#endif  // POMPC_COMMON_MODEL_LAUNCH_CUH_
