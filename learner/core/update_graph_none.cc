// Of builds without CUDA.
#include "learner/core/update_graph.h"

namespace pompc {

std::unique_ptr<UpdateGraph> UpdateGraph::Create(at::Device /*device*/, bool /*record*/) {
  return nullptr;
}

}  // namespace pompc
