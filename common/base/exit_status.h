// The exit statuses of all our programs.
#ifndef POMPC_COMMON_BASE_EXIT_STATUS_H_
#define POMPC_COMMON_BASE_EXIT_STATUS_H_

#include "absl/status/status.h"

namespace pompc {

// Of a program that was given what cannot be: a wrong command line, a config out of range, a device
// that is not there, a certificate that is none; also by another program: a row or snapshot that is
// refused.
inline constexpr int kWrongCommandLine = 2;

// Of a program that ends with `status`: INVALID_ARGUMENT is what cannot be.
inline int ExitStatus(const absl::Status& status) {
  if (status.ok()) return 0;
  return absl::IsInvalidArgument(status) ? kWrongCommandLine : 1;
}

}  // namespace pompc

#endif  // POMPC_COMMON_BASE_EXIT_STATUS_H_
