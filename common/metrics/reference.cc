#include "common/metrics/reference.h"

#include <array>
#include <sstream>
#include <string>
#include <string_view>

#include "absl/strings/str_replace.h"
#include "common/metrics/table.h"

namespace pompc {
namespace {

struct Section {
  std::string_view title;
  std::array<std::string_view, 3> prefixes;  // Of the names; empty: none.
  std::string_view served_by;
};

constexpr Section kSections[] = {
    {"Actor",
     {"pompc_actor_"},
     "`pompc-actor`; evaluators serve those of parameters, reanalyze workers those of plans and "
     "parameters"},
    {"Replay",
     {"pompc_replay_"},
     "`pompc-replay`, and `pompc-learner` when it holds the table itself; those of the journal "
     "where there is one"},
    {"Learner", {"pompc_learner_"}, "`pompc-learner`"},
    {"Relay", {"pompc_relay_"}, "`pompc-relay`"},
    {"Calls between processes",
     {"pompc_rpc_"},
     "every process: calls and streams opened by those that make some, calls served by those that "
     "others call"},
    {"Every process",
     {"pompc_run_", "pompc_log_", "process_"},
     "every process; `pompc-replay`, which serves any run, has no `pompc_run_info`"},
};

std::string_view TypeName(MetricType type) {
  switch (type) {
    case MetricType::kCounter:
      return "counter";
    case MetricType::kGauge:
      return "gauge";
    case MetricType::kHistogram:
      return "histogram";
  }
  return "";
}

std::string Row(const MetricSpec& spec) {
  std::ostringstream row;
  row << "| `" << spec.name << "` | " << TypeName(spec.type) << " | " << spec.unit << " | ";
  if (spec.name == "pompc_run_info") {
    row << "`run_id`, `role`, `task`, `preset`, `seed`, `config_hash`, `version`";
  } else if (!spec.label.empty()) {
    row << "`" << spec.label
        << "`: " << absl::StrReplaceAll(std::string(spec.label_values), {{",", ", "}});
  }
  row << " | " << spec.help << " |\n";
  return row.str();
}

}  // namespace

std::string MetricsReference() {
  std::ostringstream text;
  text << "# Metrics\n\n"
          "What each process of a run serves at `/metrics`, made from `common/metrics/table.h` by\n"
          "`pompc inspect metrics > docs/metrics.md`. How to watch a run with them: "
          "[monitoring.md](monitoring.md).\n\n"
          "Counters and histograms start at 0 with their process, so use `rate()` and "
          "`increase()`. Every value of a label is there from the start.\n";
  for (const Section& section : kSections) {
    text << "\n## " << section.title << "\n\nServed by " << section.served_by
         << ".\n\n| name | type | unit | label | meaning |\n|---|---|---|---|---|\n";
    for (const std::string_view prefix : section.prefixes) {
      for (const MetricSpec& spec : kMetricTable) {
        if (!prefix.empty() && spec.name.starts_with(prefix)) text << Row(spec);
      }
    }
  }
  return text.str();
}

}  // namespace pompc
