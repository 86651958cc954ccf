// `pompc train`: a whole run on this machine, as child processes of this one.
#ifndef POMPC_CLI_TRAIN_H_
#define POMPC_CLI_TRAIN_H_

#include <optional>
#include <string>

#include "absl/status/status.h"
#include "proto/pompc/v1/config.pb.h"

namespace pompc {

struct TrainOptions {
  v1::RunConfig config;
  // The run's folder: resolved config, returns, losses, checkpoint, a log per process. Created;
  // must not hold another run unless `resume`.
  std::string run_dir;
  // Continue the run in `run_dir` from its checkpoint.
  bool resume = false;
  // Also runs a Prometheus (monitor.h) on this port of 127.0.0.1; 0: a free one.
  std::optional<int> monitor_port;
};

// Starts learner, replay (if config.replay.servers asks for it), actors and evaluator, shows
// progress on stdout, restarts children that die, and blocks until the run is finished (OK), or
// Ctrl-C, SIGTERM or a closed terminal asks it to stop (CANCELLED, after a checkpoint). Nothing it
// started runs afterwards. Errors: FAILED_PRECONDITION: run_dir holds another run; ABORTED: a child
// fails again and again, with the last lines of its log; those of Monitor::Create(), before
// anything starts.
absl::Status Train(const TrainOptions& options);

}  // namespace pompc

#endif  // POMPC_CLI_TRAIN_H_
