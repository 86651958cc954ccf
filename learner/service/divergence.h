// Whether training diverged: values that are not finite do not become so again.
//
// Thread-safety: pure functions. Errors: INTERNAL, "training diverged: ..." with the update and
// what is not finite.
#ifndef POMPC_LEARNER_SERVICE_DIVERGENCE_H_
#define POMPC_LEARNER_SERVICE_DIVERGENCE_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "common/model/checkpoint.h"

namespace pompc {

// what: "... is nan".
absl::Status DivergedError(const std::string& what, int64_t updates);

// stats: UpdateStats::Read() of update `updates`.
absl::Status CheckFinite(absl::Span<const double> stats, int64_t updates);

// state: Updater::Save(). Waits for the device.
absl::Status CheckFinite(const Checkpoint& state);

}  // namespace pompc

#endif  // POMPC_LEARNER_SERVICE_DIVERGENCE_H_
