#include "learner/service/batch_stager.h"

#include <c10/core/Event.h>
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <vector>

#include "common/base/status_macros.h"

namespace pompc {
namespace {

constexpr int64_t kAlignment = 64;  // Elements.

// The tensors of a batch within a flat buffer, shaped as those of `like`.
Batch BatchIn(const at::Tensor& flat, const Batch& like) {
  int64_t offset = 0;
  const auto next = [&](const at::Tensor& t) {
    const at::Tensor part = flat.narrow(0, offset, t.numel()).view(t.sizes());
    offset += (t.numel() + kAlignment - 1) / kAlignment * kAlignment;
    return part;
  };
  return MapBatch(like, next);
}

void CopyBatch(const Batch& from, const Batch& to) {
  const std::vector<at::Tensor> sources = TensorsOf(from), targets = TensorsOf(to);
  for (size_t i = 0; i < sources.size(); ++i) targets[i].copy_(sources[i]);
}

}  // namespace

void BatchStager::Allocate(const Batch& view) {
  int64_t size = 0;
  for (const at::Tensor& t : TensorsOf(view)) {
    size += (t.numel() + kAlignment - 1) / kAlignment * kAlignment;
  }
  const c10::impl::VirtualGuardImpl guard(device_.type());
  copies_ = guard.getNewStream(device_);
  for (Slot& slot : slots_) {
    slot.host = at::zeros({size}, at::TensorOptions(at::kFloat).pinned_memory(true));
    slot.device = at::empty({size}, at::TensorOptions(at::kFloat).device(device_));
    slot.used.emplace(device_.type());
    slot.used->record(guard.getStream(device_));  // The memory may have served others there.
  }
}

void BatchStager::AwaitRoom() {
  if (copies_.has_value()) slots_[(current_ + 1) % kSlots].used->synchronize();
}

absl::StatusOr<Batch> BatchStager::Stage(ColumnBatch& columns) {
  POMPC_ASSIGN_OR_RETURN(Batch view, ViewBatch(shape_, columns));
  if (ranks_ > 1) {
    const int64_t windows = shape_.windows / ranks_;
    view = MapBatch(view, [&](const at::Tensor& t) {
      const int64_t dim = t.dim() == 1 ? 0 : 1;  // Weights have no time.
      return t.narrow(dim, rank_ * windows, windows).contiguous();
    });
  }
  if (device_.is_cpu()) return view;
  if (!copies_.has_value()) Allocate(view);
  const c10::Stream work = c10::impl::VirtualGuardImpl(device_.type()).getStream(device_);
  slots_[current_].used->record(work);
  current_ = (current_ + 1) % kSlots;
  Slot& slot = slots_[current_];
  slot.used->synchronize();  // Already so after AwaitRoom().
  CopyBatch(view, BatchIn(slot.host, view));
  c10::Event copied(device_.type());
  {
    const c10::StreamGuard guard(*copies_);
    slot.device.copy_(slot.host, /*non_blocking=*/true);
    copied.record(*copies_);
  }
  copied.block(work);
  return BatchIn(slot.device, view);
}

}  // namespace pompc
