// `pompc train --monitor`: a Prometheus of the run's own.
//
// It scrapes the run's metrics_targets.json, evaluates rules and alerts, and serves the console of
// deploy/prometheus. Everything of it lies in RUN/monitor: the configuration, copied there and free
// to be changed, and the data.
#ifndef POMPC_CLI_MONITOR_H_
#define POMPC_CLI_MONITOR_H_

#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "cli/child_process.h"
#include "cli/kept_port.h"
#include "common/base/clock.h"

namespace pompc {

// Belongs to one thread.
class Monitor {
 public:
  // Finds the program `prometheus` in $PATH and keeps the port; starts nothing.
  // FAILED_PRECONDITION: it is not installed. UNAVAILABLE: the port is taken.
  static absl::StatusOr<Monitor> Create(int port);

  // Writes RUN/monitor and starts Prometheus, whose log is RUN/logs/prometheus.log.
  absl::Status Start(const std::string& run_dir);

  // What to tell the user once it has ended before it was asked to: a line, once. The run goes on.
  std::optional<std::string> UnexpectedEnd();

  // Asks it to end, and kills it after `grace`. Blocks.
  void Stop(Clock* clock, absl::Duration grace);

  // Of its web pages.
  std::string address() const;

 private:
  Monitor(std::string program, KeptPort port);

  std::string program_;
  KeptPort port_;
  std::optional<ChildProcess> process_;
};

}  // namespace pompc

#endif  // POMPC_CLI_MONITOR_H_
