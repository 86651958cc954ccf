// The devices that models compute on.
#ifndef POMPC_COMMON_MODEL_DEVICE_H_
#define POMPC_COMMON_MODEL_DEVICE_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "common/model/tensor.h"
#include "proto/pompc/v1/config.pb.h"

namespace pompc {

// name: "cpu", "cuda" or "cuda:1". INVALID_ARGUMENT, naming the config `field`: no such name, or
// this build or machine does not have the device. UNAVAILABLE: a GPU that is there cannot be used,
// e.g. because its memory is full. Thread-safe.
absl::StatusOr<at::Device> FindDevice(const std::string& field, const std::string& name);

// Memory of a GPU that LibTorch holds in this process; all 0 for the CPU. Does not wait for the
// GPU. Thread-safe.
struct DeviceMemory {
  int64_t allocated_bytes = 0;  // In tensors.
  int64_t reserved_bytes = 0;   // Allocated, or kept for tensors to come.
};
DeviceMemory MemoryOf(at::Device device);

// On how many threads of the CPU LibTorch computes for the calling thread, from now on; count > 0.
// Threads that never say so get the count that was set last, by any thread, before LibTorch first
// computed for them.
void SetCpuThreads(int count);

// How float32 matrices are multiplied on GPUs, by LibTorch everywhere in this process, from now on:
// FP32, or else TF32. (bfloat16 takes tensors of that type.)
void SetFloat32Products(v1::MatmulPrecision precision);

// Gives up to 32 streams of this process hardware queues of their own on GPUs, unless
// CUDA_DEVICE_MAX_CONNECTIONS says how many. With CUDA's 8, the branches of updates and plans share
// queues and wait for each other. Call it before the GPU's first use, in the process's only thread.
void SeparateStreams();

// Makes the process keep the memory that it frees, from now on: updates on a CPU free tensors of
// many megabytes and ask for them again, and the kernel clears every page that it hands out.
void KeepFreedMemory();

}  // namespace pompc

#endif  // POMPC_COMMON_MODEL_DEVICE_H_
