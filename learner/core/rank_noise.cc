#include "learner/core/rank_noise.h"

#include "common/base/check.h"

namespace pompc {

at::Tensor RankNoise::Normal(at::IntArrayRef shape) {
  POMPC_CHECK(shape.size() == 3 && shape[1] == windows_);
  return source_->Normal({shape[0], size_ * windows_, shape[2]})
      .narrow(1, rank_ * windows_, windows_)
      .contiguous();
}

void RankNoise::FillNormal(at::Tensor& out) { out.copy_(Normal(out.sizes())); }

at::Tensor RankNoise::DropoutMask(at::IntArrayRef shape, double rate) {
  POMPC_CHECK(shape.size() == 3 && shape[1] % windows_ == 0);
  return source_->DropoutMask({shape[0], shape[1] * size_, shape[2]}, rate)
      .view({shape[0], shape[1] / windows_, size_ * windows_, shape[2]})
      .narrow(2, rank_ * windows_, windows_)
      .reshape(shape);
}

}  // namespace pompc
