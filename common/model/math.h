// The scalar functions of the algorithm, elementwise over tensors of any shape. Two-hot coding is
// in fused_layers.h.
//
// Source: nicklashansen/tdmpc2@e9f5932 tdmpc2/common/math.py and common/scale.py;
//   wertyuilife2/bmpc@d5dabc6 bmpc/common/math.py:96-101 (KL).
// Shapes: A action size; "[..]" any leading shape. Scalars have no trailing dimension of 1.
// Thread-safety: pure functions. All are differentiable where the formula is.
#ifndef POMPC_COMMON_MODEL_MATH_H_
#define POMPC_COMMON_MODEL_MATH_H_

#include <cstdint>

#include "common/model/tensor.h"

namespace pompc {

struct LogStdRange {
  double min;
  double max;
};
at::Tensor LogStd(const at::Tensor& x, LogStdRange range);  // min + (max - min)(tanh x + 1)/2

// log N(mean + eps std; mean, std), summed over A. [.., A] -> [..].
at::Tensor GaussianLogProb(const at::Tensor& eps, const at::Tensor& log_std);
// Of the published codes with a tanh correction (TD-M(PC)^2, TD-MPC2 before 32fc2bd): A
// (sum_A(-eps^2/2 - log_std) - log(2 pi)/2), the constant once.
at::Tensor ScaledGaussianLogProb(const at::Tensor& eps, const at::Tensor& log_std);
// What tanh takes off the log density: sum_A log(relu(1 - a^2) + 1e-6), a = tanh(u). -> [..].
at::Tensor SquashCorrection(const at::Tensor& action);

// KL(p || q) of diagonal Gaussians in nats, per dimension. [.., A] each -> [.., A].
at::Tensor GaussianKl(const at::Tensor& p_mean, const at::Tensor& p_std, const at::Tensor& q_mean,
                      const at::Tensor& q_std);

// Index i of each row with probability proportional to p_i, from draws E ~ Exp(1):
// argmax(log p - log E). [B, E] each -> int64 [B].
at::Tensor SampleIndex(const at::Tensor& probability, const at::Tensor& exponential);

// The distance from the 5th to the 95th percentile of x [B], interpolated linearly; at least 1.
// Without gradients. -> [].
at::Tensor PercentileRange(const at::Tensor& x);

struct DiscountOptions {
  double divisor = 5;
  double min = 0.95;
  double max = 0.995;
};
// gamma = clamp((e - 1) / e, min, max), e = episode_decisions / divisor.
double Discount(double episode_decisions, const DiscountOptions& options);

// Sum over time with weights rho^t, divided by the number of steps (not by the weights' sum).
// x: [T] -> [].
at::Tensor TimeMean(const at::Tensor& x, double rho);

}  // namespace pompc

#endif  // POMPC_COMMON_MODEL_MATH_H_
