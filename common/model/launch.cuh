// Starting kernels so that each is set up while the one before it on the stream still runs
// (programmatic dependent launch), where a graph is recorded on a Hopper GPU. For .cu files.
#ifndef POMPC_COMMON_MODEL_LAUNCH_CUH_
#define POMPC_COMMON_MODEL_LAUNCH_CUH_

#include <cuda_runtime.h>

#include "common/model/launch.h"

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

inline cudaLaunchAttribute ClusterOf(int blocks) {
  cudaLaunchAttribute attribute = {};
  attribute.id = cudaLaunchAttributeClusterDimension;
  attribute.val.clusterDim = {static_cast<unsigned>(blocks), 1, 1};
  return attribute;
}

// Starts a kernel that calls WaitForKernelBefore(), in clusters of that many neighbouring blocks if
// cluster > 1. Returns an error, which cudaGetLastError() says too, if it was not started: a graph
// that is recorded then lacks it.
template <typename... Parameters, typename... Args>
cudaError_t StartClusters(void (*kernel)(Parameters...), int cluster, dim3 blocks, dim3 threads,
                          size_t shared_bytes, cudaStream_t stream, const Args&... args) {
  cudaLaunchAttribute attributes[2] = {};
  cudaLaunchConfig_t config = {};
  config.gridDim = blocks;
  config.blockDim = threads;
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  config.attrs = attributes;
  if (!LateLaunchScope::late() && FollowsOneKernel(stream) && OnHopper()) {
    cudaLaunchAttribute& early = attributes[config.numAttrs++];
    early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    early.val.programmaticStreamSerializationAllowed = 1;
  }
  if (cluster > 1) attributes[config.numAttrs++] = ClusterOf(cluster);
  return cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(args)...);
}

// The same without clusters.
template <typename... Parameters, typename... Args>
cudaError_t Start(void (*kernel)(Parameters...), dim3 blocks, dim3 threads, size_t shared_bytes,
                  cudaStream_t stream, const Args&... args) {
  return StartClusters(kernel, 1, blocks, threads, shared_bytes, stream, args...);
}

// How many such clusters the device has room for at once; 0 if it cannot say.
template <typename... Parameters>
int MaxClusters(void (*kernel)(Parameters...), int cluster, dim3 threads, size_t shared_bytes) {
  cudaLaunchAttribute attribute = ClusterOf(cluster);
  cudaLaunchConfig_t config = {};
  config.gridDim = cluster;
  config.blockDim = threads;
  config.dynamicSmemBytes = shared_bytes;
  config.attrs = &attribute;
  config.numAttrs = 1;
  int count = 0;
  if (cudaOccupancyMaxActiveClusters(&count, kernel, &config) == cudaSuccess) return count;
  cudaGetLastError();  // Whoever asks next shall not find it.
  return 0;
}

}  // namespace pompc

#endif  // POMPC_COMMON_MODEL_LAUNCH_CUH_
