// What the kernels of plan_kernels.h share on the device: random numbers, sums of a warp, loads and
// stores of neighbouring numbers, sizes of blocks. For .cu files.
#ifndef POMPC_COMMON_PLANNER_PLAN_DEVICE_CUH_
#define POMPC_COMMON_PLANNER_PLAN_DEVICE_CUH_

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "common/planner/plan_kernels.h"

namespace pompc {

inline constexpr unsigned kFull = 0xffffffffu;
inline constexpr int kWarps = 4;  // Of blocks in which each warp takes a row.
inline constexpr int kThreads = 32 * kWarps;
inline constexpr int kElementThreads = 256;  // Of blocks in which each thread takes elements.

// --- Random numbers. ---

enum Purpose : uint32_t {
  kCandidate = 1,
  kProposal = 2,
  kTerminal = 3,
  kHeads = 4,
  kIndex = 5,
  kExecuted = 6
};

inline __device__ uint4 Philox(uint64_t seed, uint4 counter) {
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

inline __device__ uint4 Draw(uint64_t seed, Purpose purpose, int iteration, int observation,
                             int number) {
  return Philox(seed, make_uint4(number, observation, purpose, iteration));
}

// In (0, 1).
inline __device__ float Uniform(uint32_t bits) {
  return (static_cast<float>(bits >> 9) + 0.5f) * 0x1p-23f;
}

// Box-Muller.
inline __device__ float2 Normal2(uint32_t a, uint32_t b) {
  const float radius = sqrtf(-2.0f * __logf(Uniform(a)));
  float sine, cosine;
  __sincosf(6.283185307f * (Uniform(b) - 0.5f), &sine, &cosine);
  return make_float2(radius * cosine, radius * sine);
}

inline __device__ float4 Normal4(uint64_t seed, Purpose purpose, int iteration, int observation,
                                 int number) {
  const uint4 bits = Draw(seed, purpose, iteration, observation, number);
  const float2 a = Normal2(bits.x, bits.y), b = Normal2(bits.z, bits.w);
  return make_float4(a.x, a.y, b.x, b.y);
}

// --- Sums, rows, activation, loads and stores. ---

// Unlike fminf and fmaxf, keeps NaN.
inline __device__ float ClampToUnit(float x) { return x < -1.0f ? -1.0f : (x > 1.0f ? 1.0f : x); }

inline __device__ float WarpSum(float x) {
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

inline __device__ float WarpMax(float x) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) x = fmaxf(x, __shfl_xor_sync(kFull, x, step));
  return x;
}

// Divisions take as long as a good part of a row: not where there is nothing to divide.
inline __device__ int Map(const RowMap& map, int row) {
  if (map.from == map.to) return row + map.offset;
  return row / map.from * map.to + map.offset + row % map.from;
}

inline __device__ int64_t Offset(const RowGroups& groups, int row) {
  return row < groups.rows ? 0 : row / groups.rows * groups.stride;
}

// x tanh(softplus(x)) = x - 2 x / (e^x (e^x + 2) + 2); off by up to 1e-6 of |x|. Where e^x
// overflows the quotient is 0. Instructions without denormal numbers: half as many.
inline __device__ float Mish(float x) {
  float e, inverse;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(e) : "f"(x * 1.442695041f));
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(inverse) : "f"(fmaf(e, e + 2.0f, 2.0f)));
  return fmaf(-2.0f * x, inverse, x);
}

// Eight consecutive numbers, 16-byte aligned.
inline __device__ void Load(const float* p, float (&x)[8]) {
  const float4 a = reinterpret_cast<const float4*>(p)[0];
  const float4 b = reinterpret_cast<const float4*>(p)[1];
  x[0] = a.x, x[1] = a.y, x[2] = a.z, x[3] = a.w;
  x[4] = b.x, x[5] = b.y, x[6] = b.z, x[7] = b.w;
}
inline __device__ void Load(const __nv_bfloat16* p, float (&x)[8]) {
  const uint4 bits = *reinterpret_cast<const uint4*>(p);
  const uint32_t pairs[4] = {bits.x, bits.y, bits.z, bits.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    // A bfloat16 is the upper half of a float32.
    x[2 * i] = __uint_as_float(pairs[i] << 16);
    x[2 * i + 1] = __uint_as_float(pairs[i] & 0xffff0000u);
  }
}
inline __device__ void Store(float* p, const float (&x)[8]) {
  reinterpret_cast<float4*>(p)[0] = make_float4(x[0], x[1], x[2], x[3]);
  reinterpret_cast<float4*>(p)[1] = make_float4(x[4], x[5], x[6], x[7]);
}
inline __device__ void Store(__nv_bfloat16* p, const float (&x)[8]) {
  __nv_bfloat162 pairs[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) pairs[i] = __floats2bfloat162_rn(x[2 * i], x[2 * i + 1]);
  *reinterpret_cast<uint4*>(p) = *reinterpret_cast<const uint4*>(pairs);
}
// Four, aligned as one.
inline __device__ void StoreFour(float* p, const float (&x)[4]) {
  *reinterpret_cast<float4*>(p) = make_float4(x[0], x[1], x[2], x[3]);
}
inline __device__ void StoreFour(__nv_bfloat16* p, const float (&x)[4]) {
  const __nv_bfloat162 pairs[2] = {__floats2bfloat162_rn(x[0], x[1]),
                                   __floats2bfloat162_rn(x[2], x[3])};
  *reinterpret_cast<uint2*>(p) = *reinterpret_cast<const uint2*>(pairs);
}
inline __device__ void StoreOne(float* p, float x) { *p = x; }
inline __device__ void StoreOne(__nv_bfloat16* p, float x) { *p = __float2bfloat16_rn(x); }

inline int Blocks(int64_t count, int per_block) {
  return static_cast<int>((count + per_block - 1) / per_block);
}
inline int ElementBlocks(int64_t count) { return min(Blocks(count, kElementThreads), 132 * 8); }

}  // namespace pompc

#endif  // POMPC_COMMON_PLANNER_PLAN_DEVICE_CUH_
