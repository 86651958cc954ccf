#include "common/model/packed_mlp.h"

#include <algorithm>

#include "common/model/kernels.h"

namespace pompc {
namespace {

std::vector<float> Copy(const at::Tensor& t) {
  const at::Tensor dense = t.contiguous();
  const float* data = dense.const_data_ptr<float>();
  return {data, data + dense.numel()};
}

}  // namespace

PackedMlp::PackedMlp(const std::vector<PlainLayer>& layers, const NormedLinearOptions& last,
                     int64_t tail)
    : tail_(tail) {
  layers_.reserve(layers.size());
  for (const PlainLayer& layer : layers) {
    PackedLayer& packed = layers_.emplace_back();
    packed.in = layer.weight.size(1);
    packed.out = layer.weight.size(0);
    packed.normalised = layer.gain.defined();
    if (&layer == &layers.back()) packed.options = last;
    packed.packed.resize(PackedSize(packed.in, packed.out));
    const at::Tensor weight = layer.weight.contiguous();
    Kernels().pack(weight.const_data_ptr<float>(), 1, packed.in, packed.in, packed.out,
                   packed.packed.data());
    packed.bias = Copy(layer.bias);
    if (packed.normalised) {
      packed.gain = Copy(layer.gain);
      packed.shift = Copy(layer.shift);
    }
    widest_ = std::max(widest_, packed.out);
  }
}

void PackedMlp::FirstProduct(int64_t num_rows, int64_t begin, int64_t count, const float* x,
                             int64_t x_stride, const float* start, float* product,
                             int64_t product_stride) const {
  // Within a panel, the weights of consecutive inputs are consecutive.
  const PackedLayer& layer = layers_.front();
  for (int64_t j = 0; j < layer.out; j += kPanel) {
    Kernels().gemm_packed(num_rows, count, std::min(kPanel, layer.out - j), x, x_stride, false,
                          layer.packed.data() + j * layer.in + begin * kPanel, start + j, 0,
                          product + j, product_stride);
  }
}

void PackedMlp::SharedProduct(const float* x, float* product) const {
  FirstProduct(1, 0, in() - tail_, x, in() - tail_, layers_.front().bias.data(), product,
               first_width());
}

void PackedMlp::Forward(int64_t num_rows, const Input& input, float* scratch, float* y,
                        int64_t y_stride) const {
  for (int64_t r = 0; r < num_rows; r += kBlockRows) {
    Input block = input;
    block.rows += r * input.stride;
    if (input.mask != nullptr) block.mask += r * first_width();
    ForwardBlock(std::min(kBlockRows, num_rows - r), block, scratch, y + r * y_stride, y_stride);
  }
}

void PackedMlp::ForwardBlock(int64_t num_rows, const Input& input, float* scratch, float* y,
                             int64_t y_stride) const {
  const KernelTable& kernels = Kernels();
  // Two buffers that layers read and write in turn.
  float* const buffers[2] = {scratch, scratch + kBlockRows * widest_};
  const float* x = input.rows;
  int64_t x_stride = input.stride;
  for (size_t i = 0; i < layers_.size(); ++i) {
    const PackedLayer& layer = layers_[i];
    const bool last = i + 1 == layers_.size();
    float* output = last ? y : buffers[i % 2];
    const int64_t stride = last ? y_stride : layer.out;
    if (i == 0 && input.shared_product != nullptr) {
      FirstProduct(num_rows, layer.in - tail_, tail_, x + layer.in - tail_, x_stride,
                   input.shared_product, output, stride);
    } else {
      kernels.gemm_packed(num_rows, layer.in, layer.out, x, x_stride, false, layer.packed.data(),
                          layer.bias.data(), 0, output, stride);
    }
    if (layer.normalised) {
      kernels.norm_activation({num_rows, layer.out, layer.gain.data(), layer.shift.data(),
                               i == 0 ? input.mask : nullptr, layer.options.activation,
                               layer.options.simnorm_dim, stride},
                              output, output, nullptr);
    }
    x = output;
    x_stride = stride;
  }
}

}  // namespace pompc
