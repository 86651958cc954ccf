#include "common/model/noise.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Context.h>

#include "common/model/math.h"

namespace pompc {

GeneratorNoise::GeneratorNoise(uint64_t seed, const at::TensorOptions& options)
    : options_(options), host_generator_(at::detail::createCPUGenerator()) {
  const at::Device device = options.device();
  generator_ = device.is_cpu() ? at::detail::createCPUGenerator()
                               : at::globalContext()
                                     .getAcceleratorHooksInterface(device.type())
                                     .getNewGenerator(device.has_index() ? device.index() : 0);
  Seed(seed);
}

void GeneratorNoise::Seed(uint64_t seed) {
  generator_.set_current_seed(seed);
  host_generator_.set_current_seed(~seed);
}

at::Tensor GeneratorNoise::Normal(at::IntArrayRef shape) {
  return at::randn(shape, generator_, options_);
}

at::Tensor GeneratorNoise::Heads(int64_t num_heads) {
  return at::randperm(num_heads, host_generator_, at::kLong).narrow(0, 0, 2);
}

at::Tensor GeneratorNoise::Index(const at::Tensor& probability) {
  return SampleIndex(probability, at::empty_like(probability).exponential_(1, generator_));
}

at::Tensor GeneratorNoise::DropoutMask(at::IntArrayRef shape, double rate) {
  return at::empty(shape, options_).bernoulli_(1 - rate, generator_).div_(1 - rate);
}

}  // namespace pompc
