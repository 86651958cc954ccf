#include "common/rpc/security.h"

#include <arpa/inet.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include <ctime>
#include <map>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "common/base/address.h"
#include "common/base/file.h"
#include "common/base/status_macros.h"
#include "common/rpc/openssl_ptr.h"
#include "common/rpc/status.h"
#include "grpcpp/security/auth_metadata_processor.h"
#include "grpcpp/security/tls_certificate_provider.h"
#include "grpcpp/security/tls_certificate_verifier.h"
#include "grpcpp/security/tls_credentials_options.h"

namespace pompc {
namespace {

constexpr char kHeader[] = "authorization";
constexpr char kScheme[] = "Bearer ";

using X509Ptr = OpensslPtr<X509, X509_free>;
using KeyPtr = OpensslPtr<EVP_PKEY, EVP_PKEY_free>;

// Whether only programs of this machine get there. Of host names only "localhost".
bool StaysOnThisMachine(const std::string& address) {
  if (IsUnixSocket(address)) return true;
  const std::string host = SplitAddress(address).host;
  in_addr ipv4;
  in6_addr ipv6;
  if (inet_pton(AF_INET, host.c_str(), &ipv4) == 1) return ntohl(ipv4.s_addr) >> 24 == 127;
  if (inet_pton(AF_INET6, host.c_str(), &ipv6) == 1) return IN6_IS_ADDR_LOOPBACK(&ipv6);
  return host == "localhost";
}

// The content of the file that `flag` names.
absl::StatusOr<std::string> Read(const char* flag, const std::string& path) {
  absl::StatusOr<std::string> content = ReadFile(path);
  if (content.ok()) return content;
  return absl::InvalidArgumentError(absl::StrCat(flag, ": ", content.status().message()));
}

BioPtr AsBio(const std::string& content) {
  return BioPtr(BIO_new_mem_buf(content.data(), static_cast<int>(content.size())));
}

// "Nov 27 05:27:19 2026 GMT".
std::string TimeText(const ASN1_TIME* time) {
  const BioPtr bio(BIO_new(BIO_s_mem()));
  ASN1_TIME_print(bio.get(), time);
  char* text;
  const long size = BIO_get_mem_data(bio.get(), &text);
  return std::string(text, static_cast<size_t>(size));
}

// The first certificate of the file.
absl::StatusOr<X509Ptr> ReadCertificate(const char* flag, const std::string& path) {
  POMPC_ASSIGN_OR_RETURN(const std::string content, Read(flag, path));
  X509Ptr certificate(PEM_read_bio_X509(AsBio(content).get(), nullptr, nullptr, nullptr));
  ERR_clear_error();
  if (certificate != nullptr) return certificate;
  return absl::InvalidArgumentError(
      absl::StrCat(flag, ": ", path, " holds no certificate in PEM (-----BEGIN CERTIFICATE-----)"));
}

absl::StatusOr<KeyPtr> ReadKey(const std::string& path) {
  POMPC_ASSIGN_OR_RETURN(const std::string content, Read("--tls-key", path));
  const auto no_password = [](char*, int, int, void*) { return 0; };
  KeyPtr key(PEM_read_bio_PrivateKey(AsBio(content).get(), nullptr, no_password, nullptr));
  ERR_clear_error();
  if (key != nullptr) return key;
  return absl::InvalidArgumentError(absl::StrCat(
      "--tls-key: ", path, " holds no private key in PEM that can be read without a password"));
}

// The certificate that is shown to peers.
absl::Status CheckIdentity(const std::string& certificate_file, const std::string& key_file) {
  POMPC_ASSIGN_OR_RETURN(const X509Ptr certificate,
                         ReadCertificate("--tls-cert", certificate_file));
  POMPC_ASSIGN_OR_RETURN(const KeyPtr key, ReadKey(key_file));
  if (X509_check_private_key(certificate.get(), key.get()) != 1) {
    ERR_clear_error();
    return absl::InvalidArgumentError(
        absl::StrCat("--tls-key: ", key_file, " is not the key of the certificate in ",
                     certificate_file, "; give those that were made together"));
  }
  const ASN1_TIME* const begin = X509_get0_notBefore(certificate.get());
  const ASN1_TIME* const end = X509_get0_notAfter(certificate.get());
  if (X509_cmp_current_time(end) < 0) {
    return absl::InvalidArgumentError(absl::StrCat("--tls-cert: the certificate in ",
                                                   certificate_file, " has expired on ",
                                                   TimeText(end), "; make a new one"));
  }
  if (X509_cmp_current_time(begin) > 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("--tls-cert: the certificate in ", certificate_file, " is valid only from ",
                     TimeText(begin), " on; is this machine's clock right?"));
  }
  return absl::OkStatus();
}

// Not empty.
absl::StatusOr<std::vector<std::string>> ReadTokens(const std::string& path) {
  POMPC_ASSIGN_OR_RETURN(const std::string content, Read("--token-file", path));
  std::vector<std::string> tokens;
  for (absl::string_view line : absl::StrSplit(content, '\n')) {
    line = absl::StripAsciiWhitespace(line);
    if (line.empty()) continue;
    for (const char c : line) {
      if (!absl::ascii_isgraph(static_cast<unsigned char>(c))) {
        return absl::InvalidArgumentError(absl::StrCat(
            "--token-file: a token in ", path,
            " has a character that is no visible ASCII; make one with: openssl rand -hex 32"));
      }
    }
    tokens.emplace_back(line);
  }
  if (!tokens.empty()) return tokens;
  return absl::InvalidArgumentError(
      absl::StrCat("--token-file: ", path, " holds no token; make one with: openssl rand -hex 32"));
}

// What servers and clients have in common.
absl::Status CheckFiles(const RpcSecurity& security) {
  if (security.certificate_file.empty() != security.key_file.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("--tls-cert and --tls-key belong together: ",
                     security.key_file.empty() ? "--tls-key" : "--tls-cert", " is missing"));
  }
  if (!security.certificate_file.empty()) {
    POMPC_RETURN_IF_ERROR(CheckIdentity(security.certificate_file, security.key_file));
  }
  if (!security.ca_file.empty()) {
    POMPC_RETURN_IF_ERROR(ReadCertificate("--tls-ca", security.ca_file).status());
  }
  if (!security.token_file.empty()) {
    POMPC_RETURN_IF_ERROR(ReadTokens(security.token_file).status());
  }
  return absl::OkStatus();
}

class ShowToken final : public grpc::MetadataCredentialsPlugin {
 public:
  explicit ShowToken(std::string file) : file_(std::move(file)) {}

  grpc::Status GetMetadata(grpc::string_ref, grpc::string_ref, const grpc::AuthContext&,
                           std::multimap<std::string, std::string>* metadata) override {
    const absl::StatusOr<std::vector<std::string>> tokens = ReadTokens(file_);
    if (!tokens.ok()) return ToGrpc(tokens.status());
    metadata->emplace(kHeader, absl::StrCat(kScheme, tokens->front()));
    return grpc::Status::OK;
  }

 private:
  const std::string file_;
};

class AskForToken final : public grpc::AuthMetadataProcessor {
 public:
  explicit AskForToken(std::string file) : file_(std::move(file)) {}

  grpc::Status Process(const InputMetadata& shown, grpc::AuthContext*, OutputMetadata* consumed,
                       OutputMetadata*) override {
    const auto header = shown.find(kHeader);
    if (header == shown.end()) {
      return grpc::Status(grpc::StatusCode::UNAUTHENTICATED,
                          "the server asks for a token and none was shown: give --token-file");
    }
    const absl::string_view value(header->second.data(), header->second.size());
    consumed->emplace(kHeader, std::string(value));
    const absl::StatusOr<std::vector<std::string>> tokens = ReadTokens(file_);
    if (!tokens.ok()) {
      return grpc::Status(
          grpc::StatusCode::UNAVAILABLE,
          absl::StrCat("the server cannot read its tokens: ", tokens.status().message()));
    }
    const absl::string_view token = absl::StripPrefix(value, kScheme);
    for (const std::string& known : *tokens) {
      if (known.size() == token.size() &&
          CRYPTO_memcmp(known.data(), token.data(), token.size()) == 0) {
        return grpc::Status::OK;
      }
    }
    return grpc::Status(grpc::StatusCode::UNAUTHENTICATED,
                        "the server does not know the token that was shown: the first line of "
                        "--token-file has to be a line of the server's");
  }

 private:
  const std::string file_;
};

std::shared_ptr<grpc::experimental::CertificateProviderInterface> WatchFiles(
    const RpcSecurity& security) {
  return std::make_shared<grpc::experimental::FileWatcherCertificateProvider>(
      security.key_file, security.certificate_file, security.ca_file,
      static_cast<unsigned int>(absl::ToInt64Seconds(security.reload_every)));
}

}  // namespace

absl::Status RpcSecurity::CheckServer(const std::string& address) const {
  POMPC_RETURN_IF_ERROR(CheckAddress(address));
  if (IsUnixSocket(address)) return absl::OkStatus();
  if (certificate_file.empty() && !ca_file.empty()) {
    return absl::InvalidArgumentError(
        "--tls-ca: a server that asks for certificates needs one: give --tls-cert and --tls-key");
  }
  if (certificate_file.empty() && !StaysOnThisMachine(address)) {
    if (!token_file.empty()) {
      return absl::InvalidArgumentError(
          absl::StrCat("--token-file: whoever listens to the network could read the token on its "
                       "way to ",
                       address, ": give --tls-cert and --tls-key, or listen on 127.0.0.1"));
    }
    if (!insecure) {
      return absl::InvalidArgumentError(absl::StrCat(
          "listening on ", address,
          " without TLS lets everybody who reaches it take part: give --tls-cert, --tls-key and "
          "--tls-ca, or listen on 127.0.0.1; on a network that you trust, --insecure"));
    }
  }
  return CheckFiles(*this);
}

absl::Status RpcSecurity::CheckClient(const std::string& address) const {
  POMPC_RETURN_IF_ERROR(CheckAddress(address));
  if (IsUnixSocket(address)) return absl::OkStatus();
  if (ca_file.empty() && !certificate_file.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "--tls-cert: to speak TLS with ", address,
        " give --tls-ca too, the certificate of the authority that its certificate is of"));
  }
  if (ca_file.empty() && !token_file.empty() && !StaysOnThisMachine(address)) {
    return absl::InvalidArgumentError(absl::StrCat("--token-file: the token is not sent to ",
                                                   address, " without TLS: give --tls-ca"));
  }
  return CheckFiles(*this);
}

std::shared_ptr<grpc::ServerCredentials> MakeServerCredentials(const RpcSecurity& security,
                                                               const std::string& address) {
  if (IsUnixSocket(address)) return grpc::InsecureServerCredentials();
  std::shared_ptr<grpc::ServerCredentials> credentials;
  if (!security.certificate_file.empty()) {
    grpc::experimental::TlsServerCredentialsOptions options(WatchFiles(security));
    options.watch_identity_key_cert_pairs();
    if (security.ca_file.empty()) {
      options.set_cert_request_type(GRPC_SSL_DONT_REQUEST_CLIENT_CERTIFICATE);
    } else {
      options.watch_root_certs();
      options.set_cert_request_type(GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY);
    }
    credentials = grpc::experimental::TlsServerCredentials(options);
  } else if (!security.token_file.empty()) {
    // gRPC asks for tokens only with credentials that count as secure; these do within a machine.
    credentials = grpc::experimental::LocalServerCredentials(LOCAL_TCP);
  } else {
    return grpc::InsecureServerCredentials();
  }
  if (!security.token_file.empty()) {
    credentials->SetAuthMetadataProcessor(std::make_shared<AskForToken>(security.token_file));
  }
  return credentials;
}

std::shared_ptr<grpc::ChannelCredentials> MakeChannelCredentials(const RpcSecurity& security,
                                                                 const std::string& address) {
  if (IsUnixSocket(address)) return grpc::InsecureChannelCredentials();
  std::shared_ptr<grpc::ChannelCredentials> credentials;
  if (!security.ca_file.empty()) {
    grpc::experimental::TlsChannelCredentialsOptions options;
    options.set_certificate_provider(WatchFiles(security));
    options.watch_root_certs();
    if (!security.certificate_file.empty()) options.watch_identity_key_cert_pairs();
    options.set_certificate_verifier(
        std::make_shared<grpc::experimental::HostNameCertificateVerifier>());
    credentials = grpc::experimental::TlsCredentials(options);
  } else if (!security.token_file.empty()) {
    credentials = grpc::experimental::LocalCredentials(LOCAL_TCP);
  } else {
    return grpc::InsecureChannelCredentials();
  }
  if (security.token_file.empty()) return credentials;
  // Never sent in clear beyond this machine: local credentials do not connect there.
  const grpc_security_level least =
      security.ca_file.empty() ? GRPC_SECURITY_NONE : GRPC_PRIVACY_AND_INTEGRITY;
  return grpc::CompositeChannelCredentials(
      credentials, grpc::experimental::MetadataCredentialsFromPlugin(
                       std::make_unique<ShowToken>(security.token_file), least));
}

}  // namespace pompc
