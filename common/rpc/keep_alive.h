// gRPC tears its threads down when the last channel and server are gone, and may wait 10 s for
// sockets that are still being closed (1.51, iomgr.cc). A process that once used gRPC keeps it
// instead.
#ifndef POMPC_COMMON_RPC_KEEP_ALIVE_H_
#define POMPC_COMMON_RPC_KEEP_ALIVE_H_

#include "grpc/grpc.h"

namespace pompc {

// Thread-safe.
inline void KeepGrpcAlive() {
  static const bool kept = [] {
    grpc_init();
    return true;
  }();
  (void)kept;
}

}  // namespace pompc

#endif  // POMPC_COMMON_RPC_KEEP_ALIVE_H_
