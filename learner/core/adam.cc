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
  const GpuLayers* const gpu = GpuLayersOf(values);
  // LibTorch's kernel divides the gradient by this as it goes.
  const at::Tensor divisor =
      gpu != nullptr ? at::Tensor() : ((norm + 1e-6) / clip_norm).clamp_min(1).to(at::kFloat);
  const int64_t begin = ranges_.front().range.begin;
  for (const AdamRange& r : ranges_) {
    const ParameterRange moments = {r.range.begin - begin, r.range.end - begin};
    if (gpu != nullptr) {
      gpu->StepAdam(r.learning_rate, r.epsilon, clip_norm, norm, step, r.range.Of(values),
                    r.range.Of(grad), moments.Of(first_moment), moments.Of(second_moment));
      continue;
    }
    at::_fused_adam_({r.range.Of(values)}, {r.range.Of(grad)}, {moments.Of(first_moment)},
                     {moments.Of(second_moment)}, {}, {step}, r.learning_rate, kBeta1, kBeta2,
                     /*weight_decay=*/0, r.epsilon, /*amsgrad=*/false, /*maximize=*/false, divisor);
  }
  // The fused operator does not say that it wrote; planners that keep packed weights must know.
  values.unsafeGetTensorImpl()->bump_version();
}

}  // namespace pompc
