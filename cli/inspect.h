// `pompc inspect`: what there is to train on, and to watch.
#ifndef POMPC_CLI_INSPECT_H_
#define POMPC_CLI_INSPECT_H_

#include <string>

#include "absl/status/statusor.h"

namespace pompc {

// All tasks, one a line: name, then sizes.
absl::StatusOr<std::string> DescribeTasks();

// The spec of one task. INVALID_ARGUMENT: no such task; lists those that exist.
absl::StatusOr<std::string> DescribeTask(const std::string& task);

}  // namespace pompc

#endif  // POMPC_CLI_INSPECT_H_
