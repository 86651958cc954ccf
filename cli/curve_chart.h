// A picture of learning curves, as SVG: a panel for each task, in it a line with a band for each
// variant, and published curves dashed behind them.
//
// Each line is a polyline of class "mean", each band a polygon of class "band"; published ones are
// "published mean" and "published band". Both name their task and variant or algorithm in
// data-task and data-name.
#ifndef POMPC_CLI_CURVE_CHART_H_
#define POMPC_CLI_CURVE_CHART_H_

#include <string>
#include <vector>

#include "cli/learning_curves.h"

namespace pompc {

struct CurveChart {
  std::string svg;
  std::vector<std::string> notes;  // What a viewer might miss, one line each.
};

// runs: at least one. Published curves are drawn to their first point at or after the last one of
// the runs, and left out where that is more than four times as far.
CurveChart DrawCurves(const std::vector<RunCurve>& runs,
                      const std::vector<PublishedCurve>& published);

}  // namespace pompc

#endif  // POMPC_CLI_CURVE_CHART_H_
