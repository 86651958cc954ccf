// RunLock: the right to lead the run in a folder; one process at a time has it.
//
// A lock of the kernel on RUN_DIR/learner.lock, which goes with the process that holds it, however
// it ends. The file tells who that is and stays behind.
// Thread-safety: thread-compatible.
#ifndef POMPC_LEARNER_SERVICE_RUN_LOCK_H_
#define POMPC_LEARNER_SERVICE_RUN_LOCK_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"

namespace pompc {

class RunLock {
 public:
  // ABORTED: another process has it; the message says which. Those of the file system.
  static absl::StatusOr<std::unique_ptr<RunLock>> Acquire(const std::string& run_dir);
  ~RunLock();

 private:
  explicit RunLock(int descriptor) : descriptor_(descriptor) {}
  const int descriptor_;
};

}  // namespace pompc

#endif  // POMPC_LEARNER_SERVICE_RUN_LOCK_H_
