#include "common/model/kernels.h"

namespace pompc {

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

struct Available {
  const KernelTable* tables[4];
  int count = 0;
};

const Available& Tables() {
  static const Available available = [] {
    Available a;
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw")) {
      if (__builtin_cpu_supports("avx512bf16")) {
        a.tables[a.count++] = &kernels_avx512bf16::kTable;
      }
      a.tables[a.count++] = &kernels_avx512::kTable;
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
