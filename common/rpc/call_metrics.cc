#include "common/rpc/call_metrics.h"

#include <string>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "common/base/clock.h"
#include "google/protobuf/descriptor.h"
#include "proto/pompc/v1/learner.pb.h"
#include "proto/pompc/v1/replay.pb.h"

namespace pompc {
namespace {

using grpc::experimental::InterceptionHookPoints;
using grpc::experimental::Interceptor;
using grpc::experimental::InterceptorBatchMethods;
using grpc::experimental::ServerRpcInfo;

std::string SnakeCase(const std::string& name) {
  std::string result;
  for (const char c : name) {
    if (absl::ascii_isupper(c) && !result.empty()) result += '_';
    result += absl::ascii_tolower(c);
  }
  return result;
}

class ServedCallMetrics final : public grpc::experimental::ServerInterceptorFactoryInterface {
 public:
  explicit ServedCallMetrics(MetricsRegistry* metrics)
      : served_("pompc_rpc_served_total", metrics) {
    for (const google::protobuf::ServiceDescriptor* service :
         {v1::RunStatus::descriptor()->file()->FindServiceByName("Learner"),
          v1::Segment::descriptor()->file()->FindServiceByName("Replay")}) {
      for (int i = 0; i < service->method_count(); ++i) {
        const google::protobuf::MethodDescriptor& method = *service->method(i);
        if (method.client_streaming() || method.server_streaming()) continue;
        durations_[absl::StrCat("/", service->full_name(), "/", method.name())] =
            metrics->GetHistogram("pompc_rpc_serve_duration_seconds", SnakeCase(method.name()));
      }
    }
  }

  // Null for streams, whose every message would pass it: that took a tenth of the time of small
  // appends.
  Interceptor* CreateServerInterceptor(ServerRpcInfo* info) override {
    const auto duration = durations_.find(info->method());
    return duration == durations_.end() ? nullptr : new Call(&served_, duration->second);
  }

 private:
  // One call. gRPC owns it.
  class Call final : public Interceptor {
   public:
    Call(const CodeCounters* served, Histogram* duration)
        : served_(served), duration_(duration), start_(RealClock()->Now()) {}

    void Intercept(InterceptorBatchMethods* methods) override {
      if (methods->QueryInterceptionHookPoint(InterceptionHookPoints::PRE_SEND_STATUS)) {
        served_->Increment(static_cast<absl::StatusCode>(methods->GetSendStatus().error_code()));
        duration_->Observe(absl::ToDoubleSeconds(RealClock()->Now() - start_));
      }
      methods->Proceed();
    }

   private:
    const CodeCounters* const served_;
    Histogram* const duration_;
    const absl::Time start_;
  };

  const CodeCounters served_;
  std::map<std::string, Histogram*> durations_;  // By method.
};

}  // namespace

CodeCounters::CodeCounters(MetricName<MetricType::kCounter> name, MetricsRegistry* metrics)
    : counters_{
          {absl::StatusCode::kOk, metrics->GetCounter(name, "ok")},
          {absl::StatusCode::kCancelled, metrics->GetCounter(name, "cancelled")},
          {absl::StatusCode::kInvalidArgument, metrics->GetCounter(name, "invalid_argument")},
          {absl::StatusCode::kDeadlineExceeded, metrics->GetCounter(name, "deadline_exceeded")},
          {absl::StatusCode::kNotFound, metrics->GetCounter(name, "not_found")},
          {absl::StatusCode::kResourceExhausted, metrics->GetCounter(name, "resource_exhausted")},
          {absl::StatusCode::kFailedPrecondition, metrics->GetCounter(name, "failed_precondition")},
          {absl::StatusCode::kUnavailable, metrics->GetCounter(name, "unavailable")},
      },
      other_(metrics->GetCounter(name, "other")) {}

void CodeCounters::Increment(absl::StatusCode code) const {
  const auto counter = counters_.find(code);
  (counter == counters_.end() ? other_ : counter->second)->Increment();
}

std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface> MakeServedCallMetrics(
    MetricsRegistry* metrics) {
  return std::make_unique<ServedCallMetrics>(metrics);
}

}  // namespace pompc
