// Tells a request that replay refuses from a connection that broke.
#ifndef POMPC_REPLAY_CLIENT_REFUSAL_H_
#define POMPC_REPLAY_CLIENT_REFUSAL_H_

#include "absl/status/status.h"

namespace pompc {

// Whether the same request would be refused again. All else (UNAVAILABLE, CANCELLED by a server
// that shuts down, the transport's INTERNAL...) is worth another connection.
inline bool IsRefusal(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kFailedPrecondition:
    case absl::StatusCode::kResourceExhausted:
    case absl::StatusCode::kUnimplemented:
      return true;
    default:
      return false;
  }
}

}  // namespace pompc

#endif  // POMPC_REPLAY_CLIENT_REFUSAL_H_
