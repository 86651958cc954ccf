// The HTTP endpoint of a process: /metrics for Prometheus and /healthz for whoever restarts
// processes.
#ifndef POMPC_COMMON_METRICS_SERVER_H_
#define POMPC_COMMON_METRICS_SERVER_H_

#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/metrics/metrics.h"

struct mg_context;
struct mg_connection;

namespace pompc {

// Serves from two threads of its own until destroyed.
class MetricsServer {
 public:
  // Listens on `address`, "host:port" or ":port" for every interface; port 0 takes a free one.
  // `health` is called from those threads for every /healthz, which answers 200 if it says OK, else
  // 503 with the status as text. UNAVAILABLE: cannot listen there. `registry` must outlive the
  // server.
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
  static int ServeMetrics(mg_connection* connection, void* server);
  static int ServeHealth(mg_connection* connection, void* server);

  const MetricsRegistry* const registry_;
  const std::function<absl::Status()> health_;
  mg_context* context_ = nullptr;
  int port_ = 0;
};

}  // namespace pompc

#endif  // POMPC_COMMON_METRICS_SERVER_H_
