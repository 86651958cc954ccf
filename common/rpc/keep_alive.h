// gRPC tears its threads down when the last channel and server are gone, and may wait 10 s for
// sockets that are still being closed (1.51, iomgr.cc). A process that once used gRPC keeps it
// instead.
//
// A channel makes progress while somebody waits for a call on it. A call on a channel without
// connection fails at once, so that nobody does, and the handshake with a server that has just come
// up is left to a timer, every 5 s unless told otherwise (1.51, backup_poller.cc).
#ifndef POMPC_COMMON_RPC_KEEP_ALIVE_H_
#define POMPC_COMMON_RPC_KEEP_ALIVE_H_

#include <stdlib.h>

#include "grpc/grpc.h"

namespace pompc {

// Thread-safe. Before anything else of gRPC.
inline void KeepGrpcAlive() {
  static const bool kept = [] {
    setenv("GRPC_CLIENT_CHANNEL_BACKUP_POLL_INTERVAL_MS", "100", /*replace=*/0);
    grpc_init();
    return true;
  }();
  (void)kept;
}

}  // namespace pompc

#endif  // POMPC_COMMON_RPC_KEEP_ALIVE_H_
