// `pompc plot`: learning curves of runs beside the published ones.
#ifndef POMPC_CLI_PLOT_H_
#define POMPC_CLI_PLOT_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace pompc {

struct PlotOptions {
  std::vector<std::string> paths;  // As ReadRunCurves(); at least one.
  std::string output = "curves.svg";
  // Only these; empty: all.
  std::vector<std::string> tasks, variants;
};

// Writes the picture. Returns what was drawn and what was not, to be printed. INVALID_ARGUMENT too:
// a task or variant that none of the runs has (the message has those there are).
absl::StatusOr<std::string> PlotCurves(const PlotOptions& options);

}  // namespace pompc

#endif  // POMPC_CLI_PLOT_H_
