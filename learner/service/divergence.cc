#include "learner/service/divergence.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/model/parameters.h"
#include "learner/core/updater.h"

namespace pompc {

absl::Status DivergedError(const std::string& what, int64_t updates) {
  return absl::InternalError(absl::StrCat("training diverged: ", what, " at update ", updates,
                                          "; the last checkpoint is kept"));
}

absl::Status CheckFinite(absl::Span<const double> stats, int64_t updates) {
  for (size_t i = 0; i < stats.size(); ++i) {
    if (std::isfinite(stats[i])) continue;
    return DivergedError(absl::StrCat(StatName(static_cast<Stat>(i)), " is ", stats[i]), updates);
  }
  return absl::OkStatus();
}

absl::Status CheckFinite(const Checkpoint& state) {
  for (const auto& [name, tensor] : state.tensors) {
    if (AllFinite(tensor)) continue;
    return DivergedError(absl::StrCat(name, " is not finite"),
                         state.tensors.at("updates").item<int64_t>());
  }
  return absl::OkStatus();
}

}  // namespace pompc
