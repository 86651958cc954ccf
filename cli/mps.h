// NVIDIA's Multi-Process Service: a daemon by which kernels of several processes run on a GPU at
// the same time. Without it the processes take turns.
#ifndef POMPC_CLI_MPS_H_
#define POMPC_CLI_MPS_H_

#include <string>

#include "absl/status/status.h"
#include "cli/supervisor.h"
#include "common/base/clock.h"

namespace pompc {

// Has `supervisor` start the daemon as "mps" of that tier, with its sockets in `folder`, waits
// until it listens, and lets the processes that this one starts from now on use it, by their
// environment. A daemon that CUDA_MPS_PIPE_DIRECTORY names already is used instead. NOT_FOUND: its
// program is not on PATH. DEADLINE_EXCEEDED: it does not listen. Not while other threads read the
// environment.
absl::Status StartMps(const std::string& folder, int tier, Clock* clock, Supervisor* supervisor);

}  // namespace pompc

#endif  // POMPC_CLI_MPS_H_
