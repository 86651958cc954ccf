#include "common/base/signal.h"

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>

#include "common/base/check.h"
#include "common/base/log.h"
#include "common/base/thread.h"

namespace pompc {
namespace {

// A handler may only call async-signal-safe functions: it writes the signal's number into a pipe,
// and a thread does the rest. (Blocking the signals for a sigwait() instead would be inherited by
// child processes.)
int pipe_write_end = -1;
std::atomic<int> signals_seen{0};

void HandleSignal(int signal) {
  if (signals_seen.fetch_add(1) > 0) _exit(128 + signal);
  const int saved_errno = errno;
  const char number = static_cast<char>(signal);
  [[maybe_unused]] const ssize_t n = write(pipe_write_end, &number, 1);
  errno = saved_errno;
}

Event* Install() {
  int ends[2];
  POMPC_CHECK(pipe2(ends, O_CLOEXEC) == 0) << "errno=" << errno;
  pipe_write_end = ends[1];
  auto* event = new Event;
  // Lives as long as the process, blocked in read() unless a signal comes.
  static Thread* const thread = new Thread("signals", [event, read_end = ends[0]] {
    char signal = 0;
    while (read(read_end, &signal, 1) < 0 && errno == EINTR) {
    }
    POMPC_LOG(INFO) << "asked to stop signal=" << static_cast<int>(signal);
    event->Notify();
  });
  (void)thread;
  struct sigaction action = {};
  action.sa_handler = HandleSignal;
  action.sa_flags = SA_RESTART;
  sigemptyset(&action.sa_mask);
  for (int signal : {SIGTERM, SIGINT}) POMPC_CHECK(sigaction(signal, &action, nullptr) == 0);
  return event;
}

}  // namespace

const Event& TerminationRequest() {
  static const Event* const event = Install();
  return *event;
}

}  // namespace pompc
