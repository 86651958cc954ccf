#include "common/base/signal.h"

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <optional>

#include "common/base/check.h"
#include "common/base/log.h"
#include "common/base/thread.h"

namespace pompc {
namespace {

// A handler may only call async-signal-safe functions: it writes the signal's number into a pipe,
// and a thread does the rest. (Blocking the signals for a sigwait() instead would be inherited by
// child processes.)
int pipe_write_end = -1;
std::atomic<int> requests_seen{0};  // By someone who could be waiting.

void HandleSignal(int signal) {
  if (signal != SIGHUP && requests_seen.fetch_add(1) > 0) _exit(128 + signal);
  const int saved_errno = errno;
  const char number = static_cast<char>(signal);
  [[maybe_unused]] const ssize_t n = write(pipe_write_end, &number, 1);
  errno = saved_errno;
}

// Lives as long as the process.
struct Termination {
  Event requested;
  std::optional<Thread> thread;  // Blocked in read() unless a signal comes.
};

Termination* Install() {
  int ends[2];
  POMPC_CHECK(pipe2(ends, O_CLOEXEC) == 0) << "errno=" << errno;
  pipe_write_end = ends[1];
  auto* const termination = new Termination;
  termination->thread.emplace("signals", [termination, read_end = ends[0]] {
    char signal = 0;
    while (read(read_end, &signal, 1) < 0 && errno == EINTR) {
    }
    POMPC_LOG(INFO) << "asked to stop signal=" << static_cast<int>(signal);
    termination->requested.Notify();
  });
  struct sigaction action = {};
  action.sa_handler = HandleSignal;
  action.sa_flags = SA_RESTART;
  sigemptyset(&action.sa_mask);
  for (int signal : {SIGTERM, SIGINT}) POMPC_CHECK(sigaction(signal, &action, nullptr) == 0);
  struct sigaction inherited = {};
  POMPC_CHECK(sigaction(SIGHUP, nullptr, &inherited) == 0);
  if (inherited.sa_handler != SIG_IGN) POMPC_CHECK(sigaction(SIGHUP, &action, nullptr) == 0);
  return termination;
}

}  // namespace

const Event& TerminationRequest() {
  static const Termination* const termination = Install();
  return termination->requested;
}

}  // namespace pompc
