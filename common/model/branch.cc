#include "common/model/branch.h"

#include <c10/core/AutogradState.h>
#include <c10/core/Event.h>
#include <c10/core/impl/VirtualGuardImpl.h>

namespace pompc {
namespace {

// Smaller numbers go first. The stream that branches leave has -3, the smallest.
constexpr int kPriority = -2, kGradientPriority = -1;

c10::Stream CurrentStream(at::Device device) {
  return c10::impl::VirtualGuardImpl(device.type()).getStream(device);
}

// What `waiting` is given from now on runs behind what `other` has been given.
void WaitFor(const c10::Stream& waiting, const c10::Stream& other) {
  c10::Event reached(other.device_type());
  reached.record(other);
  reached.block(waiting);
}

}  // namespace

thread_local BranchStreams* BranchStreams::in_use_ = nullptr;

BranchStreams::BranchStreams(at::Device device) {
  if (!device.is_cuda()) return;
  const c10::impl::VirtualGuardImpl guard(device.type());
  for (int i = 0; i < static_cast<int>(BranchStream::kCount); ++i) {
    const bool gradients = i >= static_cast<int>(BranchStream::kProducts);
    entries_.push_back(
        {guard.getNewStream(device, gradients ? kGradientPriority : kPriority), false});
  }
}

BranchStreams::Use::Use(BranchStreams* streams)
    : outer_(in_use_),
      outer_multithreading_(c10::AutogradState::get_tls_state().get_multithreading_enabled()) {
  for (Entry& entry : streams->entries_) entry.used = false;
  streams->deferred_.clear();
  in_use_ = streams->entries_.empty() ? nullptr : streams;
  c10::AutogradState::get_tls_state().set_multithreading_enabled(false);
}

BranchStreams::Use::~Use() {
  in_use_ = outer_;
  c10::AutogradState::get_tls_state().set_multithreading_enabled(outer_multithreading_);
}

void BranchStreams::RunDeferred() {
  if (deferred_.empty()) return;
  const at::NoGradGuard no_grad;
  const c10::StreamGuard guard(*deferred_from_);
  Branch(BranchStream::kEnsembleProducts).Run([&] {
    for (const std::function<void()>& work : deferred_) work();
  });
  deferred_.clear();
}

void BranchStreams::JoinAll() {
  for (int i = 0; i < static_cast<int>(entries_.size()); ++i) {
    Branch(static_cast<BranchStream>(i)).Join();
  }
}

Branch::Branch(BranchStream stream) : stream_(stream) {
  BranchStreams* const streams = BranchStreams::in_use_;
  if (streams != nullptr) entry_ = &streams->entries_[static_cast<size_t>(stream)];
}

void Branch::Fork() const {
  if (entry_->used && stream_ == BranchStream::kWeights) return;
  entry_->used = true;
  if (stream_ == BranchStream::kProducts) BranchStreams::in_use_->RunDeferred();
  WaitFor(entry_->stream, CurrentStream(entry_->stream.device()));
}

void Branch::RunLater(std::function<void()> work) const {
  if (entry_ == nullptr) return work();
  BranchStreams::in_use_->deferred_from_ = CurrentStream(entry_->stream.device());
  BranchStreams::in_use_->deferred_.push_back(std::move(work));
}

void Branch::Join() const {
  if (entry_ != nullptr && stream_ == BranchStream::kEnsembleProducts) {
    BranchStreams::in_use_->RunDeferred();
  }
  // A stream that a recording has not forked must not be waited for in it.
  if (entry_ == nullptr || !entry_->used) return;
  WaitFor(CurrentStream(entry_->stream.device()), entry_->stream);
}

void Branch::JoinFor(const at::Tensor& t) const {
  Join();
  if (entry_ != nullptr) t.record_stream(CurrentStream(entry_->stream.device()));
}

void Branch::Uses(const at::Tensor& t) const {
  if (entry_ != nullptr) t.record_stream(entry_->stream);
}

}  // namespace pompc
