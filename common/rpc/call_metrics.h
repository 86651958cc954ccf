// What a process counts of the calls that it makes and serves.
#ifndef POMPC_COMMON_RPC_CALL_METRICS_H_
#define POMPC_COMMON_RPC_CALL_METRICS_H_

#include <map>
#include <memory>

#include "absl/status/status.h"
#include "common/metrics/metrics.h"
#include "grpcpp/support/server_interceptor.h"

namespace pompc {

// A counter with label `code`. Thread-safe.
class CodeCounters {
 public:
  CodeCounters(MetricName<MetricType::kCounter> name, MetricsRegistry* metrics);
  void Increment(absl::StatusCode code) const;

 private:
  std::map<absl::StatusCode, Counter*> counters_;
  Counter* const other_;  // Of codes that are not among them.
};

// Makes a server count the unary calls of our services in pompc_rpc_served_total and time them in
// pompc_rpc_serve_duration_seconds. Streams cost nothing more. `metrics` must outlive the server.
std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface> MakeServedCallMetrics(
    MetricsRegistry* metrics);

}  // namespace pompc

#endif  // POMPC_COMMON_RPC_CALL_METRICS_H_
