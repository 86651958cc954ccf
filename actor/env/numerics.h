// Sums and products in the order in which numpy and its BLAS evaluate them, so that results agree
// to the last bit with Python's.
//
// Source: numpy 1.26 numpy/core/src/umath/loops_utils.h.src (pairwise sum). Its BLAS sums the few
// products of a vector in order, and those of a matrix product with fused multiply-add: found by
// comparing with the fixtures.
// Thread-safety: pure functions.
#ifndef POMPC_ACTOR_ENV_NUMERICS_H_
#define POMPC_ACTOR_ENV_NUMERICS_H_

#include <array>
#include <cmath>

#include "absl/types/span.h"

namespace pompc::dmc {

using Vec3 = std::array<double, 3>;

// a.dot(b), fewer than 16 elements.
inline double Dot(absl::Span<const double> a, absl::Span<const double> b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

// np.linalg.norm(a), fewer than 16 elements.
inline double Norm(absl::Span<const double> a) { return std::sqrt(Dot(a, a)); }

// a - b, elementwise.
inline Vec3 Subtract(const double* a, const double* b) {
  return {a[0] - b[0], a[1] - b[1], a[2] - b[2]};
}

// v.dot(m): `m` is a rotation matrix, row by row; rotates the global vector v into its frame.
inline Vec3 Rotate(const Vec3& v, const double* m) {
  Vec3 out;
  for (int i = 0; i < 3; ++i) {
    out[i] = v[0] * m[i] + v[1] * m[3 + i] + v[2] * m[6 + i];
  }
  return out;
}

// A row of np.vstack((..., v, ...)).dot(m): Rotate() but for the last bit.
inline Vec3 RotateRow(const Vec3& v, const double* m) {
  Vec3 out;
  for (int i = 0; i < 3; ++i) {
    out[i] = std::fma(v[2], m[6 + i], std::fma(v[1], m[3 + i], v[0] * m[i]));
  }
  return out;
}

// a.sum(), at most 128 elements.
inline double Sum(absl::Span<const double> a) {
  size_t i = 0;
  double sum = 0;
  if (a.size() >= 8) {
    std::array<double, 8> r;
    for (int k = 0; k < 8; ++k) r[k] = a[k];
    for (i = 8; i + 8 <= a.size(); i += 8) {
      for (int k = 0; k < 8; ++k) r[k] += a[i + k];
    }
    sum = ((r[0] + r[1]) + (r[2] + r[3])) + ((r[4] + r[5]) + (r[6] + r[7]));
  }
  for (; i < a.size(); ++i) sum += a[i];
  return sum;
}

}  // namespace pompc::dmc

#endif  // POMPC_ACTOR_ENV_NUMERICS_H_
