// Metrics of one process, over prometheus-cpp.
//
//   MetricsRegistry metrics;                                     // In main().
//   Counter* inserts = metrics.GetCounter("pompc_replay_inserts_total");
//   inserts->Increment(rows);
//
// Names are those of table.h, checked with their type at compile time. A metric is exposed from the
// moment that somebody gets it, with value 0 for every value of its label; get handles once, at
// start, and keep them: getting takes a lock.
//
// The metrics of every process (process_*, pompc_log_lines_total) are exposed without asking.
//
// Thread-safety: thread-safe, handles too. Handles live as long as the registry.
#ifndef POMPC_COMMON_METRICS_METRICS_H_
#define POMPC_COMMON_METRICS_METRICS_H_

#include <cstdint>
#include <string>
#include <string_view>

#include "common/metrics/table.h"
#include "prometheus/counter.h"
#include "prometheus/gauge.h"
#include "prometheus/histogram.h"
#include "prometheus/registry.h"

namespace pompc {

using Counter = prometheus::Counter;      // Increment([by]).
using Gauge = prometheus::Gauge;          // Set(value), Increment([by]), Decrement([by]).
using Histogram = prometheus::Histogram;  // Observe(value).

// The name of a metric of this type. Anything else does not compile.
template <MetricType type>
class MetricName {
 public:
  // Implicit on purpose: a string literal is the name.
  consteval MetricName(const char* name) : spec_(Find(name)) {}  // NOLINT
  const MetricSpec& spec() const { return *spec_; }

 private:
  static consteval const MetricSpec* Find(std::string_view name) {
    for (const MetricSpec& spec : kMetricTable) {
      if (spec.name == name && spec.type == type) return &spec;
    }
    throw "common/metrics/table.h has no metric of this name and type";  // Fails to compile.
  }
  const MetricSpec* spec_;
};

// What identifies a run; labels of pompc_run_info.
struct RunInfo {
  std::string run_id, role, task, preset, config_hash, version;
  uint64_t seed = 0;
};

class MetricsRegistry {
 public:
  // `label_value` is one of the table's values, or empty for a metric without label.
  Counter* GetCounter(MetricName<MetricType::kCounter> name, std::string_view label_value = {});
  Gauge* GetGauge(MetricName<MetricType::kGauge> name, std::string_view label_value = {});
  Histogram* GetHistogram(MetricName<MetricType::kHistogram> name,
                          std::string_view label_value = {});

  // Exposes pompc_run_info. Call once.
  void SetRunInfo(const RunInfo& info);

  // Everything in the Prometheus text format; takes the process's own figures anew.
  std::string Text() const;

 private:
  prometheus::Registry registry_;
};

}  // namespace pompc

#endif  // POMPC_COMMON_METRICS_METRICS_H_
