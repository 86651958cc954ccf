#include "common/model/kernels.h"

#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace pompc {

namespace kernels_amx {
extern const KernelTable kTable;
}
namespace kernels_avx512bf16 {
extern const KernelTable kTable;
}
namespace kernels_avx512 {
extern const KernelTable kTable;
}
namespace kernels_avx2 {
extern const KernelTable kTable;
}
namespace kernels_base {
extern const KernelTable kTable;
}

namespace {

// Whether the processor multiplies tiles of bfloat16 and the kernel lets this process, which has to
// ask, since threads then need 8 KB more for their registers.
bool CanUseTiles() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  if (__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) == 0) return false;
  constexpr unsigned kAmxBf16 = 1u << 22, kAmxTile = 1u << 24;
  if ((edx & kAmxBf16) == 0 || (edx & kAmxTile) == 0) return false;
  constexpr long kRequestPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

struct Available {
  const KernelTable* tables[5];
  int count = 0;
};

const Available& Tables() {
  static const Available available = [] {
    Available a;
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw")) {
      const bool bfloat16 = __builtin_cpu_supports("avx512bf16");
      if (bfloat16 && CanUseTiles()) a.tables[a.count++] = &kernels_amx::kTable;
      // VDPBF16PS has twice the rate of FMA on AMD's processors and half of it on Intel's.
      const bool fast = !__builtin_cpu_is("intel");
      if (bfloat16 && fast) a.tables[a.count++] = &kernels_avx512bf16::kTable;
      a.tables[a.count++] = &kernels_avx512::kTable;
      if (bfloat16 && !fast) a.tables[a.count++] = &kernels_avx512bf16::kTable;
    }
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
      a.tables[a.count++] = &kernels_avx2::kTable;
    }
    a.tables[a.count++] = &kernels_base::kTable;
    return a;
  }();
  return available;
}

}  // namespace

const KernelTable& Kernels() { return *Tables().tables[0]; }

const KernelTable* const* AllKernels(int* count) {
  *count = Tables().count;
  return Tables().tables;
}

}  // namespace pompc
