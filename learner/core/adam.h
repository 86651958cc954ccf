// Adam over ranges of flat parameter buffers, with the gradient clipped to a norm first.
//
// Source: Kingma and Ba (arXiv:1412.6980); equals torch.optim.Adam without weight decay to rounding
// (the fused kernel of LibTorch; in float32 on a GPU a kernel of ours). beta = (0.9, 0.999).
// Thread-safety: none.
#ifndef POMPC_LEARNER_CORE_ADAM_H_
#define POMPC_LEARNER_CORE_ADAM_H_

#include <vector>

#include "common/model/parameters.h"
#include "common/model/tensor.h"

namespace pompc {

struct AdamRange {
  ParameterRange range;
  double learning_rate = 0;
  double epsilon = 1e-8;
};

class Adam {
 public:
  // Moments are kept for [first range's begin, last range's end); ranges are ascending and
  // adjacent.
  Adam(std::vector<AdamRange> ranges, const at::TensorOptions& options);

  // Counts a step and makes it for the last range; StepRest(), with the same arguments, for the
  // others.
  //
  // Scales the gradient by min(1, clip_norm / (norm + 1e-6)), then steps the values in place. norm:
  // [], the gradient's L2 norm. `values` and `grad` are the whole flat buffers; grad holds the
  // clipped gradient afterwards.
  void Step(const at::Tensor& values, const at::Tensor& grad, const at::Tensor& norm,
            double clip_norm);
  void StepRest(const at::Tensor& values, const at::Tensor& grad, const at::Tensor& norm,
                double clip_norm);

  // State, for checkpoints: [range], [range], [].
  at::Tensor first_moment, second_moment, step;

 private:
  void StepRange(const AdamRange& r, const at::Tensor& values, const at::Tensor& grad,
                 const at::Tensor& norm, double clip_norm);

  std::vector<AdamRange> ranges_;
};

}  // namespace pompc

#endif  // POMPC_LEARNER_CORE_ADAM_H_
