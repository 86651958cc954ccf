// Why a channel does not connect, in words for people.
//
// A server that refuses a client's certificate just closes the connection, and gRPC tells no more
// of it than "Socket closed". So when a call ends with UNAVAILABLE, a TLS handshake of our own is
// made with the same files, and what it came to stands before gRPC's message in the status of the
// calls that follow, and once in the log.
#ifndef POMPC_COMMON_RPC_DIAGNOSIS_H_
#define POMPC_COMMON_RPC_DIAGNOSIS_H_

#include <memory>
#include <string>

#include "common/rpc/security.h"
#include "grpcpp/support/client_interceptor.h"

namespace pompc {

// For a channel to `address`: sees how its calls end.
std::unique_ptr<grpc::experimental::ClientInterceptorFactoryInterface> MakeDiagnosingInterceptor(
    const std::string& address, const RpcSecurity& security);

}  // namespace pompc

#endif  // POMPC_COMMON_RPC_DIAGNOSIS_H_
