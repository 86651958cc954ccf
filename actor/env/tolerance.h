// The soft indicator from which the suite's rewards are made: 1 inside [lower, upper], falling
// outside to `value_at_margin` at a distance of `margin`.
//
// Source: dm_control 1.0.50 utils/rewards.py:22-133. Thread-safety: immutable.
#ifndef POMPC_ACTOR_ENV_TOLERANCE_H_
#define POMPC_ACTOR_ENV_TOLERANCE_H_

#include <limits>

#include "absl/types/span.h"

namespace pompc::dmc {

inline constexpr double kInfinity = std::numeric_limits<double>::infinity();

enum class Sigmoid { kGaussian, kLinear, kQuadratic, kLongTail, kReciprocal };

struct ToleranceOptions {
  double lower = 0;
  double upper = 0;   // >= lower.
  double margin = 0;  // >= 0; 0: a plain indicator.
  Sigmoid sigmoid = Sigmoid::kGaussian;
  double value_at_margin = 0.1;
};

class Tolerance {
 public:
  Tolerance(const ToleranceOptions& options);  // NOLINT: implicit, for member initialisers.

  double operator()(double x) const;
  // The same for an element of what is an array in Python: may differ in the last bit.
  double OfElement(double x) const;
  // np.mean over the elements; at most 64.
  double Mean(absl::Span<const double> x) const;

 private:
  template <double (*Square)(double)>
  double Evaluate(double x) const;

  ToleranceOptions options_;
  double scale_;
};

}  // namespace pompc::dmc

#endif  // POMPC_ACTOR_ENV_TOLERANCE_H_
