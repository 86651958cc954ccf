// The command line of RpcSecurity, the same for all programs.
#ifndef POMPC_COMMON_RPC_SECURITY_FLAGS_H_
#define POMPC_COMMON_RPC_SECURITY_FLAGS_H_

#include "CLI/CLI.hpp"
#include "common/rpc/security.h"

namespace pompc {

// `security` must outlive the parsing. For a program that serves nobody `serves` is false: it has
// no use for --insecure.
inline void AddSecurityFlags(CLI::App* app, RpcSecurity* security, bool serves) {
  app->add_option("--tls-cert", security->certificate_file,
                  "Certificate (PEM) to show to peers; a server with one speaks TLS")
      ->envname("POMPC_TLS_CERT");
  app->add_option("--tls-key", security->key_file, "Its private key (PEM)")
      ->envname("POMPC_TLS_KEY");
  app->add_option("--tls-ca", security->ca_file,
                  "Certificates (PEM) of the authorities that peers' certificates have to be of; a "
                  "client with it speaks TLS, a server with it asks its clients for theirs")
      ->envname("POMPC_TLS_CA");
  app->add_option("--token-file", security->token_file,
                  "Tokens, one a line: a client shows the first, a server accepts all")
      ->envname("POMPC_TOKEN_FILE");
  if (!serves) return;
  app->add_flag("--insecure", security->insecure,
                "Listen beyond this machine without TLS: whoever reaches the port may take part")
      ->envname("POMPC_INSECURE");
}

}  // namespace pompc

#endif  // POMPC_COMMON_RPC_SECURITY_FLAGS_H_
