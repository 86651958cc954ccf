#include "common/rpc/diagnosis.h"

#include <arpa/inet.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/time.h>

#include <optional>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/base/address.h"
#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/thread.h"
#include "common/rpc/openssl_ptr.h"

namespace pompc {
namespace {

constexpr int kConnectSeconds = 2;
constexpr int kReadSeconds = 2;  // For each answer of the server.
constexpr absl::Duration kProbeEvery = absl::Seconds(5);

using ContextPtr = OpensslPtr<SSL_CTX, SSL_CTX_free>;
using SslPtr = OpensslPtr<SSL, SSL_free>;

// How a handshake went.
struct Failure {
  // Of OpenSSL's first error, e.g. SSL_R_WRONG_VERSION_NUMBER; 0: none, the connection just ended,
  // or there was no answer in time.
  int reason = 0;
  std::string text = "it closes the connection";

  // Whether the server said so itself, by an alert.
  bool from_server() const { return reason >= SSL_AD_REASON_OFFSET; }
};

// Empties OpenSSL's queue of errors.
Failure TakeFailure() {
  Failure failure;
  const unsigned long error = ERR_peek_error();
  ERR_clear_error();
  const char* const text = ERR_reason_error_string(error);
  if (text == nullptr || ERR_GET_REASON(error) == SSL_R_UNEXPECTED_EOF_WHILE_READING) {
    return failure;
  }
  return {.reason = ERR_GET_REASON(error), .text = text};
}

std::string UntrustedServer(long verdict, const std::string& address, const std::string& host,
                            const RpcSecurity& security) {
  switch (verdict) {
    case X509_V_ERR_CERT_HAS_EXPIRED:
      return absl::StrCat("the certificate of ", address,
                          ", or of its authority, has expired: give that server a new --tls-cert");
    case X509_V_ERR_HOSTNAME_MISMATCH:
    case X509_V_ERR_IP_ADDRESS_MISMATCH:
      return absl::StrCat("the certificate of ", address, " is not for \"", host,
                          "\": use an address that it names, or make it one with "
                          "subjectAltName=",
                          verdict == X509_V_ERR_IP_ADDRESS_MISMATCH ? "IP:" : "DNS:", host);
    default:
      return absl::StrCat("the certificate of ", address, " is not of an authority in --tls-ca ",
                          security.ca_file, " (", X509_verify_cert_error_string(verdict),
                          "): give the certificate of the authority that made it");
  }
}

std::string RefusedClient(const std::string& address, const std::string& why,
                          const RpcSecurity& security) {
  if (security.certificate_file.empty()) {
    return absl::StrCat(address, " asks for a certificate: give --tls-cert and --tls-key");
  }
  // E.g. expired since the start.
  if (const absl::Status own = security.CheckClient(address); !own.ok()) {
    return std::string(own.message());
  }
  return absl::StrCat(address, " refuses the certificate in --tls-cert ", security.certificate_file,
                      " (", why, "): it has to be of an authority in that server's --tls-ca");
}

// A connection to `target`, whose reads give up after a while; null when there is none.
BioPtr Connect(const HostPort& target) {
  BioPtr bio(BIO_new(BIO_s_connect()));
  BIO_set_conn_hostname(bio.get(), target.host.c_str());
  BIO_set_conn_port(bio.get(), target.port.c_str());
  int descriptor = -1;
  if (BIO_do_connect_retry(bio.get(), kConnectSeconds, /*nap_milliseconds=*/10) != 1 ||
      BIO_get_fd(bio.get(), &descriptor) < 0) {
    ERR_clear_error();
    return nullptr;
  }
  BIO_socket_nbio(descriptor, 0);  // The connect with a timeout has left it non-blocking.
  const timeval patience = {.tv_sec = kReadSeconds, .tv_usec = 0};
  setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
  return bio;
}

// With the client's files. One that cannot be read fails the handshake.
ContextPtr MakeContext(const RpcSecurity& security) {
  ContextPtr context(SSL_CTX_new(TLS_client_method()));
  static constexpr unsigned char kProtocols[] = {2, 'h', '2'};
  SSL_CTX_set_alpn_protos(context.get(), kProtocols, sizeof(kProtocols));
  if (!security.ca_file.empty()) {
    SSL_CTX_set_verify(context.get(), SSL_VERIFY_PEER, nullptr);
    SSL_CTX_load_verify_file(context.get(), security.ca_file.c_str());
    if (!security.certificate_file.empty()) {
      SSL_CTX_use_certificate_chain_file(context.get(), security.certificate_file.c_str());
      SSL_CTX_use_PrivateKey_file(context.get(), security.key_file.c_str(), SSL_FILETYPE_PEM);
    }
    ERR_clear_error();
  }
  return context;
}

// The server's certificate has to be for the host.
void ExpectHost(SSL* ssl, const std::string& host) {
  in6_addr ip;
  if (inet_pton(AF_INET, host.c_str(), &ip) == 1 || inet_pton(AF_INET6, host.c_str(), &ip) == 1) {
    X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), host.c_str());
  } else {
    SSL_set1_host(ssl, host.c_str());
    SSL_set_tlsext_host_name(ssl, host.c_str());
  }
}

// Makes a handshake with the server at `address` ("host:port"). Returns what security has to do
// with its failure: what is wrong and what to do; empty when nothing, also when nobody listens.
// Blocks for a few seconds at most, and as long as the host's name takes to resolve. May raise
// SIGPIPE.
std::string DiagnoseConnection(const std::string& address, const RpcSecurity& security) {
  const HostPort target = SplitAddress(address);
  BioPtr connection = Connect(target);
  if (connection == nullptr) return "";
  const ContextPtr context = MakeContext(security);
  const SslPtr ssl(SSL_new(context.get()));
  SSL_set_quiet_shutdown(ssl.get(), 1);
  BIO* const bio = connection.release();
  SSL_set_bio(ssl.get(), bio, bio);

  const bool tls = !security.ca_file.empty();
  if (tls) ExpectHost(ssl.get(), target.host);
  const bool done = SSL_connect(ssl.get()) == 1;
  const Failure failure = TakeFailure();
  if (!tls) {
    if (!done && !failure.from_server()) return "";
    return absl::StrCat(address,
                        " speaks TLS: give --tls-ca, and --tls-cert and --tls-key if it "
                        "asks for a certificate");
  }
  if (!done) {
    const long verdict = SSL_get_verify_result(ssl.get());
    if (verdict != X509_V_OK) return UntrustedServer(verdict, address, target.host, security);
    if (failure.from_server()) return RefusedClient(address, failure.text, security);
    if (failure.reason == 0) return "";
    return absl::StrCat(address, " does not speak TLS (", failure.text,
                        "): start it with --tls-cert and --tls-key, or this program without "
                        "--tls-ca");
  }
  // With TLS 1.3 a server looks at the client's certificate after that. One that is content sends
  // the settings of HTTP/2.
  char byte;
  const int read = SSL_read(ssl.get(), &byte, 1);
  if (read == 1 || SSL_get_error(ssl.get(), read) == SSL_ERROR_WANT_READ) return "";
  return RefusedClient(address, TakeFailure().text, security);
}

// What the calls of a channel have in common.
class Diagnosis {
 public:
  Diagnosis(std::string address, RpcSecurity security)
      : address_(std::move(address)), security_(std::move(security)) {}

  // Adds the reason, as far as it is known, and finds it out if that is long ago.
  void Explain(grpc::Status* status) {
    absl::MutexLock lock(&mu_);
    if (!probing_ && RealClock()->Now() >= next_probe_) {
      probing_ = true;
      probe_.emplace("diagnosis", [this] { Probe(); });
    }
    if (reason_.empty()) return;
    *status = grpc::Status(status->error_code(),
                           absl::StrCat(reason_, " [", status->error_message(), "]"));
  }

 private:
  void Probe() {
    // A server may close the connection while the handshake writes to it.
    sigset_t pipe;
    sigemptyset(&pipe);
    sigaddset(&pipe, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &pipe, nullptr);
    const std::string reason = DiagnoseConnection(address_, security_);
    absl::MutexLock lock(&mu_);
    if (reason != reason_ && !reason.empty()) POMPC_LOG(WARNING) << "no connection: " << reason;
    reason_ = reason;
    next_probe_ = RealClock()->Now() + kProbeEvery;
    probing_ = false;
  }

  const std::string address_;
  const RpcSecurity security_;
  absl::Mutex mu_;
  std::string reason_ ABSL_GUARDED_BY(mu_);
  bool probing_ ABSL_GUARDED_BY(mu_) = false;
  absl::Time next_probe_ ABSL_GUARDED_BY(mu_) = absl::InfinitePast();
  std::optional<Thread> probe_;  // Last: it uses all of the above. Replaced when it has ended.
};

class Interceptor final : public grpc::experimental::Interceptor {
 public:
  explicit Interceptor(Diagnosis* diagnosis) : diagnosis_(diagnosis) {}

  void Intercept(grpc::experimental::InterceptorBatchMethods* methods) override {
    if (methods->QueryInterceptionHookPoint(
            grpc::experimental::InterceptionHookPoints::POST_RECV_STATUS)) {
      grpc::Status* const status = methods->GetRecvStatus();
      if (status->error_code() == grpc::StatusCode::UNAVAILABLE) diagnosis_->Explain(status);
    }
    methods->Proceed();
  }

 private:
  Diagnosis* const diagnosis_;  // Of the factory, which lives as long as its channel.
};

class Factory final : public grpc::experimental::ClientInterceptorFactoryInterface {
 public:
  Factory(std::string address, RpcSecurity security)
      : diagnosis_(std::move(address), std::move(security)) {}
  grpc::experimental::Interceptor* CreateClientInterceptor(
      grpc::experimental::ClientRpcInfo*) override {
    return new Interceptor(&diagnosis_);
  }

 private:
  Diagnosis diagnosis_;
};

}  // namespace

std::unique_ptr<grpc::experimental::ClientInterceptorFactoryInterface> MakeDiagnosingInterceptor(
    const std::string& address, const RpcSecurity& security) {
  return std::make_unique<Factory>(address, security);
}

}  // namespace pompc
