// The HTTP endpoint of a process: /metrics for Prometheus and /healthz for whoever restarts
// processes. Of HTTP it speaks what these two need: GET, one request a connection. It stands on
// sockets alone because libraries for it give their threads small fixed stacks, of which glibc
// takes the thread-local storage of all libraries first: with LibTorch's CUDA libraries nothing was
// left.
#ifndef POMPC_COMMON_METRICS_SERVER_H_
#define POMPC_COMMON_METRICS_SERVER_H_

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/base/thread.h"
#include "common/metrics/metrics.h"

namespace pompc {

// Serves from a thread of its own, one client after the other, until destroyed. A client that keeps
// it waiting for seconds is dropped.
class MetricsServer {
 public:
  // Listens on `address`, "host:port" or ":port" for every interface; port 0 takes a free one.
  // `health` is called from that thread for every /healthz, which answers 200 if it says OK, else
  // 503 with the status as text. INVALID_ARGUMENT: as CheckAddress(), or a Unix socket.
  // UNAVAILABLE: cannot listen there. `registry` must outlive the server.
  static absl::StatusOr<std::unique_ptr<MetricsServer>> Start(const std::string& address,
                                                              const MetricsRegistry* registry,
                                                              std::function<absl::Status()> health);
  ~MetricsServer();
  MetricsServer(const MetricsServer&) = delete;
  MetricsServer& operator=(const MetricsServer&) = delete;

  int port() const { return port_; }

 private:
  MetricsServer(const MetricsRegistry* registry, std::function<absl::Status()> health)
      : registry_(registry), health_(std::move(health)) {}
  absl::Status Listen(const std::string& address);
  void Serve();
  // False once the server is to stop, or after `milliseconds` (-1: never) without anything to read.
  bool AwaitReadable(int socket, int milliseconds) const;
  void AnswerClient(int client) const;
  // The whole answer to a request that begins with `request_line`.
  std::string Answer(absl::string_view request_line) const;

  const MetricsRegistry* const registry_;
  const std::function<absl::Status()> health_;
  int listener_ = -1;
  int stop_ = -1;  // An eventfd, readable once the server is to stop.
  int port_ = 0;
  std::optional<Thread> thread_;
};

}  // namespace pompc

#endif  // POMPC_COMMON_METRICS_SERVER_H_
