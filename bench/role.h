// Parts of a benchmark in processes of their own, which obey the one that started them.
//
// Start all roles before the first thread and the first call of gRPC: they are forked.
#ifndef POMPC_BENCH_ROLE_H_
#define POMPC_BENCH_ROLE_H_

#include <limits.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <functional>

#include "common/base/check.h"

namespace pompc {

// Answer: what it says after each command; plain data, with a default, and a double cpu_seconds for
// its user and system time since it started, which is filled in here. Thread-safety: none.
template <typename Answer>
class Role {
 public:
  // Carries out a command, one letter but 'q', and fills in the answer.
  using Obey = std::function<void(char command, Answer* answer)>;

  // make: in the new process, makes what obeys.
  explicit Role(const std::function<Obey()>& make) {
    int to[2], from[2];
    POMPC_CHECK(pipe(to) == 0 && pipe(from) == 0);
    pid_ = fork();
    POMPC_CHECK(pid_ >= 0);
    if (pid_ == 0) {
      const Obey obey = make();
      for (char command; read(to[0], &command, 1) == 1 && command != 'q';) {
        Answer answer;
        obey(command, &answer);
        answer.cpu_seconds = CpuSeconds();
        POMPC_CHECK(write(from[1], &answer, sizeof(answer)) == sizeof(answer));
      }
      _exit(0);
    }
    to_ = to[1];
    from_ = from[0];
  }
  Role(const Role&) = delete;
  Role& operator=(const Role&) = delete;
  // Waits for the process, which ends without destroying what it made.
  ~Role() {
    Tell('q');
    waitpid(pid_, nullptr, 0);
    close(to_);
    close(from_);
  }

  void Tell(char command) { POMPC_CHECK(write(to_, &command, 1) == 1) << "a role has died"; }
  // Blocks until the command is carried out.
  Answer Await() {
    static_assert(sizeof(Answer) <= PIPE_BUF, "is written and read whole");
    Answer answer;
    POMPC_CHECK(read(from_, &answer, sizeof(answer)) == sizeof(answer)) << "a role has died";
    return answer;
  }
  Answer Ask(char command) {
    Tell(command);
    return Await();
  }

 private:
  static double CpuSeconds() {
    rusage usage;
    POMPC_CHECK(getrusage(RUSAGE_SELF, &usage) == 0);
    const auto seconds = [](const timeval& t) { return t.tv_sec + 1e-6 * t.tv_usec; };
    return seconds(usage.ru_utime) + seconds(usage.ru_stime);
  }

  pid_t pid_ = 0;
  int to_ = 0, from_ = 0;
};

}  // namespace pompc

#endif  // POMPC_BENCH_ROLE_H_
