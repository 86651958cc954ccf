// How connections of a benchmark are guarded, with certificates made for it.
#ifndef POMPC_BENCH_CERTIFICATES_H_
#define POMPC_BENCH_CERTIFICATES_H_

#include <cstdlib>
#include <string>

#include "absl/strings/str_cat.h"
#include "bench/folder.h"
#include "common/base/check.h"
#include "common/rpc/security.h"

namespace pompc {

// The two sides of a connection.
struct Guard {
  const char* name;
  RpcSecurity server, client;
};

// An authority and a certificate for 127.0.0.1 of it, in files that are removed with the object.
class Certificates {
 public:
  Certificates() {
    Run("req -x509 -days 1 -subj /CN=bench -keyout ca.key -out ca.pem");
    Run("req -subj /CN=bench -addext subjectAltName=IP:127.0.0.1 -keyout own.key -out own.csr");
    Run("x509 -req -copy_extensions copy -in own.csr -CA ca.pem -CAkey ca.key -days 1 -out "
        "own.pem");
  }

  Guard Plain() const { return {.name = "plain", .server = {}, .client = {}}; }
  Guard Tls() const {
    return {.name = "TLS",
            .server = {.certificate_file = File("own.pem"), .key_file = File("own.key")},
            .client = {.ca_file = File("ca.pem")}};
  }
  Guard MutualTls() const {
    const RpcSecurity both = {.certificate_file = File("own.pem"),
                              .key_file = File("own.key"),
                              .ca_file = File("ca.pem")};
    return {.name = "mutual TLS", .server = both, .client = both};
  }

 private:
  std::string File(const char* name) const { return absl::StrCat(folder_.path, "/", name); }
  void Run(const std::string& arguments) {
    const char* const key =
        arguments.starts_with("req") ? " -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes" : "";
    const std::string command =
        absl::StrCat("cd ", folder_.path, " && openssl ", arguments, key, " 2> openssl.log");
    POMPC_CHECK(std::system(command.c_str()) == 0) << command;
  }

  const TemporaryFolder folder_;
};

}  // namespace pompc

#endif  // POMPC_BENCH_CERTIFICATES_H_
