// Gaussian policies (gpu_kernels.h): the network's output, actions drawn from it, their log
// probabilities, KL.
#include <cstdint>

#include "common/model/gpu_device.cuh"
#include "common/model/gpu_kernels.h"
#include "common/model/launch.cuh"

namespace pompc::gpu {
namespace {

__global__ void PolicyForwardKernel(PolicyRows rows, const float* output, float* m, float* mean,
                                    float* log_std) {
  WaitForKernelBefore();
  const int64_t i = Element(), n = rows.action_dim;
  if (i >= rows.rows * n) return;
  const float* row = output + i / n * 2 * n + i % n;
  const float low = static_cast<float>(rows.log_std_low);
  const float half = static_cast<float>(rows.log_std_half);
  m[i] = row[0];
  mean[i] = tanhf(row[0]);
  log_std[i] = low + half * (tanhf(row[n]) + 1.0f);
}

__global__ void PolicyBackwardKernel(PolicyRows rows, const float* output, const float* dm,
                                     const float* dmean, const float* dlog_std, float* doutput) {
  WaitForKernelBefore();
  const int64_t i = Element(), n = rows.action_dim;
  if (i >= rows.rows * n) return;
  const int64_t at = i / n * 2 * n + i % n;
  float dcentre = dm != nullptr ? dm[i] : 0.0f;
  if (dmean != nullptr) {
    const float t = tanhf(output[at]);
    dcentre += dmean[i] * (1.0f - t * t);
  }
  doutput[at] = dcentre;
  const float t = tanhf(output[at + n]);
  doutput[at + n] = dlog_std != nullptr
                        ? dlog_std[i] * static_cast<float>(rows.log_std_half) * (1.0f - t * t)
                        : 0.0f;
}

__global__ void SampleForwardKernel(int64_t size, bool squashed, const float* centre,
                                    const float* log_std, const float* eps, float* action) {
  WaitForKernelBefore();
  const int64_t i = Element();
  if (i >= size) return;
  const float u = centre[i] + eps[i] * expf(log_std[i]);
  // As LibTorch's clamp, NaN stays NaN.
  action[i] = squashed ? tanhf(u) : u < -1.0f ? -1.0f : u > 1.0f ? 1.0f : u;
}

__global__ void SampleBackwardKernel(int64_t size, bool squashed, const float* centre,
                                     const float* log_std, const float* eps, const float* daction,
                                     float* dcentre, float* dlog_std) {
  WaitForKernelBefore();
  const int64_t i = Element();
  if (i >= size) return;
  const float noise = eps[i] * expf(log_std[i]);
  const float u = centre[i] + noise;
  float slope;
  if (squashed) {
    const float t = tanhf(u);
    slope = 1.0f - t * t;
  } else {
    slope = u >= -1.0f && u <= 1.0f ? 1.0f : 0.0f;
  }
  dcentre[i] = daction[i] * slope;
  dlog_std[i] = daction[i] * slope * noise;
}

constexpr int kRowWarps = 4;  // A block of the kernels that sum rows, a warp each.

// out[row] = sum of term(i) over the row's elements i.
template <typename Term>
__device__ void SumRow(int64_t rows, int64_t cols, float* out, const Term& term) {
  const int lane = threadIdx.x % kWarp;
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kRowWarps + threadIdx.x / kWarp;
  if (row >= rows) return;
  float sum = 0;
  for (int64_t c = lane; c < cols; c += kWarp) sum += term(row * cols + c);
  sum = WarpSum(sum);
  if (lane == 0) out[row] = sum;
}

__global__ void LogKernelForwardKernel(int64_t rows, int64_t cols, const float* eps,
                                       const float* log_std, float* out) {
  WaitForKernelBefore();
  SumRow(rows, cols, out, [&](int64_t i) { return -0.5f * eps[i] * eps[i] - log_std[i]; });
}

__global__ void LogKernelBackwardKernel(int64_t rows, int64_t cols, const float* eps,
                                        const float* dout, float* deps, float* dlog_std) {
  WaitForKernelBefore();
  const int64_t i = Element();
  if (i >= rows * cols) return;
  const float d = dout[i / cols];
  if (deps != nullptr) deps[i] = -d * eps[i];
  if (dlog_std != nullptr) dlog_std[i] = -d;
}

constexpr float kSquashGuard = 1e-6f;

__global__ void SquashCorrectionForwardKernel(int64_t rows, int64_t cols, const float* action,
                                              float* out) {
  WaitForKernelBefore();
  SumRow(rows, cols, out, [&](int64_t i) {
    const float slope = 1.0f - action[i] * action[i];
    // As LibTorch's relu, NaN stays NaN.
    return logf((slope < 0.0f ? 0.0f : slope) + kSquashGuard);
  });
}

__global__ void SquashCorrectionBackwardKernel(int64_t rows, int64_t cols, const float* action,
                                               const float* dout, float* daction) {
  WaitForKernelBefore();
  const int64_t i = Element();
  if (i >= rows * cols) return;
  const float slope = 1.0f - action[i] * action[i];
  daction[i] = slope <= 0.0f ? 0.0f : -2.0f * action[i] * dout[i / cols] / (slope + kSquashGuard);
}

__global__ void GaussianKlForwardKernel(GaussianPairs pairs, float* kl) {
  WaitForKernelBefore();
  const int64_t i = Element();
  if (i >= pairs.size) return;
  const float ratio = pairs.p_std[i] / pairs.q_std[i];
  const float shift = (pairs.p_mean[i] - pairs.q_mean[i]) / pairs.q_std[i];
  kl[i] = 0.5f * (ratio * ratio + shift * shift - 1.0f - logf(ratio * ratio));
}

__global__ void GaussianKlBackwardKernel(GaussianPairs pairs, const float* dkl,
                                         GaussianGradients out) {
  WaitForKernelBefore();
  const int64_t i = Element();
  if (i >= pairs.size) return;
  const float d = dkl[i], p_std = pairs.p_std[i], q_std = pairs.q_std[i];
  const float ratio = p_std / q_std, shift = (pairs.p_mean[i] - pairs.q_mean[i]) / q_std;
  const float dmean = d * shift / q_std;
  if (out.p_mean != nullptr) out.p_mean[i] = dmean;
  if (out.q_mean != nullptr) out.q_mean[i] = -dmean;
  if (out.p_std != nullptr) out.p_std[i] = d * (ratio / q_std - 1.0f / p_std);
  if (out.q_std != nullptr) out.q_std[i] = d * (1.0f - ratio * ratio - shift * shift) / q_std;
}

}  // namespace

int PolicyForward(const PolicyRows& rows, const float* output, float* m, float* mean,
                  float* log_std, Stream stream) {
  const int64_t size = rows.rows * rows.action_dim;
  if (size == 0) return 0;
  Start(PolicyForwardKernel, Blocks(size, kElementThreads), kElementThreads, 0, stream, rows,
        output, m, mean, log_std);
  return cudaGetLastError();
}

int PolicyBackward(const PolicyRows& rows, const float* output, const float* dm, const float* dmean,
                   const float* dlog_std, float* doutput, Stream stream) {
  const int64_t size = rows.rows * rows.action_dim;
  if (size == 0) return 0;
  Start(PolicyBackwardKernel, Blocks(size, kElementThreads), kElementThreads, 0, stream, rows,
        output, dm, dmean, dlog_std, doutput);
  return cudaGetLastError();
}

int SampleForward(int64_t size, bool squashed, const float* centre, const float* log_std,
                  const float* eps, float* action, Stream stream) {
  if (size == 0) return 0;
  Start(SampleForwardKernel, Blocks(size, kElementThreads), kElementThreads, 0, stream, size,
        squashed, centre, log_std, eps, action);
  return cudaGetLastError();
}

int SampleBackward(int64_t size, bool squashed, const float* centre, const float* log_std,
                   const float* eps, const float* daction, float* dcentre, float* dlog_std,
                   Stream stream) {
  if (size == 0) return 0;
  Start(SampleBackwardKernel, Blocks(size, kElementThreads), kElementThreads, 0, stream, size,
        squashed, centre, log_std, eps, daction, dcentre, dlog_std);
  return cudaGetLastError();
}

int LogKernelForward(int64_t rows, int64_t cols, const float* eps, const float* log_std, float* out,
                     Stream stream) {
  if (rows == 0) return 0;
  Start(LogKernelForwardKernel, Blocks(rows, kRowWarps), kRowWarps * kWarp, 0, stream, rows, cols,
        eps, log_std, out);
  return cudaGetLastError();
}

int LogKernelBackward(int64_t rows, int64_t cols, const float* eps, const float* dout, float* deps,
                      float* dlog_std, Stream stream) {
  if (rows * cols == 0) return 0;
  Start(LogKernelBackwardKernel, Blocks(rows * cols, kElementThreads), kElementThreads, 0, stream,
        rows, cols, eps, dout, deps, dlog_std);
  return cudaGetLastError();
}

int SquashCorrectionForward(int64_t rows, int64_t cols, const float* action, float* out,
                            Stream stream) {
  if (rows == 0) return 0;
  Start(SquashCorrectionForwardKernel, Blocks(rows, kRowWarps), kRowWarps * kWarp, 0, stream, rows,
        cols, action, out);
  return cudaGetLastError();
}

int SquashCorrectionBackward(int64_t rows, int64_t cols, const float* action, const float* dout,
                             float* daction, Stream stream) {
  if (rows * cols == 0) return 0;
  Start(SquashCorrectionBackwardKernel, Blocks(rows * cols, kElementThreads), kElementThreads, 0,
        stream, rows, cols, action, dout, daction);
  return cudaGetLastError();
}

int GaussianKlForward(const GaussianPairs& pairs, float* kl, Stream stream) {
  if (pairs.size == 0) return 0;
  Start(GaussianKlForwardKernel, Blocks(pairs.size, kElementThreads), kElementThreads, 0, stream,
        pairs, kl);
  return cudaGetLastError();
}

int GaussianKlBackward(const GaussianPairs& pairs, const float* dkl, const GaussianGradients& out,
                       Stream stream) {
  if (pairs.size == 0) return 0;
  Start(GaussianKlBackwardKernel, Blocks(pairs.size, kElementThreads), kElementThreads, 0, stream,
        pairs, dkl, out);
  return cudaGetLastError();
}

}  // namespace pompc::gpu
