#include "actor/env/tasks/spline_zoom.h"

#include <array>
#include <cmath>
#include <cstdlib>

namespace pompc::dmc {
namespace {

// Turns n samples, `stride` apart, into spline coefficients; mirrored at both ends.
void FilterLine(double* c, int n, int stride) {
  const double pole = std::sqrt(3.0) - 2.0;
  const double gain = (1.0 - pole) * (1.0 - 1.0 / pole);
  for (int i = 0; i < n; ++i) c[i * stride] *= gain;

  const double last_power = std::pow(pole, n - 1);
  c[0] += last_power * c[(n - 1) * stride];
  double power = pole;
  for (int i = 1; i < n - 1; ++i) {
    c[0] += power * (c[i * stride] + last_power * c[(n - 1 - i) * stride]);
    power *= pole;
  }
  c[0] /= 1 - last_power * last_power;
  for (int i = 1; i < n; ++i) c[i * stride] += pole * c[(i - 1) * stride];

  c[(n - 1) * stride] =
      (pole * c[(n - 2) * stride] + c[(n - 1) * stride]) * pole / (pole * pole - 1);
  for (int i = n - 2; i >= 0; --i) {
    c[i * stride] = pole * (c[(i + 1) * stride] - c[i * stride]);
  }
}

// The four samples, and their weights, that make up the value at one output coordinate.
struct Taps {
  std::array<int, 4> index;
  std::array<double, 4> weight;
};

Taps TapsAt(double x, int n) {
  const int floor = static_cast<int>(std::floor(x));
  Taps taps;
  for (int k = 0; k < 4; ++k) {
    int i = std::abs(floor - 1 + k);
    if (i >= n) i = 2 * (n - 1) - i;
    taps.index[k] = i;
  }
  const double y = x - floor;
  const double z = 1.0 - y;
  taps.weight[1] = (y * y * (y - 2.0) * 3.0 + 4.0) / 6.0;
  taps.weight[2] = (z * z * (z - 2.0) * 3.0 + 4.0) / 6.0;
  taps.weight[0] = z * z * z / 6.0;
  taps.weight[3] = 1.0 - taps.weight[0] - taps.weight[1] - taps.weight[2];
  return taps;
}

}  // namespace

std::vector<double> SplineZoom(std::vector<double> image, int input_size, int output_size) {
  for (int i = 0; i < input_size; ++i) FilterLine(&image[i], input_size, input_size);
  for (int i = 0; i < input_size; ++i) FilterLine(&image[i * input_size], input_size, 1);

  const double zoom = static_cast<double>(input_size - 1) / (output_size - 1);
  std::vector<Taps> taps;
  for (int i = 0; i < output_size; ++i) taps.push_back(TapsAt(i * zoom, input_size));

  std::vector<double> output;
  output.reserve(static_cast<size_t>(output_size) * output_size);
  for (const Taps& row : taps) {
    for (const Taps& column : taps) {
      double sum = 0;
      for (int r = 0; r < 4; ++r) {
        for (int c = 0; c < 4; ++c) {
          sum +=
              image[row.index[r] * input_size + column.index[c]] * row.weight[r] * column.weight[c];
        }
      }
      output.push_back(sum);
    }
  }
  return output;
}

}  // namespace pompc::dmc
