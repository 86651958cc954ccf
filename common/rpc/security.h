// How our programs prove to each other who they are: TLS by certificate files, and a bearer token
// by a file. docs/security.md tells how to use it.
//
// Unix sockets take neither: the permissions of the folder that they lie in guard them.
//
// Every file is read again when it changes, so that certificates and tokens can be replaced without
// a restart. Connections that exist stay as they are.
#ifndef POMPC_COMMON_RPC_SECURITY_H_
#define POMPC_COMMON_RPC_SECURITY_H_

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "grpcpp/security/credentials.h"
#include "grpcpp/security/server_credentials.h"

namespace pompc {

// Empty paths: without. A value; thread-safe while nobody changes it.
struct RpcSecurity {
  // PEM. Shown to the peer. A server with a certificate speaks TLS. Both or neither.
  std::string certificate_file, key_file;
  // PEM, one or more. A client with it speaks TLS, to servers that have a certificate of one of
  // these authorities for the host that the client connects to. A server with it serves only
  // clients that show a certificate of one of them.
  std::string ca_file;
  // Tokens, one a line. A client shows the first one with every call; a server answers every call,
  // health and reflection too, that shows any of them.
  std::string token_file;
  // A server may listen beyond this machine without TLS.
  bool insecure = false;
  // How old what is known of the certificate files may get.
  absl::Duration reload_every = absl::Minutes(1);

  // Reads the files. INVALID_ARGUMENT: as CheckAddress(); what is wrong with which file, and what
  // to do: a combination that makes no sense, no file, no certificate, key or token in it, a
  // certificate that has expired, a key of another certificate; for a server that it would listen
  // beyond this machine without TLS; for a client that it would send its token there without TLS.
  absl::Status CheckServer(const std::string& address) const;
  absl::Status CheckClient(const std::string& address) const;
};

// Of what has passed the check. Never null.
std::shared_ptr<grpc::ServerCredentials> MakeServerCredentials(const RpcSecurity& security,
                                                               const std::string& address);
std::shared_ptr<grpc::ChannelCredentials> MakeChannelCredentials(const RpcSecurity& security,
                                                                 const std::string& address);

}  // namespace pompc

#endif  // POMPC_COMMON_RPC_SECURITY_H_
