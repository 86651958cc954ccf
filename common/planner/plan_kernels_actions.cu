// Actions of plan_kernels.h: the first mean and std, candidates drawn from them, and what policy
// networks propose.
#include <cuda_bf16.h>

#include "common/model/launch.cuh"
#include "common/planner/plan_device.cuh"
#include "common/planner/plan_kernels.h"

namespace pompc {
namespace {

__global__ void BeginKernel(const BeginArgs a) {
  WaitForKernelBefore();
  const int size = a.horizon * a.action;
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < 2) a.counts[i] = 0;
  if (i >= a.observations * size) return;
  const bool has_next = i % size + a.action < size;
  const bool warm = a.control->warm != 0 && a.reset[i / size] == 0;
  a.mean[i] = warm && has_next ? a.previous[i + a.action] : 0.0f;
  a.std[i] = a.max_std;
}

// Two neighbours, the second only if `both`; one access if they are `aligned`.
__device__ float2 LoadPair(const float* p, bool aligned, bool both) {
  if (aligned) return *reinterpret_cast<const float2*>(p);
  return make_float2(p[0], both ? p[1] : 0.0f);
}
__device__ void StorePair(float* p, bool aligned, bool both, float2 x) {
  if (aligned) {
    *reinterpret_cast<float2*>(p) = x;
  } else {
    p[0] = x.x;
    if (both) p[1] = x.y;
  }
}

// A thread draws four dimensions of one action; a row of blocks all of an observation.
template <typename T>
__global__ void SampleKernel(const SampleArgs a) {
  WaitForKernelBefore();
  const int quads = (a.action + 3) / 4, candidates = a.sequences - a.proposals;
  const int i = blockIdx.x * blockDim.x + threadIdx.x;  // Of [candidates, horizon, quads].
  if (i >= candidates * a.horizon * quads) return;
  const int d = i % quads * 4, step = i / quads % a.horizon, candidate = i / quads / a.horizon;
  const int observation = a.first_observation + blockIdx.y;
  const float4 eps4 = Normal4(a.control->seed, kCandidate, a.iteration, observation, i);
  const float eps[4] = {eps4.x, eps4.y, eps4.z, eps4.w};
  const int moment = (observation * a.horizon + step) * a.action + d;
  float* exact =
      a.out.exact +
      ((static_cast<int64_t>(observation) * a.sequences + a.proposals + candidate) * a.horizon +
       step) *
          a.action +
      d;
  const bool aligned = a.action % 2 == 0;
  float value[4] = {};
#pragma unroll
  for (int j = 0; j < 4; j += 2) {
    if (d + j >= a.action) break;
    const bool both = d + j + 1 < a.action;
    const float2 mean = LoadPair(a.mean + moment + j, aligned, both);
    const float2 std = LoadPair(a.std + moment + j, aligned, both);
    value[j] = ClampToUnit(mean.x + std.x * eps[j]);
    if (both) value[j + 1] = ClampToUnit(mean.y + std.y * eps[j + 1]);
    StorePair(exact + j, aligned, both, make_float2(value[j], value[j + 1]));
  }
  const int64_t row = static_cast<int64_t>(blockIdx.y) * candidates + candidate;
  const int64_t rows = static_cast<int64_t>(a.observations) * candidates;
  StoreFour(step == 0 ? static_cast<T*>(a.out.first) + row * a.out.first_stride + d
                      : static_cast<T*>(a.out.later) +
                            ((step - 1) * rows + row) * a.out.later_stride + a.latent + d,
            value);
}

template <typename T>
__global__ void PolicyKernel(const PolicyArgs a) {
  WaitForKernelBefore();
  const int quads = (a.action + 3) / 4;
  const float low = a.proposal ? a.control->proposal_log_std_min : a.log_std_min;
  const float high = a.proposal ? a.control->proposal_log_std_max : a.log_std_max;
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < a.rows * quads;
       i += gridDim.x * blockDim.x) {
    const int d = i % quads * 4, row = i / quads;
    const int local = row % a.rows_per_observation;
    const float4 eps4 = Normal4(a.control->seed, a.proposal ? kProposal : kTerminal, a.iteration,
                                a.first_observation + row / a.rows_per_observation,
                                (a.step * a.rows_per_observation + local) * quads + i % quads);
    const float eps[4] = {eps4.x, eps4.y, eps4.z, eps4.w};
    const float* output = a.output + row / a.rows_per_output * a.output_stride;
    T* to = static_cast<T*>(a.to) + row * a.to_stride;
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int c = d + j;
      if (c >= a.action) break;
      const float m = output[c] + a.bias[c];
      const float raw = output[a.action + c] + a.bias[a.action + c];
      const float noise = eps[j] * expf(low + 0.5f * (high - low) * (tanhf(raw) + 1.0f));
      const float action = a.squashed ? tanhf(m + noise) : ClampToUnit(tanhf(m) + noise);
      StoreOne(to + c, action);
      if (a.exact != nullptr) a.exact[Map(a.exact_rows, row) * a.exact_stride + c] = action;
    }
  }
}

}  // namespace

cudaError_t BeginPlan(const BeginArgs& args, cudaStream_t stream) {
  const int64_t count = static_cast<int64_t>(args.observations) * args.horizon * args.action;
  return Start(BeginKernel, Blocks(count < 2 ? 2 : count, kElementThreads), kElementThreads, 0,
               stream, args);
}

cudaError_t SampleCandidates(const SampleArgs& args, cudaStream_t stream) {
  const int64_t count = static_cast<int64_t>(args.sequences - args.proposals) * args.horizon *
                        ((args.action + 3) / 4);
  return Start(args.out.bfloat16 ? SampleKernel<__nv_bfloat16> : SampleKernel<float>,
               dim3(Blocks(count, kElementThreads), args.observations), kElementThreads, 0, stream,
               args);
}

cudaError_t DrawPolicyActions(const PolicyArgs& args, cudaStream_t stream) {
  const int64_t count = static_cast<int64_t>(args.rows) * ((args.action + 3) / 4);
  return Start(args.bfloat16 ? PolicyKernel<__nv_bfloat16> : PolicyKernel<float>,
               ElementBlocks(count), kElementThreads, 0, stream, args);
}

}  // namespace pompc
