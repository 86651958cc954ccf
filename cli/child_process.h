// A program that `pompc train` runs beside itself.
#ifndef POMPC_CLI_CHILD_PROCESS_H_
#define POMPC_CLI_CHILD_PROCESS_H_

#include <sys/types.h>

#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace pompc {

// The folder that this program lies in, where its neighbours are.
absl::StatusOr<std::string> ProgramFolder();

// The first program of that name in $PATH.
std::optional<std::string> FindOnPath(const std::string& program);

// Thread-safety: none; used from the thread that started it, since the kernel ends a child with the
// thread that made it (so that children never outlive a killed pompc).
class ChildProcess {
 public:
  // Starts `argv` with stdout and stderr appended to `log_path`, in a process group of its own, so
  // that a Ctrl-C in the terminal reaches pompc alone. NOT_FOUND or its like: it did not start.
  static absl::StatusOr<ChildProcess> Start(const std::vector<std::string>& argv,
                                            const std::string& log_path);

  ChildProcess(ChildProcess&& other) noexcept;
  ChildProcess& operator=(ChildProcess&& other) noexcept;
  // Kills what still runs and waits for it.
  ~ChildProcess();

  // What became of it, once it has ended: "exit code 1", "killed by signal 9 (Killed)". Does not
  // block.
  struct End {
    int code = -1;  // Exit code; -1: a signal ended it.
    std::string what;
  };
  const std::optional<End>& Poll();

  // Sends a signal; nothing happens once it has ended.
  void Signal(int signal);

  pid_t pid() const { return pid_; }

 private:
  explicit ChildProcess(pid_t pid) : pid_(pid) {}

  pid_t pid_ = -1;  // -1: moved from.
  std::optional<End> end_;
};

}  // namespace pompc

#endif  // POMPC_CLI_CHILD_PROCESS_H_
