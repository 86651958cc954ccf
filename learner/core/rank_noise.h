// RankNoise: the draws of one rank of a data-parallel update.
//
// Each rank draws for the whole batch, from equal sources, and keeps what belongs to its windows:
// so N ranks have the draws of one with the whole batch. On GPUs that needs GPUs of one model,
// whose generators spread the draws alike.
//
// Thread-safety: none.
#ifndef POMPC_LEARNER_CORE_RANK_NOISE_H_
#define POMPC_LEARNER_CORE_RANK_NOISE_H_

#include <array>
#include <cstdint>

#include "learner/core/update_noise.h"

namespace pompc {

class RankNoise final : public UpdateNoise {
 public:
  // `windows` of the batch are those of `rank`, as of each of the `size` ranks, in their order.
  // `source` must outlive this.
  RankNoise(Noise* source, int64_t rank, int64_t size, int64_t windows)
      : source_(source), rank_(rank), size_(size), windows_(windows) {}

  // shape: [S, B, A] with the rank's windows B.
  at::Tensor Normal(at::IntArrayRef shape) override;
  void FillNormal(at::Tensor& out) override;
  // shape: [heads, S B, X], as WorldModel::DropoutShape().
  at::Tensor DropoutMask(at::IntArrayRef shape, double rate) override;
  // The same for all ranks.
  at::Tensor Heads(int64_t num_heads) override { return source_->Heads(num_heads); }
  void FillHeads(int64_t num_heads, std::array<int64_t, 2>& heads) override {
    source_->FillHeads(num_heads, heads);
  }

 private:
  Noise* const source_;
  const int64_t rank_, size_, windows_;
};

}  // namespace pompc

#endif  // POMPC_LEARNER_CORE_RANK_NOISE_H_
