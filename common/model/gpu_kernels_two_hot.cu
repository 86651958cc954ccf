// Two-hot distributions (gpu_kernels.h): decoding and cross-entropy. A warp takes a row.
#include <cstdint>
#include <type_traits>

#include "common/model/gpu_device.cuh"
#include "common/model/gpu_kernels.h"
#include "common/model/launch.cuh"

namespace pompc::gpu {
namespace {

constexpr int kTwoHotWarps = 4;

// exp(logit - max) of a row, lane l holding bins l, l + 32, ...; a warp has a row.
template <int kPerLane>
struct SoftmaxRow {
  float e[kPerLane];
  float max, sum, expectation;  // Expectation of the bins' positions.

  __device__ void Load(const TwoHotRows& bins, const float* logits, float min, float step,
                       int lane) {
    max = -INFINITY;
#pragma unroll
    for (int i = 0; i < kPerLane; ++i) {
      const int k = lane + i * kWarp;
      e[i] = k < bins.size ? logits[k] : -INFINITY;
      max = fmaxf(max, e[i]);
    }
    max = WarpMax(max);
    sum = 0;
    float weighted = 0;
#pragma unroll
    for (int i = 0; i < kPerLane; ++i) {
      const int k = lane + i * kWarp;
      e[i] = k < bins.size ? expf(e[i] - max) : 0.0f;
      sum += e[i];
      weighted += e[i] * (min + step * static_cast<float>(k));
    }
    sum = WarpSum(sum);
    expectation = WarpSum(weighted) / sum;
  }
};

struct TwoHot {
  int lower, upper;  // Bins.
  float weight;      // Of `upper`.
};
__device__ TwoHot TwoHotOf(float target, int size, float low, float high, float step) {
  float y = copysignf(logf(1.0f + fabsf(target)), target);
  y = y < low ? low : y;
  y = y > high ? high : y;
  const float position = (y - low) / step;
  const float lower = floorf(position);
  // NaN compares false: it stays at bin 0 with a NaN weight, so that the loss is NaN too.
  const int index = lower > 0.0f ? min(static_cast<int>(lower), size - 1) : 0;
  return {index, (index + 1) % size, position - lower};
}

enum class TwoHotTask { kDecode, kDecodeBackward, kCrossEntropy, kCrossEntropyBackward };

// out: one number a row, or with `Backward` the gradients of the logits, for `grad` of that number.
template <int kPerLane, TwoHotTask kTask>
__global__ void TwoHotKernel(TwoHotRows bins, const float* logits, const float* targets,
                             int64_t num_targets, const float* grad, float* out) {
  WaitForKernelBefore();
  const int lane = threadIdx.x % kWarp;
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kTwoHotWarps + threadIdx.x / kWarp;
  if (row >= bins.rows) return;
  const int size = static_cast<int>(bins.size);
  const float low = static_cast<float>(bins.min), high = static_cast<float>(bins.max);
  const float step = static_cast<float>((bins.max - bins.min) / static_cast<double>(size - 1));
  const int width = static_cast<int>(bins.width);
  const float* l = logits + row * width;
  SoftmaxRow<kPerLane> s;
  s.Load(bins, l, low, step, lane);
  if constexpr (kTask == TwoHotTask::kDecode) {
    if (lane == 0) out[row] = copysignf(expf(fabsf(s.expectation)) - 1.0f, s.expectation);
  } else if constexpr (kTask == TwoHotTask::kDecodeBackward) {
    const float scale = grad[row] * expf(fabsf(s.expectation)) / s.sum;
#pragma unroll
    for (int i = 0; i < kPerLane; ++i) {
      const int k = lane + i * kWarp;
      if (k >= width) continue;
      const float position = low + step * static_cast<float>(k);
      out[row * width + k] = k < size ? scale * s.e[i] * (position - s.expectation) : 0.0f;
    }
  } else {
    const TwoHot hot = TwoHotOf(targets[row % num_targets], size, low, high, step);
    if constexpr (kTask == TwoHotTask::kCrossEntropy) {
      const float log_sum = s.max + logf(s.sum);
      if (lane == 0) {
        out[row] =
            (1.0f - hot.weight) * (log_sum - l[hot.lower]) + hot.weight * (log_sum - l[hot.upper]);
      }
    } else {
      const float g = grad[row], scale = g / s.sum;
#pragma unroll
      for (int i = 0; i < kPerLane; ++i) {
        const int k = lane + i * kWarp;
        if (k >= width) continue;
        float d = scale * s.e[i];  // 0 beyond the last bin.
        if (k == hot.lower) d -= g * (1.0f - hot.weight);
        if (k == hot.upper) d -= g * hot.weight;
        out[row * width + k] = k < size ? d : 0.0f;
      }
    }
  }
}

// Calls f with the number of columns of each lane as a constant.
template <typename F>
void WithPerLane(int64_t cols, const F& f) {
  if (cols <= 2 * kWarp) return f(std::integral_constant<int, 2>());
  if (cols <= 4 * kWarp) return f(std::integral_constant<int, 4>());
  if (cols <= 8 * kWarp) return f(std::integral_constant<int, 8>());
  if (cols <= 16 * kWarp) return f(std::integral_constant<int, 16>());
  f(std::integral_constant<int, 32>());
}

template <TwoHotTask kTask>
int LaunchTwoHot(const TwoHotRows& bins, const float* logits, const float* targets,
                 int64_t num_targets, const float* grad, float* out, Stream stream) {
  if (bins.rows == 0) return 0;
  WithPerLane(bins.width, [&](auto per_lane) {
    Start(TwoHotKernel<per_lane.value, kTask>, Blocks(bins.rows, kTwoHotWarps),
          kTwoHotWarps * kWarp, 0, stream, bins, logits, targets, num_targets, grad, out);
  });
  return cudaGetLastError();
}

}  // namespace

int DecodeForward(const TwoHotRows& bins, const float* logits, float* out, Stream stream) {
  return LaunchTwoHot<TwoHotTask::kDecode>(bins, logits, nullptr, 1, nullptr, out, stream);
}

int DecodeBackward(const TwoHotRows& bins, const float* logits, const float* dout, float* dlogits,
                   Stream stream) {
  return LaunchTwoHot<TwoHotTask::kDecodeBackward>(bins, logits, nullptr, 1, dout, dlogits, stream);
}

int CrossEntropyForward(const TwoHotRows& bins, const float* logits, const float* targets,
                        int64_t num_targets, float* loss, Stream stream) {
  return LaunchTwoHot<TwoHotTask::kCrossEntropy>(bins, logits, targets, num_targets, nullptr, loss,
                                                 stream);
}

int CrossEntropyBackward(const TwoHotRows& bins, const float* logits, const float* targets,
                         int64_t num_targets, const float* dloss, float* dlogits, Stream stream) {
  return LaunchTwoHot<TwoHotTask::kCrossEntropyBackward>(bins, logits, targets, num_targets, dloss,
                                                         dlogits, stream);
}

}  // namespace pompc::gpu
