#include "common/model/packed_mlp.h"

#include <algorithm>

#include "common/model/kernels.h"

namespace pompc {
namespace {

// Rows that go through all layers together: enough to use each weight many times, few enough that
// their activations (96 x 512 floats: 192 KB) stay in the second-level cache.
constexpr int64_t kRowBlock = 96;

std::vector<float> Copy(const at::Tensor& t) {
  const at::Tensor dense = t.contiguous();
  const float* data = dense.const_data_ptr<float>();
  return {data, data + dense.numel()};
}

}  // namespace

PackedMlp::PackedMlp(const std::vector<PlainLayer>& layers, const NormedLinearOptions& last) {
  layers_.reserve(layers.size());
  for (const PlainLayer& layer : layers) {
    PackedLayer& packed = layers_.emplace_back();
    packed.in = layer.weight.size(1);
    packed.out = layer.weight.size(0);
    packed.normalised = layer.gain.defined();
    if (&layer == &layers.back()) packed.options = last;
    packed.packed.resize(PackedSize(packed.in, packed.out));
    Pack(layer.weight.const_data_ptr<float>(), layer.weight.stride(1), layer.weight.stride(0),
         packed.in, packed.out, packed.packed.data());
    packed.bias = Copy(layer.bias);
    if (packed.normalised) {
      packed.gain = Copy(layer.gain);
      packed.shift = Copy(layer.shift);
    }
    widest_ = std::max(widest_, packed.out);
  }
  zeros_.resize(widest_);
}

at::Tensor PackedMlp::Forward(const at::Tensor& x) const {
  const at::Tensor dense = x.contiguous();
  std::vector<int64_t> shape = x.sizes().vec();
  shape.back() = layers_.back().out;
  at::Tensor y = at::empty(shape, x.options());
  const int64_t in = layers_.front().in, out = layers_.back().out;
  TORCH_CHECK(dense.size(-1) == in, "layer input has ", dense.size(-1), " features, weight ", in);
  const int64_t rows = dense.numel() / in;
  const float* from = dense.const_data_ptr<float>();
  float* to = y.data_ptr<float>();
  for (int64_t r = 0; r < rows; r += kRowBlock) {
    ForwardRows(std::min(kRowBlock, rows - r), from + r * in, to + r * out);
  }
  return y;
}

void PackedMlp::ForwardRows(int64_t rows, const float* x, float* y) const {
  // Two buffers that layers read and write in turn; kept by the thread, so nothing is allocated.
  thread_local std::vector<float> scratch;
  const size_t half = static_cast<size_t>(kRowBlock * widest_);
  if (scratch.size() < 2 * half) scratch.resize(2 * half);
  float* buffers[2] = {scratch.data(), scratch.data() + half};
  const KernelTable& kernels = Kernels();
  const float* input = x;
  for (size_t i = 0; i < layers_.size(); ++i) {
    const PackedLayer& layer = layers_[i];
    float* output = i + 1 == layers_.size() ? y : buffers[i % 2];
    // The normalisation adds the bias itself.
    kernels.gemm_packed(rows, layer.in, layer.out, input, layer.in, false, layer.packed.data(),
                        layer.normalised ? zeros_.data() : layer.bias.data(), 0, output, layer.out);
    if (layer.normalised) {
      kernels.norm_activation(
          {rows, layer.out, layer.bias.data(), layer.gain.data(), layer.shift.data(), nullptr,
           layer.options.activation, layer.options.simnorm_dim},
          output, output, nullptr);
    }
    input = output;
  }
}

}  // namespace pompc
