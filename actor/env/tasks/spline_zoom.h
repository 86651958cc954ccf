// Enlarges a square image by cubic splines, as scipy.ndimage.zoom(image, output / input) does.
//
// Source: scipy 1.11 ndimage/src/ni_splines.c (filter, weights) and ni_interpolation.c
// (NI_ZoomShift), for order 3 and mode 'constant'. Deviation: results may differ in the last place
// of a double, which stays invisible in the float heightfields made of them.
#ifndef POMPC_ACTOR_ENV_TASKS_SPLINE_ZOOM_H_
#define POMPC_ACTOR_ENV_TASKS_SPLINE_ZOOM_H_

#include <vector>

namespace pompc::dmc {

// image: input_size x input_size, row by row, input_size >= 4. Returns output_size x output_size.
std::vector<double> SplineZoom(std::vector<double> image, int input_size, int output_size);

}  // namespace pompc::dmc

#endif  // POMPC_ACTOR_ENV_TASKS_SPLINE_ZOOM_H_
