// docs/metrics.md: the table of all metrics for people.
#ifndef POMPC_COMMON_METRICS_REFERENCE_H_
#define POMPC_COMMON_METRICS_REFERENCE_H_

#include <string>

namespace pompc {

// The whole file, in Markdown.
std::string MetricsReference();

}  // namespace pompc

#endif  // POMPC_COMMON_METRICS_REFERENCE_H_
