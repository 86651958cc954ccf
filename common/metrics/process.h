// What every process exposes about itself.
#ifndef POMPC_COMMON_METRICS_PROCESS_H_
#define POMPC_COMMON_METRICS_PROCESS_H_

#include <vector>

#include "prometheus/metric_family.h"

namespace pompc {

// process_* from /proc/self, and pompc_log_lines_total, as of now. A figure that /proc does not
// give is left out.
std::vector<prometheus::MetricFamily> CollectProcessMetrics();

}  // namespace pompc

#endif  // POMPC_COMMON_METRICS_PROCESS_H_
