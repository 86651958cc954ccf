// LayerNorm and activation of plan_kernels.h: a warp takes kRows rows, a lane kOctets groups of 8
// columns.
#include <cuda_bf16.h>

#include "common/model/launch.cuh"
#include "common/planner/plan_device.cuh"
#include "common/planner/plan_kernels.h"

namespace pompc {
namespace {

constexpr int kManyRows = 132 * 32;  // Then a warp normalises two of them at once.

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
cudaError_t StartNormalise(const NormArgs& a, cudaStream_t stream) {
  return Start(a.simnorm ? NormaliseKernel<T, kOctets, true, kRows>
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
cudaError_t StartNormalise(const NormArgs& a, cudaStream_t stream) {
  if (a.rows >= kManyRows && StayTogether(a, 2)) {
    return StartNormalise<T, kOctets, 2>(a, stream);
  } else {
    return StartNormalise<T, kOctets, 1>(a, stream);
  }
}

template <typename T>
cudaError_t StartNormalise(const NormArgs& a, cudaStream_t stream) {
  if (a.width <= 256) {
    return StartNormalise<T, 1>(a, stream);
  } else if (a.width <= 512) {
    return StartNormalise<T, 2>(a, stream);
  } else if (a.width <= 1024) {
    return StartNormalise<T, 4>(a, stream);
  } else {
    return StartNormalise<T, 8>(a, stream);
  }
}

}  // namespace

cudaError_t Normalise(const NormArgs& args, cudaStream_t stream) {
  if (args.bfloat16) {
    return StartNormalise<__nv_bfloat16>(args, stream);
  } else {
    return StartNormalise<float>(args, stream);
  }
}

}  // namespace pompc
