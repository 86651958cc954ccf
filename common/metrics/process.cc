#include "common/metrics/process.h"

#include <sys/resource.h>
#include <unistd.h>

#include <filesystem>
#include <string>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "common/base/clock.h"
#include "common/base/file.h"
#include "common/base/log.h"
#include "common/metrics/metrics.h"

namespace pompc {
namespace {

using prometheus::ClientMetric;

template <MetricType type>
prometheus::MetricFamily Family(MetricName<type> name, std::vector<ClientMetric> metrics) {
  prometheus::MetricFamily family;
  family.name = name.spec().name;
  family.help = name.spec().help;
  family.type = type == MetricType::kCounter ? prometheus::MetricType::Counter
                                             : prometheus::MetricType::Gauge;
  family.metric = std::move(metrics);
  return family;
}

prometheus::MetricFamily CounterFamily(MetricName<MetricType::kCounter> name, double value) {
  ClientMetric metric;
  metric.counter.value = value;
  return Family(name, {metric});
}

prometheus::MetricFamily GaugeFamily(MetricName<MetricType::kGauge> name, double value) {
  ClientMetric metric;
  metric.gauge.value = value;
  return Family(name, {metric});
}

double Seconds(const timeval& t) {
  return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) * 1e-6;
}

prometheus::MetricFamily LogLines() {
  std::vector<ClientMetric> metrics;
  for (const auto& [name, severity] :
       {std::pair("info", LogSeverity::INFO), std::pair("warning", LogSeverity::WARNING),
        std::pair("error", LogSeverity::ERROR)}) {
    ClientMetric metric;
    metric.label = {{"severity", name}};
    metric.counter.value = static_cast<double>(LogLineCount(severity));
    metrics.push_back(metric);
  }
  return Family(MetricName<MetricType::kCounter>("pompc_log_lines_total"), std::move(metrics));
}

}  // namespace

std::vector<prometheus::MetricFamily> CollectProcessMetrics() {
  std::vector<prometheus::MetricFamily> families = {LogLines()};
  rusage usage;
  if (getrusage(RUSAGE_SELF, &usage) == 0) {
    families.push_back(CounterFamily("process_cpu_seconds_total",
                                     Seconds(usage.ru_utime) + Seconds(usage.ru_stime)));
  }
  std::error_code error;
  const auto count = [&error](const char* folder) {
    const std::filesystem::directory_iterator entries(folder, error);
    return static_cast<double>(error ? 0 : std::distance(begin(entries), end(entries)));
  };
  families.push_back(GaugeFamily("process_open_fds", count("/proc/self/fd")));
  families.push_back(GaugeFamily("process_threads", count("/proc/self/task")));

  // proc(5): the second number of statm is resident pages.
  int64_t pages = 0;
  if (const auto statm = ReadFile("/proc/self/statm"); statm.ok()) {
    const std::vector<std::string> words = absl::StrSplit(*statm, ' ');
    if (words.size() > 1 && absl::SimpleAtoi(words[1], &pages)) {
      families.push_back(GaugeFamily("process_resident_memory_bytes",
                                     static_cast<double>(pages * sysconf(_SC_PAGESIZE))));
    }
  }
  static const double first_seen = absl::ToDoubleSeconds(RealClock()->Now() - absl::UnixEpoch());
  families.push_back(GaugeFamily("process_start_time_seconds", first_seen));
  return families;
}

}  // namespace pompc
