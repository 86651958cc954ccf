// How the unary calls of our callback services end.
#ifndef POMPC_COMMON_RPC_ANSWER_H_
#define POMPC_COMMON_RPC_ANSWER_H_

#include "absl/status/status.h"
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

}  // namespace pompc

#endif  // POMPC_COMMON_RPC_ANSWER_H_
