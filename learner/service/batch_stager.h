// BatchStager: batches on their way from replay to the learner's device.
//
// On a GPU a batch is gathered in pinned memory and copied by a stream of its own, so that it
// travels while the updates before it are still being computed. A few batches are under way at a
// time; the host gets no further ahead of the device than that.
//
// Thread-safety: none.
#ifndef POMPC_LEARNER_SERVICE_BATCH_STAGER_H_
#define POMPC_LEARNER_SERVICE_BATCH_STAGER_H_

#include <array>
#include <optional>

#include "absl/status/statusor.h"
#include "common/model/tensor.h"
#include "learner/core/losses.h"
#include "learner/service/batch_view.h"
#include "replay/client/sampler.h"

namespace pompc {

class BatchStager {
 public:
  BatchStager(const BatchShape& shape, at::Device device) : shape_(shape), device_(device) {}

  // Blocks while the device is kSlots batches behind, as Stage() does.
  void AwaitRoom();

  // The batch on the device, for work that the current stream is given from now on. On the CPU: a
  // view of `columns`, as ViewBatch(). Elsewhere `columns` may be reused at once, and the batch is
  // valid for the work given before kSlots - 1 further calls. Errors: those of ViewBatch().
  absl::StatusOr<Batch> Stage(ColumnBatch& columns);

 private:
  static constexpr int kSlots = 3;
  struct Slot {
    at::Tensor host, device;         // float32, flat: all tensors of a batch one after the other.
    std::optional<c10::Event> used;  // Behind the last work on the batch.
  };
  void Allocate(const Batch& view);

  const BatchShape shape_;
  const at::Device device_;
  std::optional<c10::Stream> copies_;
  std::array<Slot, kSlots> slots_;
  int current_ = 0;  // The slot handed out last.
};

}  // namespace pompc

#endif  // POMPC_LEARNER_SERVICE_BATCH_STAGER_H_
