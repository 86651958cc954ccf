// What a kernel of Hopper's own is made of: barriers in shared memory on which copies complete,
// copies of boxes of a tensor to the shared memory of a cluster, and products of a warpgroup.
// Single instructions; the PTX ISA says what they do. For .cu files, and in them only where
// __CUDA_ARCH_FEAT_SM90_ALL is defined.
#ifndef POMPC_COMMON_PLANNER_HOPPER_CUH_
#define POMPC_COMMON_PLANNER_HOPPER_CUH_

#include <cuda.h>

#include <cstdint>

namespace pompc {

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

// --- Barriers in shared memory; addresses are those of the `shared` window. ---

inline __device__ uint32_t Address(const void* p) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}

// The same address in another block of the cluster.
inline __device__ uint32_t InBlock(uint32_t address, uint32_t block) {
  uint32_t result;
  asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(result) : "r"(address), "r"(block));
  return result;
}

inline __device__ void Initialise(uint64_t* barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(Address(barrier)), "r"(arrivals));
}

// Comes after all of them, before others of the cluster, or copies, use them.
inline __device__ void PublishBarriers() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  asm volatile("fence.proxy.async;" ::: "memory");
}

// One arrival, and that many bytes to come.
inline __device__ void Expect(uint64_t* barrier, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(Address(barrier)),
               "r"(bytes)
               : "memory");
}

inline __device__ void Arrive(uint64_t* barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(Address(barrier)) : "memory");
}

inline __device__ void ArriveIn(uint32_t barrier_in_block) {
  asm volatile("mbarrier.arrive.shared::cluster.b64 _, [%0];" ::"r"(barrier_in_block) : "memory");
}

// A wait of 13 to 17 seconds (three to four times 2^32 ns) will not end: a kernel that hangs
// becomes an error of the device.
inline __device__ void Wait(uint64_t* barrier, int phase) {
  asm volatile(
      "{\n"
      ".reg .pred p, q;\n"
      ".reg .u32 start, now;\n"
      "mbarrier.try_wait.parity.shared::cta.b64 p, [%0], %1;\n"
      "@p bra done;\n"
      "mov.u32 start, %%globaltimer_hi;\n"
      "again: mbarrier.try_wait.parity.shared::cta.b64 p, [%0], %1;\n"
      "@p bra done;\n"
      "mov.u32 now, %%globaltimer_hi;\n"
      "sub.u32 now, now, start;\n"
      "setp.lt.u32 q, now, 4;\n"
      "@q bra again;\n"
      "trap;\n"
      "done:\n"
      "}" ::"r"(Address(barrier)),
      "r"(phase)
      : "memory");
}

inline __device__ void ClusterArrive() {
  asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
}
inline __device__ void ClusterWait() {
  asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
}

// --- Copies to shared memory, which complete on a barrier. ---

// The box at these coordinates.
inline __device__ void Fetch(void* to, const CUtensorMap& map, uint64_t* barrier, int x0, int x1,
                             int x2, int x3, int x4) {
  asm volatile(
      "cp.async.bulk.tensor.5d.shared::cluster.global.mbarrier::complete_tx::bytes"
      " [%0], [%1, {%3, %4, %5, %6, %7}], [%2];" ::"r"(Address(to)),
      "l"(&map), "r"(Address(barrier)), "r"(x0), "r"(x1), "r"(x2), "r"(x3), "r"(x4)
      : "memory");
}

// To this place, and this barrier, in all blocks of `mask`.
inline __device__ void FetchForAll(void* to, const CUtensorMap& map, uint64_t* barrier, int x0,
                                   int x1, int x2, uint16_t mask) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes"
      ".multicast::cluster [%0], [%1, {%3, %4, %5}], [%2], %6;" ::"r"(Address(to)),
      "l"(&map), "r"(Address(barrier)), "r"(x0), "r"(x1), "r"(x2), "h"(mask)
      : "memory");
}

// 16 bytes into another block, on whose barrier they count.
inline __device__ void Send(uint32_t to_in_block, uint32_t barrier_in_block, float4 x) {
  asm volatile(
      "st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v4.f32 [%0], {%2, %3, %4, %5},"
      " [%1];" ::"r"(to_in_block),
      "r"(barrier_in_block), "f"(x.x), "f"(x.y), "f"(x.z), "f"(x.w)
      : "memory");
}

// Gives registers of a warpgroup's threads away, or takes some.
template <int kCount, bool kMore>
__device__ void SetRegisters() {
  if constexpr (kMore) {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kCount));
  } else {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kCount));
  }
}

// --- Products. ---

// Rows of 128 bytes, in groups of eight that are swizzled.
inline __device__ uint64_t Descriptor(const void* tile) {
  constexpr uint64_t kSwizzle128 = 1ull << 62, kGroupStride = (1024ull >> 4) << 32;
  return kSwizzle128 | kGroupStride | (1ull << 16) | ((Address(tile) & 0x3ffff) >> 4);
}

// d [64, 128] += a [64, 16] b [128, 16]^T.
inline __device__ void MultiplyAdd(float (&d)[64], uint64_t a, uint64_t b) {
  asm volatile(
      "{\n"
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 "
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15,"
      " %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31,"
      " %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47,"
      " %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63},"
      " %64, %65, 1, 1, 1, 0, 0;\n"
      "}"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]),
        "+f"(d[7]), "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]),
        "+f"(d[14]), "+f"(d[15]), "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), "+f"(d[20]),
        "+f"(d[21]), "+f"(d[22]), "+f"(d[23]), "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]),
        "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31]), "+f"(d[32]), "+f"(d[33]), "+f"(d[34]),
        "+f"(d[35]), "+f"(d[36]), "+f"(d[37]), "+f"(d[38]), "+f"(d[39]), "+f"(d[40]), "+f"(d[41]),
        "+f"(d[42]), "+f"(d[43]), "+f"(d[44]), "+f"(d[45]), "+f"(d[46]), "+f"(d[47]), "+f"(d[48]),
        "+f"(d[49]), "+f"(d[50]), "+f"(d[51]), "+f"(d[52]), "+f"(d[53]), "+f"(d[54]), "+f"(d[55]),
        "+f"(d[56]), "+f"(d[57]), "+f"(d[58]), "+f"(d[59]), "+f"(d[60]), "+f"(d[61]), "+f"(d[62]),
        "+f"(d[63])
      : "l"(a), "l"(b));
}
inline __device__ void KeepInRegisters(float (&d)[64]) {
#pragma unroll
  for (int i = 0; i < 64; ++i) asm volatile("" : "+f"(d[i])::"memory");
}
inline __device__ void BeginProducts() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
inline __device__ void CommitProducts() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
template <int kPending>
__device__ void WaitForProducts() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}

#endif  // __CUDA_ARCH_FEAT_SM90_ALL

}  // namespace pompc

#endif  // POMPC_COMMON_PLANNER_HOPPER_CUH_
