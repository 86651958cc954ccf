// UpdateGraph: a computation of hundreds of kernels, launched at once as a CUDA graph.
//
// The first runs are made kernel by kernel, since libraries set themselves up in them; then one is
// recorded, and from there on replayed. What changes between runs therefore lives on the device at
// fixed addresses: the batch and the draws are copied there before each run, everything else is in
// tensors that the computation reads and writes in place. It must not wait for the device.
//
// Recorded or not, a run gives the same numbers: the kernels are the same.
// Thread-safety: none.
#ifndef POMPC_LEARNER_CORE_UPDATE_GRAPH_H_
#define POMPC_LEARNER_CORE_UPDATE_GRAPH_H_

#include <functional>
#include <memory>

#include "common/model/noise.h"
#include "common/model/tensor.h"
#include "learner/core/losses.h"

namespace pompc {

class UpdateGraph {
 public:
  using Work = std::function<at::Tensor(const Batch& batch, Noise& noise)>;

  // Null where nothing can be recorded: on the CPU, or in a build without CUDA. record: false goes
  // on kernel by kernel.
  static std::unique_ptr<UpdateGraph> Create(at::Device device, bool record);

  virtual ~UpdateGraph() = default;

  // Gives the work to the device, in the order of the current stream, and returns its result, which
  // the next run overwrites. Every call passes the same work and batches of the same shapes.
  // Throws c10::Error: a kernel's own, or that the work cannot be recorded.
  virtual at::Tensor Run(const Batch& batch, Noise& noise, const Work& work) = 0;
};

}  // namespace pompc

#endif  // POMPC_LEARNER_CORE_UPDATE_GRAPH_H_
