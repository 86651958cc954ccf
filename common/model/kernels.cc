#include "common/model/kernels.h"

#include <algorithm>

namespace pompc {

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
  const KernelTable* tables[3];
  int count = 0;
};

const Available& Tables() {
  static const Available available = [] {
    Available a;
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw")) {
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

void PackWeight(const float* weight, int64_t weight_stride, int64_t in, int64_t out,
                float* packed) {
  for (int64_t j = 0; j < out; j += kPanel) {
    const int64_t cols = std::min(kPanel, out - j);
    for (int64_t k = 0; k < in; ++k) {
      for (int64_t c = 0; c < cols; ++c) packed[c] = weight[(j + c) * weight_stride + k];
      std::fill(packed + cols, packed + kPanel, 0.0f);
      packed += kPanel;
    }
  }
}

}  // namespace pompc
