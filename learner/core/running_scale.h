// The running 5 to 95 percentile range by which terms of the policy loss are divided.
//
// S <- S + rate (max(P95 - P5, 1) - S), starting at 1.
// Source: nicklashansen/tdmpc2@e9f5932 tdmpc2/common/scale.py. Thread-safety: none.
#ifndef POMPC_LEARNER_CORE_RUNNING_SCALE_H_
#define POMPC_LEARNER_CORE_RUNNING_SCALE_H_

#include "common/model/math.h"
#include "common/model/tensor.h"
#include "learner/core/collective.h"

namespace pompc {

class RunningScale {
 public:
  // With a Collective the percentiles are those of all ranks' values.
  RunningScale(double rate, const at::TensorOptions& options, Collective* collective = nullptr)
      : rate_(rate), collective_(collective), value_(at::ones({}, options)) {}

  // x: [B], without gradient.
  void Update(const at::Tensor& x) {
    const at::Tensor all = collective_ == nullptr ? x.detach() : collective_->Gather(x.detach());
    value_.lerp_(PercentileRange(all), rate_);
  }
  const at::Tensor& value() const { return value_; }  // [], at least 1; stays the same tensor.

 private:
  double rate_;
  Collective* collective_;
  at::Tensor value_;
};

}  // namespace pompc

#endif  // POMPC_LEARNER_CORE_RUNNING_SCALE_H_
