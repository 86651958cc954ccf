#include "actor/env/tolerance.h"

#include <array>
#include <cmath>

#include "actor/env/numerics.h"
#include "common/base/check.h"

namespace pompc::dmc {
namespace {

double Scale(Sigmoid sigmoid, double value) {
  switch (sigmoid) {
    case Sigmoid::kGaussian:
      return std::sqrt(-2 * std::log(value));
    case Sigmoid::kLinear:
      return 1 - value;
    case Sigmoid::kQuadratic:
      return std::sqrt(1 - value);
    case Sigmoid::kLongTail:
      return std::sqrt(1 / value - 1);
    case Sigmoid::kReciprocal:
      return 1 / value - 1;
  }
  return 0;
}

// numpy squares a scalar by pow(), whose last bit is not always that of x * x, and an array by
// multiplying. A compiler would turn pow(x, 2.0) into x * x, were the exponent known to it.
double ScalarSquare(double x) {
  static const volatile double exponent = 2;
  return std::pow(x, exponent);
}

double ArraySquare(double x) { return x * x; }

}  // namespace

Tolerance::Tolerance(const ToleranceOptions& options)
    : options_(options), scale_(Scale(options.sigmoid, options.value_at_margin)) {}

template <double (*Square)(double)>
double Tolerance::Evaluate(double x) const {
  const ToleranceOptions& o = options_;
  if (o.lower <= x && x <= o.upper) return 1.0;
  if (o.margin == 0) return 0.0;
  const double distance = (x < o.lower ? o.lower - x : x - o.upper) / o.margin;
  const double scaled = distance * scale_;
  switch (o.sigmoid) {
    case Sigmoid::kGaussian:
      return std::exp(-0.5 * Square(scaled));
    case Sigmoid::kLinear:
      return std::abs(scaled) < 1 ? 1 - scaled : 0.0;
    case Sigmoid::kQuadratic:
      return std::abs(scaled) < 1 ? 1 - Square(scaled) : 0.0;
    case Sigmoid::kLongTail:
      return 1 / (Square(scaled) + 1);
    case Sigmoid::kReciprocal:
      return 1 / (std::abs(distance) * scale_ + 1);
  }
  return 0;
}

double Tolerance::operator()(double x) const { return Evaluate<ScalarSquare>(x); }

double Tolerance::OfElement(double x) const { return Evaluate<ArraySquare>(x); }

double Tolerance::Mean(absl::Span<const double> x) const {
  std::array<double, 64> values;
  POMPC_CHECK(x.size() <= values.size());
  for (size_t i = 0; i < x.size(); ++i) values[i] = OfElement(x[i]);
  return Sum(absl::MakeSpan(values.data(), x.size())) / static_cast<double>(x.size());
}

}  // namespace pompc::dmc
