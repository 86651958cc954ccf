// Of builds without CUDA.
#include "learner/core/collective.h"

namespace pompc {

absl::StatusOr<std::vector<std::unique_ptr<Collective>>> MakeGpuCollectives(
    const std::vector<at::Device>& /*devices*/) {
  return absl::InternalError("this build has no CUDA");
}

}  // namespace pompc
