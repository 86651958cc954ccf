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

void Pack(const float* matrix, int64_t in_stride, int64_t out_stride, int64_t in, int64_t out,
          float* packed) {
  for (int64_t j = 0; j < out; j += kPanel) {
    const int64_t cols = std::min(kPanel, out - j);
    const float* column = matrix + j * out_stride;
    if (in_stride == 1) {
      // Columns outermost, so that `matrix` is read along its contiguous side.
      for (int64_t c = 0; c < cols; ++c) {
        for (int64_t k = 0; k < in; ++k) packed[k * kPanel + c] = column[c * out_stride + k];
      }
      for (int64_t k = 0; k < in && cols < kPanel; ++k) {
        std::fill(packed + k * kPanel + cols, packed + (k + 1) * kPanel, 0.0f);
      }
    } else {
      for (int64_t k = 0; k < in; ++k) {
        float* row = packed + k * kPanel;
        for (int64_t c = 0; c < cols; ++c) row[c] = column[k * in_stride + c * out_stride];
        std::fill(row + cols, row + kPanel, 0.0f);
      }
    }
    packed += in * kPanel;
  }
}

}  // namespace pompc
