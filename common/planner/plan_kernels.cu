#include <cuda_bf16.h>

#include "common/model/launch.cuh"
#include "common/planner/plan_kernels.h"

namespace pompc {
namespace {

constexpr unsigned kFull = 0xffffffffu;
constexpr int kWarps = 4;  // Of blocks in which each warp takes a row.
constexpr int kThreads = 32 * kWarps;
constexpr int kMaxRowBlocks = 132 * 16;  // Then warps take several rows.
constexpr int kManyRows = 132 * 32;      // Then a warp normalises two of them at once.

// --- Random numbers. ---

enum Purpose : uint32_t {
  kCandidate = 1,
  kProposal = 2,
  kTerminal = 3,
  kHeads = 4,
  kIndex = 5,
  kExecuted = 6
};

__device__ uint4 Philox(uint64_t seed, uint4 counter) {
  uint32_t key0 = static_cast<uint32_t>(seed), key1 = static_cast<uint32_t>(seed >> 32);
#pragma unroll
  for (int round = 0; round < 10; ++round) {
    const uint32_t high0 = __umulhi(0xD2511F53u, counter.x), low0 = 0xD2511F53u * counter.x;
    const uint32_t high1 = __umulhi(0xCD9E8D57u, counter.z), low1 = 0xCD9E8D57u * counter.z;
    counter = make_uint4(high1 ^ counter.y ^ key0, low1, high0 ^ counter.w ^ key1, low0);
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
  return counter;
}

__device__ uint4 Draw(uint64_t seed, Purpose purpose, int iteration, int observation, int number) {
  return Philox(seed, make_uint4(number, observation, purpose, iteration));
}

// In (0, 1).
__device__ float Uniform(uint32_t bits) {
  return (static_cast<float>(bits >> 9) + 0.5f) * 0x1p-23f;
}

// Box-Muller.
__device__ float2 Normal2(uint32_t a, uint32_t b) {
  const float radius = sqrtf(-2.0f * __logf(Uniform(a)));
  float sine, cosine;
  __sincosf(6.283185307f * (Uniform(b) - 0.5f), &sine, &cosine);
  return make_float2(radius * cosine, radius * sine);
}

__device__ float4 Normal4(uint64_t seed, Purpose purpose, int iteration, int observation,
                          int number) {
  const uint4 bits = Draw(seed, purpose, iteration, observation, number);
  const float2 a = Normal2(bits.x, bits.y), b = Normal2(bits.z, bits.w);
  return make_float4(a.x, a.y, b.x, b.y);
}

// --- Small pieces. ---

// Unlike fminf and fmaxf, keeps NaN.
__device__ float ClampToUnit(float x) { return x < -1.0f ? -1.0f : (x > 1.0f ? 1.0f : x); }

__device__ float WarpSum(float x) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) x += __shfl_xor_sync(kFull, x, step);
  return x;
}

// Of several numbers at once.
template <int kCount>
__device__ void WarpSums(float (&x)[kCount]) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) {
#pragma unroll
    for (int i = 0; i < kCount; ++i) x[i] += __shfl_xor_sync(kFull, x[i], step);
  }
}

__device__ float WarpMax(float x) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) x = fmaxf(x, __shfl_xor_sync(kFull, x, step));
  return x;
}

// Divisions take as long as a good part of a row: not where there is nothing to divide.
__device__ int Map(const RowMap& map, int row) {
  if (map.from == map.to) return row + map.offset;
  return row / map.from * map.to + map.offset + row % map.from;
}

__device__ int64_t Offset(const RowGroups& groups, int row) {
  return row < groups.rows ? 0 : row / groups.rows * groups.stride;
}

// x tanh(softplus(x)) = x - 2 x / (e^x (e^x + 2) + 2); off by up to 1e-6 of |x|. Where e^x
// overflows the quotient is 0. Instructions without denormal numbers: half as many.
__device__ float Mish(float x) {
  float e, inverse;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(e) : "f"(x * 1.442695041f));
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(inverse) : "f"(fmaf(e, e + 2.0f, 2.0f)));
  return fmaf(-2.0f * x, inverse, x);
}

// Eight consecutive numbers, 16-byte aligned.
__device__ void Load(const float* p, float (&x)[8]) {
  const float4 a = reinterpret_cast<const float4*>(p)[0];
  const float4 b = reinterpret_cast<const float4*>(p)[1];
  x[0] = a.x, x[1] = a.y, x[2] = a.z, x[3] = a.w;
  x[4] = b.x, x[5] = b.y, x[6] = b.z, x[7] = b.w;
}
__device__ void Load(const __nv_bfloat16* p, float (&x)[8]) {
  const uint4 bits = *reinterpret_cast<const uint4*>(p);
  const uint32_t pairs[4] = {bits.x, bits.y, bits.z, bits.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    // A bfloat16 is the upper half of a float32.
    x[2 * i] = __uint_as_float(pairs[i] << 16);
    x[2 * i + 1] = __uint_as_float(pairs[i] & 0xffff0000u);
  }
}
__device__ void Store(float* p, const float (&x)[8]) {
  reinterpret_cast<float4*>(p)[0] = make_float4(x[0], x[1], x[2], x[3]);
  reinterpret_cast<float4*>(p)[1] = make_float4(x[4], x[5], x[6], x[7]);
}
__device__ void Store(__nv_bfloat16* p, const float (&x)[8]) {
  __nv_bfloat162 pairs[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) pairs[i] = __floats2bfloat162_rn(x[2 * i], x[2 * i + 1]);
  *reinterpret_cast<uint4*>(p) = *reinterpret_cast<const uint4*>(pairs);
}
// Four, aligned as one.
__device__ void StoreFour(float* p, const float (&x)[4]) {
  *reinterpret_cast<float4*>(p) = make_float4(x[0], x[1], x[2], x[3]);
}
__device__ void StoreFour(__nv_bfloat16* p, const float (&x)[4]) {
  const __nv_bfloat162 pairs[2] = {__floats2bfloat162_rn(x[0], x[1]),
                                   __floats2bfloat162_rn(x[2], x[3])};
  *reinterpret_cast<uint2*>(p) = *reinterpret_cast<const uint2*>(pairs);
}
__device__ void StoreOne(float* p, float x) { *p = x; }
__device__ void StoreOne(__nv_bfloat16* p, float x) { *p = __float2bfloat16_rn(x); }

int Blocks(int64_t count, int per_block) {
  return static_cast<int>((count + per_block - 1) / per_block);
}

// --- LayerNorm and activation: a warp takes kRows rows, a lane kOctets groups of 8 columns. ---

template <typename T, int kOctets, bool kSimNorm, int kRows>
__global__ void __launch_bounds__(kThreads) NormaliseKernel(const NormArgs a) {
  const int lane = threadIdx.x % 32;
  const int row = (blockIdx.x * kWarps + threadIdx.x / 32) * kRows;
  if (row >= a.rows) return;
  const T* in = static_cast<const T*>(a.x) + row * a.x_stride;
  T* out = static_cast<T*>(a.y) + Map(a.to, row) * a.y_stride;
  const float inverse_width = 1.0f / static_cast<float>(a.width);
  const float* bias_row = a.bias + Offset(a.bias_groups, row);
  const int64_t group = Offset(a.norm_groups, row);
  float x[kRows][kOctets][8], bias[kOctets][8], gain[kOctets][8], shift[kOctets][8];
  WaitForKernelBefore();
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
#pragma unroll
    for (int i = 0; i < kOctets; ++i) {
      const int column = (i * 32 + lane) * 8;
      if (column < a.width) Load(in + r * a.x_stride + column, x[r][i]);
    }
  }
  // All at once, so that their latencies overlap.
#pragma unroll
  for (int i = 0; i < kOctets; ++i) {
    const int column = (i * 32 + lane) * 8;
    if (column >= a.width) continue;
    Load(bias_row + column, bias[i]);
    Load(a.gain + group + column, gain[i]);
    Load(a.shift + group + column, shift[i]);
  }

  // The rows' sums side by side, so that their shuffles overlap.
  float sum[kRows], square[kRows];
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    sum[r] = 0;
#pragma unroll
    for (int i = 0; i < kOctets; ++i) {
      if ((i * 32 + lane) * 8 >= a.width) continue;
#pragma unroll
      for (int j = 0; j < 8; ++j) {
        x[r][i][j] += bias[i][j];
        sum[r] += x[r][i][j];
      }
    }
  }
  WarpSums(sum);
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    const float mean = sum[r] * inverse_width;
    square[r] = 0;
#pragma unroll
    for (int i = 0; i < kOctets; ++i) {
      if ((i * 32 + lane) * 8 >= a.width) continue;
#pragma unroll
      for (int j = 0; j < 8; ++j) {
        x[r][i][j] -= mean;
        square[r] += x[r][i][j] * x[r][i][j];
      }
    }
  }
  WarpSums(square);
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    const float scale = rsqrtf(square[r] * inverse_width + 1e-5f);
#pragma unroll
    for (int i = 0; i < kOctets; ++i) {
      const int column = (i * 32 + lane) * 8;
      if (column >= a.width) continue;
      float(&y)[8] = x[r][i];
#pragma unroll
      for (int j = 0; j < 8; ++j) y[j] = y[j] * scale * gain[i][j] + shift[i][j];
      if constexpr (kSimNorm) {
        float largest = y[0], total = 0;
#pragma unroll
        for (int j = 1; j < 8; ++j) largest = fmaxf(largest, y[j]);
#pragma unroll
        for (int j = 0; j < 8; ++j) {
          y[j] = __expf(y[j] - largest);
          total += y[j];
        }
        const float inverse = __fdividef(1.0f, total);
#pragma unroll
        for (int j = 0; j < 8; ++j) y[j] *= inverse;
      } else {
#pragma unroll
        for (int j = 0; j < 8; ++j) y[j] = Mish(y[j]);
      }
      Store(out + r * a.y_stride + column, y);
    }
  }
}

template <typename T, int kOctets, int kRows>
void StartNormalise(const NormArgs& a, cudaStream_t stream) {
  Start(a.simnorm ? NormaliseKernel<T, kOctets, true, kRows>
                  : NormaliseKernel<T, kOctets, false, kRows>,
        Blocks(a.rows, kWarps * kRows), kThreads, 0, stream, a);
}

// Whether groups of `count` rows have the same parameters and are neighbours in y too.
bool StayTogether(const NormArgs& a, int count) {
  return a.rows % count == 0 && a.bias_groups.rows % count == 0 &&
         a.norm_groups.rows % count == 0 && (a.to.from == a.to.to || a.to.from % count == 0);
}

// Many rows: two to a warp, which loads the parameters, six times the size of a row in bfloat16,
// once for both. Few: one to a warp, so that all multiprocessors have some.
template <typename T, int kOctets>
void StartNormalise(const NormArgs& a, cudaStream_t stream) {
  if (a.rows >= kManyRows && StayTogether(a, 2)) {
    StartNormalise<T, kOctets, 2>(a, stream);
  } else {
    StartNormalise<T, kOctets, 1>(a, stream);
  }
}

template <typename T>
void StartNormalise(const NormArgs& a, cudaStream_t stream) {
  if (a.width <= 256) {
    StartNormalise<T, 1>(a, stream);
  } else if (a.width <= 512) {
    StartNormalise<T, 2>(a, stream);
  } else if (a.width <= 1024) {
    StartNormalise<T, 4>(a, stream);
  } else {
    StartNormalise<T, 8>(a, stream);
  }
}

// --- Start, samples, policy. ---

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

// --- Two-hot: a warp takes a row. ---

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

// --- Refit: a block takes an observation. ---

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

constexpr int kElementThreads = 256;
int ElementBlocks(int64_t count) { return min(Blocks(count, kElementThreads), 132 * 8); }

}  // namespace

void Normalise(const NormArgs& args, cudaStream_t stream) {
  if (args.bfloat16) {
    StartNormalise<__nv_bfloat16>(args, stream);
  } else {
    StartNormalise<float>(args, stream);
  }
}

void BeginPlan(const BeginArgs& args, cudaStream_t stream) {
  const int64_t count = static_cast<int64_t>(args.observations) * args.horizon * args.action;
  Start(BeginKernel, Blocks(count < 2 ? 2 : count, kElementThreads), kElementThreads, 0, stream,
        args);
}

void SampleCandidates(const SampleArgs& args, cudaStream_t stream) {
  const int64_t count = static_cast<int64_t>(args.sequences - args.proposals) * args.horizon *
                        ((args.action + 3) / 4);
  Start(args.out.bfloat16 ? SampleKernel<__nv_bfloat16> : SampleKernel<float>,
        dim3(Blocks(count, kElementThreads), args.observations), kElementThreads, 0, stream, args);
}

void DrawPolicyActions(const PolicyArgs& args, cudaStream_t stream) {
  const int64_t count = static_cast<int64_t>(args.rows) * ((args.action + 3) / 4);
  Start(args.bfloat16 ? PolicyKernel<__nv_bfloat16> : PolicyKernel<float>, ElementBlocks(count),
        kElementThreads, 0, stream, args);
}

void DecodeSum(const DecodeArgs& args, cudaStream_t stream) {
  Start(DecodeKernel, min(Blocks(args.rows, kWarps), kMaxRowBlocks), kThreads, 0, stream, args);
}

void GatherHeads(const HeadsArgs& args, cudaStream_t stream) {
  Start(GatherKernel, dim3(min(Blocks(args.bytes / 16, kElementThreads), 132), 2), kElementThreads,
        0, stream, args);
}

void RefitElites(const RefitArgs& args, cudaStream_t stream) {
  Start(
      args.sequences <= kRefitThreads ? RefitKernel<1> : RefitKernel<kMaxSequences / kRefitThreads>,
      args.observations, kRefitThreads, 3 * args.elites * sizeof(float), stream, args);
}

}  // namespace pompc
