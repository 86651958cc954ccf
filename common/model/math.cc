#include "common/model/math.h"

#include <algorithm>
#include <cmath>

#include "common/model/gpu_kernels.h"
#include "common/model/gpu_layers.h"

namespace pompc {
namespace {

constexpr double kHalfLog2Pi = 0.9189385332046727;

// sum_A(-eps^2/2 - log_std).
at::Tensor LogKernel(const at::Tensor& eps, const at::Tensor& log_std) {
  if (const GpuLayers* gpu = GpuLayersOf(log_std)) return gpu->LogKernel(eps, log_std);
  return (-0.5 * eps.square() - log_std).sum(-1);
}

at::Tensor Percentile(const at::Tensor& sorted, double q) {
  const double position = q * static_cast<double>(sorted.size(0) - 1);
  const int64_t lower = static_cast<int64_t>(std::floor(position));
  const int64_t upper = std::min(lower + 1, sorted.size(0) - 1);
  const double weight = position - static_cast<double>(lower);
  return sorted[lower] * (1 - weight) + sorted[upper] * weight;
}

}  // namespace

at::Tensor LogStd(const at::Tensor& x, LogStdRange range) {
  return range.min + 0.5 * (range.max - range.min) * (at::tanh(x) + 1);
}

at::Tensor GaussianLogProb(const at::Tensor& eps, const at::Tensor& log_std) {
  return LogKernel(eps, log_std) - kHalfLog2Pi * static_cast<double>(eps.size(-1));
}

at::Tensor ScaledGaussianLogProb(const at::Tensor& eps, const at::Tensor& log_std) {
  return (LogKernel(eps, log_std) - kHalfLog2Pi) * static_cast<double>(eps.size(-1));
}

at::Tensor SquashCorrection(const at::Tensor& action) {
  if (const GpuLayers* gpu = GpuLayersOf(action)) return gpu->SquashCorrection(action);
  return at::log(at::relu(1 - action.square()) + 1e-6).sum(-1);
}

at::Tensor GaussianKl(const at::Tensor& p_mean, const at::Tensor& p_std, const at::Tensor& q_mean,
                      const at::Tensor& q_std) {
  if (const GpuLayers* gpu = GpuLayersOf(q_std)) {
    return gpu->GaussianKl(p_mean, p_std, q_mean, q_std);
  }
  const at::Tensor ratio = (p_std / q_std).square();
  const at::Tensor shift = ((p_mean - q_mean) / q_std).square();
  return 0.5 * (ratio + shift - 1 - at::log(ratio));
}

at::Tensor SampleIndex(const at::Tensor& probability, const at::Tensor& exponential) {
  return (at::log(probability) - at::log(exponential)).argmax(-1);
}

at::Tensor PercentileRange(const at::Tensor& x) {
  const GpuLayers* const gpu = GpuLayersOf(x);
  if (gpu != nullptr && x.numel() <= gpu::kMaxPercentileSize) return gpu->PercentileRange(x);
  const at::Tensor sorted = std::get<0>(at::sort(x));
  return (Percentile(sorted, 0.95) - Percentile(sorted, 0.05)).clamp_min(1);
}

double Discount(double episode_decisions, const DiscountOptions& options) {
  const double e = episode_decisions / options.divisor;
  return std::clamp((e - 1) / e, options.min, options.max);
}

at::Tensor TimeMean(const at::Tensor& x, double rho) {
  const int64_t steps = x.size(0);
  const at::Tensor weights = at::pow(rho, at::arange(steps, x.options())) / steps;
  return (x * weights).sum();
}

}  // namespace pompc
