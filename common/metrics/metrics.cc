#include "common/metrics/metrics.h"

#include <algorithm>
#include <sstream>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/base/check.h"
#include "common/metrics/process.h"
#include "prometheus/text_serializer.h"

namespace pompc {
namespace {

// Adds the metric for every value of its label and returns the one for `label_value`.
template <typename T, typename Builder, typename... Args>
T* Register(Builder builder, prometheus::Registry& registry, const MetricSpec& spec,
            std::string_view label_value, const Args&... args) {
  auto& family =
      builder.Name(std::string(spec.name)).Help(std::string(spec.help)).Register(registry);
  if (spec.label.empty()) {
    POMPC_CHECK(label_value.empty()) << spec.name << " has no label";
    return &family.Add({}, args...);
  }
  T* wanted = nullptr;
  for (const std::string& value :
       std::vector<std::string>(absl::StrSplit(std::string(spec.label_values), ','))) {
    T& metric = family.Add({{std::string(spec.label), value}}, args...);
    if (value == label_value) wanted = &metric;
  }
  POMPC_CHECK(wanted != nullptr) << spec.name << " has no label value \"" << label_value << "\"";
  return wanted;
}

}  // namespace

Counter* MetricsRegistry::GetCounter(MetricName<MetricType::kCounter> name,
                                     std::string_view label_value) {
  return Register<Counter>(prometheus::BuildCounter(), registry_, name.spec(), label_value);
}

Gauge* MetricsRegistry::GetGauge(MetricName<MetricType::kGauge> name,
                                 std::string_view label_value) {
  return Register<Gauge>(prometheus::BuildGauge(), registry_, name.spec(), label_value);
}

Histogram* MetricsRegistry::GetHistogram(MetricName<MetricType::kHistogram> name,
                                         std::string_view label_value) {
  const auto& buckets = name.spec().buckets;
  return Register<Histogram>(prometheus::BuildHistogram(), registry_, name.spec(), label_value,
                             Histogram::BucketBoundaries(buckets.begin(), buckets.end()));
}

void MetricsRegistry::SetRunInfo(const RunInfo& info) {
  const MetricSpec& spec = MetricName<MetricType::kGauge>("pompc_run_info").spec();
  prometheus::BuildGauge()
      .Name(std::string(spec.name))
      .Help(std::string(spec.help))
      .Register(registry_)
      .Add({{"run_id", info.run_id},
            {"role", info.role},
            {"task", info.task},
            {"preset", info.preset},
            {"seed", absl::StrCat(info.seed)},
            {"config_hash", info.config_hash},
            {"version", info.version}})
      .Set(1);
}

std::string MetricsRegistry::Text() const {
  std::vector<prometheus::MetricFamily> families = registry_.Collect();
  for (prometheus::MetricFamily& family : CollectProcessMetrics()) {
    families.push_back(std::move(family));
  }
  // By name, so that two scrapes can be compared.
  std::sort(families.begin(), families.end(),
            [](const auto& a, const auto& b) { return a.name < b.name; });
  std::ostringstream text;
  prometheus::TextSerializer().Serialize(text, families);
  return text.str();
}

}  // namespace pompc
