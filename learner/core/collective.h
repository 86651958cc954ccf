// Collective: what the ranks of a data-parallel update compute together.
//
// Ranks are threads of one process, each with a device of its own: GPUs of this machine, over NCCL,
// or the CPU. All ranks make the same calls in the same order, with tensors of the same shapes and
// types; on a GPU that is the order in which the host gives them.
//
// On a GPU a call is work that the current stream is given, also while a CUDA graph is recorded;
// the host waits only in the first call of its kind, for the others to make it. On the CPU it
// blocks until all ranks have made the call. After it, all have the same bits.
//
// Thread-safety: one thread a rank.
// Errors: c10::Error, from LibTorch's edge to that of Updater: a failed transfer, or Abort().
#ifndef POMPC_LEARNER_CORE_COLLECTIVE_H_
#define POMPC_LEARNER_CORE_COLLECTIVE_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/model/tensor.h"

namespace pompc {

class Collective {
 public:
  Collective(int64_t rank, int64_t size) : rank_(rank), size_(size) {}
  virtual ~Collective() = default;

  int64_t rank() const { return rank_; }  // In [0, size()).
  int64_t size() const { return size_; }  // N >= 2

  // Replaces t, contiguous, by its mean over the ranks.
  virtual void Mean(const at::Tensor& t) = 0;
  // [n, ...] -> [N n, ...], those of all ranks in their order.
  virtual at::Tensor Gather(const at::Tensor& t) = 0;

  // For a rank that has failed with `reason` and so will not make its calls, which the others wait
  // for. On the CPU those and all later calls throw. A GPU that waits for another cannot be called
  // off reliably: there this logs the reason and ends the process, with 1.
  virtual void Abort(const absl::Status& reason) = 0;

 private:
  const int64_t rank_, size_;
};

// One for each rank, for all of `devices`: the CPU, as often as there are ranks, or different GPUs,
// with an index. INTERNAL: they cannot be connected, with the reason.
absl::StatusOr<std::vector<std::unique_ptr<Collective>>> MakeCollectives(
    const std::vector<at::Device>& devices);

// Of MakeCollectives(), for GPUs.
absl::StatusOr<std::vector<std::unique_ptr<Collective>>> MakeGpuCollectives(
    const std::vector<at::Device>& devices);

}  // namespace pompc

#endif  // POMPC_LEARNER_CORE_COLLECTIVE_H_
