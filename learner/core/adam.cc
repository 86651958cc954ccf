#include "learner/core/adam.h"

#include <utility>

#include "common/model/gpu_layers.h"

namespace pompc {
namespace {

constexpr double kBeta1 = 0.9;
constexpr double kBeta2 = 0.999;

}  // namespace

Adam::Adam(std::vector<AdamRange> ranges, const at::TensorOptions& options)
    : ranges_(std::move(ranges)) {
  const int64_t size = ranges_.back().range.end - ranges_.front().range.begin;
  first_moment = at::zeros({size}, options);
  second_moment = at::zeros({size}, options);
  step = at::zeros({}, options.dtype(at::kFloat));
}

void Adam::Step(const at::Tensor& values, const at::Tensor& grad, const at::Tensor& norm,
                double clip_norm) {
  const at::NoGradGuard no_grad;
  step.add_(1);
  StepRange(ranges_.back(), values, grad, norm, clip_norm);
  // The fused operators do not say that they wrote; planners that keep packed weights must know.
  // StepRest() belongs to the same version: a backward that has begun by then reads other ranges.
  values.unsafeGetTensorImpl()->bump_version();
}

void Adam::StepRest(const at::Tensor& values, const at::Tensor& grad, const at::Tensor& norm,
                    double clip_norm) {
  const at::NoGradGuard no_grad;
  for (size_t i = 0; i + 1 < ranges_.size(); ++i) {
    StepRange(ranges_[i], values, grad, norm, clip_norm);
  }
}

void Adam::StepRange(const AdamRange& r, const at::Tensor& values, const at::Tensor& grad,
                     const at::Tensor& norm, double clip_norm) {
  const int64_t begin = ranges_.front().range.begin;
  const ParameterRange moments = {r.range.begin - begin, r.range.end - begin};
  if (const GpuLayers* gpu = GpuLayersOf(values)) {
    gpu->StepAdam(r.learning_rate, r.epsilon, clip_norm, norm, step, r.range.Of(values),
                  r.range.Of(grad), moments.Of(first_moment), moments.Of(second_moment));
  } else {
    // LibTorch's kernel divides the gradient by this as it goes.
    const at::Tensor divisor = ((norm + 1e-6) / clip_norm).clamp_min(1).to(at::kFloat);
    at::_fused_adam_({r.range.Of(values)}, {r.range.Of(grad)}, {moments.Of(first_moment)},
                     {moments.Of(second_moment)}, {}, {step}, r.learning_rate, kBeta1, kBeta2,
                     /*weight_decay=*/0, r.epsilon, /*amsgrad=*/false, /*maximize=*/false, divisor);
  }
}

}  // namespace pompc
