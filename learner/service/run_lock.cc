#include "learner/service/run_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>

#include "absl/memory/memory.h"
#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "common/base/file.h"

namespace pompc {

absl::StatusOr<std::unique_ptr<RunLock>> RunLock::Acquire(const std::string& run_dir) {
  const std::string path = absl::StrCat(run_dir, "/learner.lock");
  const int descriptor = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (descriptor < 0) return absl::ErrnoToStatus(errno, absl::StrCat("cannot open ", path));
  auto lock = absl::WrapUnique(new RunLock(descriptor));
  if (flock(descriptor, LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) {
      return absl::ErrnoToStatus(errno, absl::StrCat("cannot lock ", path));
    }
    const std::string holder = ReadFile(path).value_or("");
    return absl::AbortedError(
        absl::StrCat(run_dir, " is in use: the learner with ",
                     holder.empty() ? "an unknown pid" : absl::StripTrailingAsciiWhitespace(holder),
                     " leads its run; stop that one first, or take another folder"));
  }
  char host[256] = "";
  gethostname(host, sizeof(host) - 1);
  const std::string me = absl::StrCat("pid ", getpid(), " on ", host, "\n");
  if (ftruncate(descriptor, 0) != 0 ||
      write(descriptor, me.data(), me.size()) != static_cast<ssize_t>(me.size())) {
    return absl::ErrnoToStatus(errno, absl::StrCat("cannot write ", path));
  }
  return lock;
}

RunLock::~RunLock() { close(descriptor_); }

}  // namespace pompc
