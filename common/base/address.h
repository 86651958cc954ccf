// Where programs listen and what they call: "host:port", "[IPv6]:port", or "unix:PATH" for a socket
// on the same machine.
//
// Thread-safety: functions without state.
#ifndef POMPC_COMMON_BASE_ADDRESS_H_
#define POMPC_COMMON_BASE_ADDRESS_H_

#include <string>

#include "absl/status/status.h"

namespace pompc {

bool IsUnixSocket(const std::string& address);

// Of "unix:PATH" both are empty.
struct HostPort {
  std::string host, port;
};
HostPort SplitAddress(const std::string& address);

// INVALID_ARGUMENT, with the address and what it has to be: no port of 0 to 65535, an IPv6 address
// without brackets, or no path. The host may be empty, and is not looked up.
absl::Status CheckAddress(const std::string& address);

}  // namespace pompc

#endif  // POMPC_COMMON_BASE_ADDRESS_H_
