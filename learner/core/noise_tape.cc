#include "learner/core/noise_tape.h"

#include "common/base/check.h"

namespace pompc {

void NoiseTape::Rewind(Noise& source) {
  next_ = 0;
  if (draws_.empty()) {
    source_ = &source;
    return;
  }
  source_ = nullptr;
  for (Draw& draw : draws_) {
    switch (draw.kind) {
      case Draw::kNormal:
        if (!draw.drawn.defined()) draw.drawn = at::empty_like(draw.value);
        source.FillNormal(draw.drawn);
        break;
      case Draw::kHeads: {
        std::array<int64_t, 2> heads;
        source.FillHeads(draw.num_heads, heads);
        // The two numbers as a range travel as a kernel's arguments: nothing to copy or to keep.
        const int64_t stride = heads[1] - heads[0];
        if (!draw.drawn.defined()) draw.drawn = at::empty_like(draw.value);
        at::arange_out(draw.drawn, heads[0], heads[1] + stride, stride);
        break;
      }
      case Draw::kMask:
        draw.drawn = source.DropoutMask(draw.value.sizes(), draw.rate);
        break;
    }
  }
}

std::vector<std::pair<at::Tensor, at::Tensor>> NoiseTape::Drawn() const {
  std::vector<std::pair<at::Tensor, at::Tensor>> drawn;
  if (source_ != nullptr) return drawn;
  for (const Draw& draw : draws_) drawn.emplace_back(draw.drawn, draw.value);
  return drawn;
}

at::Tensor NoiseTape::Next(const Draw& first) {
  if (source_ != nullptr) {
    draws_.push_back(first);
    return first.value;
  }
  POMPC_CHECK(next_ < draws_.size()) << "the computation makes more draws than it did at first";
  const Draw& draw = draws_[next_++];
  POMPC_CHECK(draw.kind == first.kind) << "the computation makes its draws in another order";
  return draw.value;
}

at::Tensor NoiseTape::Normal(at::IntArrayRef shape) {
  return Next({Draw::kNormal, 0, 0,
               source_ == nullptr ? at::Tensor() : source_->Normal(shape).to(device_).clone()});
}

at::Tensor NoiseTape::Heads(int64_t num_heads) {
  return Next(
      {Draw::kHeads, num_heads, 0,
       source_ == nullptr ? at::Tensor() : source_->Heads(num_heads).to(device_, at::kLong)});
}

at::Tensor NoiseTape::DropoutMask(at::IntArrayRef shape, double rate) {
  return Next(
      {Draw::kMask, 0, rate,
       source_ == nullptr ? at::Tensor() : source_->DropoutMask(shape, rate).to(device_).clone()});
}

void NoiseTape::FillNormal(at::Tensor& /*out*/) { Refuse(); }

void NoiseTape::FillHeads(int64_t /*num_heads*/, std::array<int64_t, 2>& /*heads*/) { Refuse(); }

}  // namespace pompc
