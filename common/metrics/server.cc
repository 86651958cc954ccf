#include "common/metrics/server.h"

#include <civetweb.h>

#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"

namespace pompc {
namespace {

// Answers and returns the code, as civetweb wants of its handlers.
int Answer(mg_connection* connection, int code, const char* type, const std::string& body) {
  mg_printf(
      connection,
      "HTTP/1.1 %d %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n",
      code, mg_get_response_code_text(connection, code), type, body.size());
  mg_write(connection, body.data(), body.size());
  return code;
}

}  // namespace

int MetricsServer::ServeMetrics(mg_connection* connection, void* server) {
  return Answer(connection, 200, "text/plain; version=0.0.4; charset=utf-8",
                static_cast<MetricsServer*>(server)->registry_->Text());
}

int MetricsServer::ServeHealth(mg_connection* connection, void* server) {
  const absl::Status status = static_cast<MetricsServer*>(server)->health_();
  return Answer(connection, status.ok() ? 200 : 503, "text/plain; charset=utf-8",
                status.ToString() + "\n");
}

absl::StatusOr<std::unique_ptr<MetricsServer>> MetricsServer::Start(
    const std::string& address, const MetricsRegistry* registry,
    std::function<absl::Status()> health) {
  static const unsigned initialised = mg_init_library(MG_FEATURES_DEFAULT);
  (void)initialised;
  std::unique_ptr<MetricsServer> server(new MetricsServer(registry, std::move(health)));
  const std::string listen = address.starts_with(":") ? "0.0.0.0" + address : address;
  const char* options[] = {"listening_ports", listen.c_str(), "num_threads", "2", nullptr};
  mg_callbacks callbacks = {};
  callbacks.log_message = [](const mg_connection*, const char*) { return 1; };  // No stray lines.
  errno = 0;
  server->context_ = mg_start(&callbacks, nullptr, options);
  mg_server_port port = {};
  if (server->context_ == nullptr || mg_get_server_ports(server->context_, 1, &port) != 1) {
    return absl::UnavailableError(absl::StrCat("cannot serve metrics on ", address,
                                               errno != 0 ? ": " : "",
                                               errno != 0 ? std::strerror(errno) : ""));
  }
  server->port_ = port.port;
  mg_set_request_handler(server->context_, "/metrics$", ServeMetrics, server.get());
  mg_set_request_handler(server->context_, "/healthz$", ServeHealth, server.get());
  return server;
}

MetricsServer::~MetricsServer() {
  if (context_ != nullptr) mg_stop(context_);
}

}  // namespace pompc
