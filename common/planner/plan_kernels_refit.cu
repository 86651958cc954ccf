// Refit of plan_kernels.h: elites, their mean and std, and the result. A block takes an
// observation.
#include "common/model/launch.cuh"
#include "common/planner/plan_device.cuh"
#include "common/planner/plan_kernels.h"

namespace pompc {
namespace {

constexpr int kRefitThreads = 512;
constexpr int kLanes = 4;  // Threads that share a dimension of the actions.

__device__ float LaneSum(float x) {
#pragma unroll
  for (int step = kLanes / 2; step > 0; step /= 2) x += __shfl_xor_sync(kFull, x, step);
  return x;
}

// The indices of the `count` largest of `size` keys, ascending; of equal keys the first. Keys of a
// thread: numbers thread, thread + kRefitThreads, ...; absent ones are 0, and less than all others.
template <int kKeys>
__device__ void SelectLargest(const uint32_t (&key)[kKeys], int size, int count, int* selected) {
  __shared__ int of_warp[2][kRefitThreads / 32];
  // Loops stay loops where they can: a block runs this once, and has to fetch the code first.
  const int rounds = kKeys == 1 ? 1 : (size + kRefitThreads - 1) / kRefitThreads;
  const auto number_from = [&](uint32_t least) {
    int number = 0;
#pragma unroll
    for (int k = 0; k < kKeys; ++k) {
      if (k < rounds) number += __syncthreads_count(key[k] >= least);
    }
    return number;
  };
  // The count-th largest key, bit by bit, or a smaller one that as many keys reach.
  uint32_t threshold = 0;
#pragma unroll 1
  for (int bit = 31; bit >= 0; --bit) {
    const uint32_t higher = threshold | (1u << bit);
    const int number = number_from(higher);
    if (number >= count) threshold = higher;
    if (number == count) break;
  }
  const int num_equal = count - (threshold == 0xffffffffu ? 0 : number_from(threshold + 1));

  const int warp = threadIdx.x / 32;
  const unsigned before = (1u << (threadIdx.x % 32)) - 1;
  int first_equal = 0, first_selected = 0;
  // The number of flags before this thread's, and the number of all added to `sum`.
  const auto rank = [&](bool flag, int* counts, int& sum) {
    const unsigned flags = __ballot_sync(kFull, flag);
    if (threadIdx.x % 32 == 0) counts[warp] = __popc(flags);
    __syncthreads();
    const int lane = threadIdx.x % 32;
    const int count = lane < kRefitThreads / 32 ? counts[lane] : 0;
    const int result =
        sum + __reduce_add_sync(kFull, lane < warp ? count : 0) + __popc(flags & before);
    sum += __reduce_add_sync(kFull, count);
    return result;
  };
#pragma unroll
  for (int k = 0; k < kKeys; ++k) {
    if (k >= rounds) break;
    const bool equal = key[k] == threshold;
    const int equal_rank = rank(equal, of_warp[0], first_equal);
    const bool chosen = key[k] > threshold || (equal && equal_rank < num_equal);
    const int position = rank(chosen, of_warp[1], first_selected);
    if (chosen) selected[position] = threadIdx.x + k * kRefitThreads;
  }
  __syncthreads();
}

template <int kKeys>
__global__ void __launch_bounds__(kRefitThreads) RefitKernel(const RefitArgs a) {
  WaitForKernelBefore();
  extern __shared__ float memory[];
  float* elite_value = memory;                            // [E]
  float* score = elite_value + a.elites;                  // [E]
  int* elite = reinterpret_cast<int*>(score + a.elites);  // [E]
  __shared__ float total;
  __shared__ int drawn;
  const int observation = a.first_observation + blockIdx.x, thread = threadIdx.x;

  const float* value = a.value + static_cast<int64_t>(observation) * a.sequences;
  uint32_t key[kKeys] = {};
  int rejected = 0;
#pragma unroll
  for (int k = 0; k < kKeys; ++k) {
    const int n = thread + k * kRefitThreads;
    if (n >= a.sequences) continue;
    rejected += !isfinite(value[n]);
    const uint32_t bits = __float_as_uint(isfinite(value[n]) ? value[n] : -INFINITY);
    key[k] = bits & 0x80000000u ? ~bits : bits | 0x80000000u;  // Ordered as the values.
  }
  if (rejected > 0) atomicAdd(a.counts, rejected);
  SelectLargest(key, a.sequences, a.elites, elite);

  if (thread < 32) {
    float best = -INFINITY, sum = 0, after = 0;
    for (int e = thread; e < a.elites; e += 32) {
      const float v = value[elite[e]];
      elite_value[e] = isfinite(v) ? v : -INFINITY;
      best = fmaxf(best, elite_value[e]);
    }
    best = WarpMax(best);
    for (int e = thread; e < a.elites; e += 32) {
      score[e] = expf(a.inverse_temperature * (elite_value[e] - best));
      sum += score[e];
    }
    sum = WarpSum(sum);
    for (int e = thread; e < a.elites; e += 32) {
      score[e] /= sum;
      after += score[e];
    }
    after = WarpSum(after);
    if (thread == 0) {
      total = after + 1e-9f;
      if (a.last && best == -INFINITY) atomicAdd(a.counts + 1, 1);
    }
  }
  __syncthreads();

  const int size = a.horizon * a.action;
  const float* actions = a.actions + static_cast<int64_t>(observation) * a.sequences * size;
  const int lane = thread % kLanes;
  // All threads of a warp stay in the loop, for the sums.
  for (int base = 0; base < size; base += kRefitThreads / kLanes) {
    const int d = base + thread / kLanes;
    float mean = 0, square = 0;
    // A rejected sequence weighs 0, and its actions may be NaN.
    const auto action = [&](int e) {
      const float x = actions[elite[e] * size + d];  // Always, so that loads overlap.
      return elite_value[e] == -INFINITY ? 0.0f : x;
    };
    if (d < size) {
#pragma unroll 16
      for (int e = lane; e < a.elites; e += kLanes) mean += score[e] * action(e);
    }
    mean = LaneSum(mean) / total;
    if (d < size) {
#pragma unroll 16
      for (int e = lane; e < a.elites; e += kLanes) {
        const float deviation = action(e) - mean;
        square += score[e] * deviation * deviation;
      }
    }
    const float raw = sqrtf(LaneSum(square) / total);
    const float std = raw < a.min_std ? a.min_std : (raw > a.max_std ? a.max_std : raw);
    if (d < size && lane == 0) {
      a.mean[observation * size + d] = mean;
      a.std[observation * size + d] = std;
      if (a.last && d < a.action) {
        a.result_mean[observation * a.action + d] = mean;
        a.result_std[observation * a.action + d] = std;
      }
    }
  }
  if (!a.last) return;

  // An elite drawn by its score: argmax(log p - log e), e ~ Exp(1).
  const uint64_t seed = a.control->seed;
  if (thread < 32) {
    float best_key = -INFINITY;
    int best_elite = 0;
    for (int e = thread; e < a.elites; e += 32) {
      const uint4 bits = Draw(seed, kIndex, 0, observation, e);
      const float key = logf(score[e]) - logf(-logf(Uniform(bits.x)));
      if (key > best_key) best_key = key, best_elite = e;
    }
#pragma unroll
    for (int step = 16; step > 0; step /= 2) {
      const float key = __shfl_xor_sync(kFull, best_key, step);
      const int other = __shfl_xor_sync(kFull, best_elite, step);
      if (key > best_key || (key == best_key && other < best_elite)) {
        best_key = key, best_elite = other;
      }
    }
    if (thread == 0) {
      drawn = elite[best_elite];
      a.result_value[observation] = elite_value[best_elite];
    }
  }
  __syncthreads();  // Also makes the result's mean and std visible to the block.
  const int kind = a.control->action;
  for (int d = thread; d < a.action; d += kRefitThreads) {
    const int i = observation * a.action + d;
    const float action = actions[drawn * size + d];
    a.result_elite[i] = action;
    if (kind == PlanControl::kNoisyElite) {
      const float4 eps = Normal4(seed, kExecuted, 0, observation, d);
      a.result_action[i] = ClampToUnit(action + a.result_std[i] * eps.x);
    } else {
      a.result_action[i] = kind == PlanControl::kMean ? a.result_mean[i] : action;
    }
  }
}

}  // namespace

cudaError_t RefitElites(const RefitArgs& args, cudaStream_t stream) {
  return Start(
      args.sequences <= kRefitThreads ? RefitKernel<1> : RefitKernel<kMaxSequences / kRefitThreads>,
      args.observations, kRefitThreads, 3 * args.elites * sizeof(float), stream, args);
}

}  // namespace pompc
