// absl::Status <-> grpc::Status. Code and message are preserved; the two lists of codes are the
// same.
#ifndef POMPC_COMMON_RPC_STATUS_H_
#define POMPC_COMMON_RPC_STATUS_H_

#include <string>

#include "absl/status/status.h"
#include "grpcpp/support/status.h"

namespace pompc {

inline absl::Status FromGrpc(const grpc::Status& status) {
  return absl::Status(static_cast<absl::StatusCode>(status.error_code()), status.error_message());
}

inline grpc::Status ToGrpc(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  return grpc::Status(static_cast<grpc::StatusCode>(status.code()), std::string(status.message()));
}

// Whether there was no answer: the peer is away, or too slow. The call may have been made.
inline bool IsAway(const absl::Status& status) {
  return absl::IsUnavailable(status) || absl::IsDeadlineExceeded(status);
}

// Whether the same request would be refused again. All else (UNAVAILABLE, CANCELLED by a server
// that shuts down, the transport's INTERNAL...) is worth another connection.
inline bool IsRefusal(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kFailedPrecondition:
    case absl::StatusCode::kResourceExhausted:
    case absl::StatusCode::kUnimplemented:
    case absl::StatusCode::kUnauthenticated:
      return true;
    default:
      return false;
  }
}

}  // namespace pompc

#endif  // POMPC_COMMON_RPC_STATUS_H_
