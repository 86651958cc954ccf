#include "common/model/noise.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Context.h>

#include <cmath>

#include "common/model/kernels.h"
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
  std::array<int64_t, 2> heads;
  FillHeads(num_heads, heads);
  return at::tensor({heads[0], heads[1]}, at::kLong);
}

at::Tensor GeneratorNoise::Index(const at::Tensor& probability) {
  return SampleIndex(probability, at::empty_like(probability).exponential_(1, generator_));
}

void GeneratorNoise::FillNormal(at::Tensor& out) { out.normal_(0, 1, generator_); }

void GeneratorNoise::FillHeads(int64_t num_heads, std::array<int64_t, 2>& heads) {
  auto* generator = at::check_generator<at::CPUGeneratorImpl>(host_generator_);
  const uint64_t n = static_cast<uint64_t>(num_heads);
  const uint64_t first = generator->random64() % n, other = generator->random64() % (n - 1);
  heads = {static_cast<int64_t>(first), static_cast<int64_t>(other < first ? other : other + 1)};
}

void GeneratorNoise::FillIndex(const at::Tensor& probability, std::vector<int64_t>& index) {
  if (!exponential_.defined() || exponential_.sizes() != probability.sizes()) {
    exponential_ = at::empty_like(probability);
  }
  exponential_.exponential_(1, generator_);
  const int64_t n = probability.size(1);
  const float* p = probability.const_data_ptr<float>();
  const float* e = exponential_.const_data_ptr<float>();
  for (size_t row = 0; row < index.size(); ++row, p += n, e += n) {
    // argmax(log p - log e), as SampleIndex().
    const auto score = [&](int64_t i) { return std::log(p[i]) - std::log(e[i]); };
    index[row] = 0;
    float best = score(0);
    for (int64_t i = 1; i < n; ++i) {
      if (const float s = score(i); s > best) {
        best = s;
        index[row] = i;
      }
    }
  }
}

at::Tensor GeneratorNoise::DropoutMask(at::IntArrayRef shape, double rate) {
  if (options_.device().is_cpu() && options_.dtype() == at::kFloat) {
    at::Tensor mask = at::empty(shape, options_);
    const uint64_t seed = at::check_generator<at::CPUGeneratorImpl>(generator_)->random64();
    Kernels().dropout_mask(seed, rate, mask.numel(), mask.data_ptr<float>());
    return mask;
  }
  return at::empty(shape, options_).bernoulli_(1 - rate, generator_).div_(1 - rate);
}

std::optional<uint64_t> GeneratorNoise::KernelSeed() {
  return at::check_generator<at::CPUGeneratorImpl>(host_generator_)->random64();
}

}  // namespace pompc
