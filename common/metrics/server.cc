#include "common/metrics/server.h"

#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "common/base/address.h"

namespace pompc {
namespace {

// With a client, for each part of its request and of the answer that it takes.
constexpr int kPatienceMs = 2000;
constexpr size_t kMaxRequestBytes = 8192;

std::string Response(absl::string_view code, absl::string_view type, absl::string_view body) {
  return absl::StrCat("HTTP/1.1 ", code, "\r\nContent-Type: ", type,
                      "\r\nContent-Length: ", body.size(), "\r\nConnection: close\r\n\r\n", body);
}

}  // namespace

absl::StatusOr<std::unique_ptr<MetricsServer>> MetricsServer::Start(
    const std::string& address, const MetricsRegistry* registry,
    std::function<absl::Status()> health) {
  absl::Status valid = CheckAddress(address);
  if (valid.ok() && IsUnixSocket(address)) {
    valid = absl::InvalidArgumentError(absl::StrCat(address, " is none of a network"));
  }
  if (!valid.ok()) {
    return absl::InvalidArgumentError(absl::StrCat("cannot serve metrics: ", valid.message()));
  }
  std::unique_ptr<MetricsServer> server(new MetricsServer(registry, std::move(health)));
  const absl::Status listens = server->Listen(address);
  if (!listens.ok()) {
    return absl::UnavailableError(
        absl::StrCat("cannot serve metrics on ", address, ": ", listens.message()));
  }
  server->thread_.emplace("metrics", [s = server.get()] { s->Serve(); });
  return server;
}

MetricsServer::~MetricsServer() {
  if (thread_.has_value()) {
    eventfd_write(stop_, 1);
    thread_->Join();
  }
  for (const int fd : {listener_, stop_}) {
    if (fd >= 0) close(fd);
  }
}

absl::Status MetricsServer::Listen(const std::string& address) {
  const HostPort parts = SplitAddress(address);
  addrinfo hints = {};
  hints.ai_flags = AI_NUMERICSERV;
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  const int error = getaddrinfo(parts.host.empty() ? "0.0.0.0" : parts.host.c_str(),
                                parts.port.c_str(), &hints, &found);
  if (error != 0) return absl::InvalidArgumentError(gai_strerror(error));
  const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> owned(found, freeaddrinfo);

  stop_ = eventfd(0, EFD_CLOEXEC);
  if (stop_ < 0) return absl::ErrnoToStatus(errno, "eventfd");
  sockaddr_storage bound = {};
  int listen_error = 0;
  // A name may have addresses that this machine cannot listen on, e.g. of IPv6.
  for (const addrinfo* a = found; a != nullptr && listener_ < 0; a = a->ai_next) {
    const int yes = 1;
    socklen_t size = sizeof(bound);
    listener_ = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    // A restarted process takes its port over from connections that still linger on it.
    if (listener_ >= 0 && setsockopt(listener_, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes)) == 0 &&
        bind(listener_, a->ai_addr, a->ai_addrlen) == 0 && listen(listener_, 16) == 0 &&
        getsockname(listener_, reinterpret_cast<sockaddr*>(&bound), &size) == 0) {
      break;
    }
    listen_error = errno;
    if (listener_ >= 0) close(std::exchange(listener_, -1));
  }
  if (listener_ < 0) return absl::ErrnoToStatus(listen_error, "listen");
  port_ = ntohs(bound.ss_family == AF_INET6 ? reinterpret_cast<sockaddr_in6*>(&bound)->sin6_port
                                            : reinterpret_cast<sockaddr_in*>(&bound)->sin_port);
  return absl::OkStatus();
}

bool MetricsServer::AwaitReadable(int socket, int milliseconds) const {
  pollfd fds[2] = {{socket, POLLIN, 0}, {stop_, POLLIN, 0}};
  int ready;
  do ready = poll(fds, 2, milliseconds);
  while (ready < 0 && errno == EINTR);
  return ready > 0 && fds[1].revents == 0;
}

void MetricsServer::Serve() {
  while (AwaitReadable(listener_, -1)) {
    const int client = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
    if (client >= 0) {
      AnswerClient(client);
      close(client);
    } else if (errno != EINTR && errno != ECONNABORTED && errno != EAGAIN) {
      // Out of descriptors or memory, and the client stays in the listener's queue: look again when
      // there may be some.
      AwaitReadable(stop_, kPatienceMs);
    }
  }
}

void MetricsServer::AnswerClient(int client) const {
  const timeval patience = {.tv_sec = kPatienceMs / 1000, .tv_usec = 0};
  setsockopt(client, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
  std::string request;
  char part[kMaxRequestBytes];
  // In a few parts at most, so that a client which sends byte by byte cannot stay.
  for (int parts = 0; parts < 8 && !absl::StrContains(request, "\r\n\r\n"); ++parts) {
    if (!AwaitReadable(client, kPatienceMs)) return;
    const ssize_t n = recv(client, part, sizeof(part), 0);
    if (n <= 0) return;
    request.append(part, static_cast<size_t>(n));
  }
  const std::string answer = Answer(request.substr(0, request.find("\r\n")));
  for (size_t sent = 0; sent < answer.size();) {
    const ssize_t n = send(client, answer.data() + sent, answer.size() - sent, MSG_NOSIGNAL);
    if (n <= 0) return;
    sent += static_cast<size_t>(n);
  }
}

std::string MetricsServer::Answer(absl::string_view request_line) const {
  constexpr absl::string_view kText = "text/plain; charset=utf-8";
  if (!absl::ConsumePrefix(&request_line, "GET ")) {
    return Response("405 Method Not Allowed", kText, "only GET\n");
  }
  const absl::string_view path = request_line.substr(0, request_line.find_first_of(" ?"));
  if (path == "/metrics") {
    return Response("200 OK", "text/plain; version=0.0.4; charset=utf-8", registry_->Text());
  }
  if (path == "/healthz") {
    const absl::Status health = health_();
    return Response(health.ok() ? "200 OK" : "503 Service Unavailable", kText,
                    health.ToString() + "\n");
  }
  return Response("404 Not Found", kText, "there are /metrics and /healthz\n");
}

}  // namespace pompc
