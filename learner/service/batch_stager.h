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
  // For one of `ranks` learners that share each batch, with a part of its windows each. shape: of
  // the whole batch, whose windows `ranks` divides.
  BatchStager(const BatchShape& shape, at::Device device, int64_t rank = 0, int64_t ranks = 1)
      : shape_(shape), device_(device), rank_(rank), ranks_(ranks) {}

  // Blocks while the device is kSlots batches behind, as Stage() does.
  void AwaitRoom();

  // The rank's windows on the device, for work that the current stream is given from now on. On the
  // CPU: a view of `columns`, as ViewBatch(), or a copy of a part. Elsewhere `columns` may be
  // reused at once, and the batch is valid for the work given before kSlots - 1 further calls.
  // Errors: those of ViewBatch().
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
  const int64_t rank_, ranks_;
  std::optional<c10::Stream> copies_;
  std::array<Slot, kSlots> slots_;
  int current_ = 0;  // The slot handed out last.
};

}  // namespace pompc

#endif  // POMPC_LEARNER_SERVICE_BATCH_STAGER_H_
