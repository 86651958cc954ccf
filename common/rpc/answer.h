// How the unary calls of our callback services end.
#ifndef POMPC_COMMON_RPC_ANSWER_H_
#define POMPC_COMMON_RPC_ANSWER_H_

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/rpc/status.h"
#include "grpcpp/server_context.h"
#include "grpcpp/support/server_callback.h"

namespace pompc {

// Ends the call with `status` and, if that is OK, the response as it is now.
inline grpc::ServerUnaryReactor* Answer(grpc::CallbackServerContext* context,
                                        const absl::Status& status) {
  grpc::ServerUnaryReactor* const reactor = context->DefaultReactor();
  reactor->Finish(ToGrpc(status));
  return reactor;
}

// Ends the call with the result as its response, or with its error.
template <typename T>
grpc::ServerUnaryReactor* Answer(grpc::CallbackServerContext* context, absl::StatusOr<T> result,
                                 T* response) {
  if (!result.ok()) return Answer(context, result.status());
  *response = *std::move(result);
  return Answer(context, absl::OkStatus());
}

}  // namespace pompc

#endif  // POMPC_COMMON_RPC_ANSWER_H_
