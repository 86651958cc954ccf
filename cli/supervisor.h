// Supervisor: keeps a set of child processes running.
//
// A child that ends without having been asked to is started again, after 1, 2, 4... 30 seconds; one
// that fails kMaxFailures times in a row, each time within a minute of its start, is given up, and
// so is one that says within a minute of its first start that it was given what cannot be.
// Thread-safety: none; used from one thread.
#ifndef POMPC_CLI_SUPERVISOR_H_
#define POMPC_CLI_SUPERVISOR_H_

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "cli/child_process.h"
#include "common/base/clock.h"

namespace pompc {

class Supervisor {
 public:
  struct Child {
    std::string name;               // "actor-3": shown, and the name of its log.
    std::vector<std::string> argv;  // Program and arguments.
    bool may_leave = false;         // Exit code 0 is the end of its work, not a failure.
    int tier = 0;                   // Stop() ends those of a higher one first.
  };
  static constexpr int kMaxFailures = 5;

  // `report` receives a line for every start after the first and every unexpected end.
  Supervisor(std::string log_dir, Clock* clock, std::function<void(const std::string&)> report)
      : log_dir_(std::move(log_dir)), clock_(clock), report_(std::move(report)) {}

  // Starts it. NOT_FOUND or its like: it cannot be started.
  absl::Status Add(Child child);

  // Notices ends, restarts what is due. A child was given up: ABORTED, or INVALID_ARGUMENT where it
  // was given what cannot be; the first line of the message says so, those below are the last of
  // its log.
  absl::Status Tick();

  // Whether this child has left for good with exit code 0.
  bool HasLeft(const std::string& name) const;

  // Tier by tier, asks all children of the tier to end and kills those that still run after
  // `grace`. Blocks. No restarts afterwards.
  void Stop(absl::Duration grace);

  // Waits until every child that may leave has done so or `grace` has passed.
  void AwaitLeave(absl::Duration grace);

  std::string LogPath(const std::string& name) const { return log_dir_ + "/" + name + ".log"; }
  int64_t restarts() const { return restarts_; }

 private:
  struct Entry {
    Child child;
    std::optional<ChildProcess> process;  // Absent while waiting for a restart.
    absl::Time started;
    absl::Time restart_at;
    int failures = 0;  // In a row.
    bool started_again = false;
    bool left = false;
  };

  absl::Status Start(Entry& entry, bool again);
  absl::Status HandleEnd(Entry& entry);
  // Blocks for one polling interval.
  void Pause();

  const std::string log_dir_;
  Clock* const clock_;
  const std::function<void(const std::string&)> report_;
  std::vector<Entry> entries_;
  int64_t restarts_ = 0;
};

// The last `lines` lines of a file; empty when it cannot be read.
std::string TailOfFile(const std::string& path, int lines);

}  // namespace pompc

#endif  // POMPC_CLI_SUPERVISOR_H_
