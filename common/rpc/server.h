// A gRPC server with what all of ours have: message limits, keepalive, the standard health service
// (grpc.health.v1) and reflection.
#ifndef POMPC_COMMON_RPC_SERVER_H_
#define POMPC_COMMON_RPC_SERVER_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/metrics/metrics.h"
#include "common/rpc/security.h"
#include "grpcpp/server.h"

namespace pompc {

class RpcServer {
 public:
  // Serves `services`, which, as `metrics`, must outlive the server. Port 0 takes a free one.
  // Exposes pompc_rpc_served_total and pompc_rpc_serve_duration_seconds. UNAVAILABLE: cannot listen
  // on `address`, e.g. because somebody else does. INVALID_ARGUMENT: as RpcSecurity::CheckServer();
  // without `security` it serves this machine alone. Raises the process's limit of open files as
  // far as it may.
  static absl::StatusOr<std::unique_ptr<RpcServer>> Start(
      const std::string& address, const std::vector<grpc::Service*>& services,
      MetricsRegistry* metrics, const RpcSecurity& security = {});

  // Cancels what is still running.
  ~RpcServer();

  // Where clients on this machine reach the server: the address given, with the port chosen.
  const std::string& address() const { return address_; }
  // 0 for a Unix socket.
  int port() const { return port_; }

  // Refuses new calls, lets running ones finish for `grace`, then cancels them; blocks until all
  // have ended. Health says NOT_SERVING meanwhile. May be repeated.
  void Shutdown(absl::Duration grace);

 private:
  RpcServer() = default;

  std::unique_ptr<grpc::Server> server_;
  std::string address_;
  int port_ = 0;
};

}  // namespace pompc

#endif  // POMPC_COMMON_RPC_SERVER_H_
