// Learning curves: the evaluation returns of runs over environment steps, and published ones.
//
// Thread-safety: functions without state. Errors: those of the file system, with the path;
// INVALID_ARGUMENT for what a file says, with path:line.
#ifndef POMPC_CLI_LEARNING_CURVES_H_
#define POMPC_CLI_LEARNING_CURVES_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"

namespace pompc {

// The evaluations of one run.
struct RunCurve {
  std::string task;
  std::string variant;  // What it shares with runs of other seeds.
  uint64_t seed = 0;
  // Environment steps, ascending, and the mean return over the evaluation's episodes. At least one.
  std::vector<std::pair<double, double>> points;
};

// A line with a band around it.
struct BandPoint {
  double env_steps = 0, mean = 0, low = 0, high = 0;
};

struct PublishedCurve {
  std::string task;
  std::string algorithm;
  std::vector<BandPoint> points;  // By environment steps; mean over seeds and confidence bounds.
};

// Each path is a run's folder (config.textproto, returns.csv) or a table of runs: CSV with the
// columns task, variant, seed, env_steps and return, as in docs/results. The variant of a folder is
// its preset and, where runs of the same task and preset differ in a setting of what is learned or
// how, that setting: the band of a line is of seeds alone. INVALID_ARGUMENT too: a run without an
// evaluation.
absl::StatusOr<std::vector<RunCurve>> ReadRunCurves(const std::vector<std::string>& paths);

// CSV with the columns algorithm, task, env_steps, return_mean, ci_low and ci_high.
absl::StatusOr<std::vector<PublishedCurve>> ReadPublishedCurves(const std::string& path);

// Mean, least and greatest return over `runs` at every step where one of them was evaluated.
// Between its evaluations a run is interpolated; within half of its own interval before the first
// and after the last one it counts with that one (runs are not evaluated at exactly the same
// steps); beyond that it does not count.
std::vector<BandPoint> OverSeeds(const std::vector<const RunCurve*>& runs);

}  // namespace pompc

#endif  // POMPC_CLI_LEARNING_CURVES_H_
