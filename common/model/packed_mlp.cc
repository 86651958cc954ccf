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
                     Factors factors, int64_t tail)
    : factors_(factors), tail_(tail) {
  const KernelTable& kernels = Kernels();
  layers_.reserve(layers.size());
  for (const PlainLayer& layer : layers) {
    PackedLayer& packed = layers_.emplace_back();
    packed.in = layer.weight.size(1);
    packed.out = layer.weight.size(0);
    packed.normalised = layer.gain.defined();
    if (&layer == &layers.back()) packed.options = last;
    const at::Tensor dense = layer.weight.contiguous();
    const float* weight = dense.const_data_ptr<float>();
    if (factors == Factors::kFloat32) {
      packed.packed.resize(PackedSize(packed.in, packed.out));
      kernels.pack(weight, 1, packed.in, packed.in, packed.out, packed.packed.data());
    } else {
      const int64_t last_inputs = &layer == &layers.front() ? tail : 0;
      const int64_t first_inputs = packed.in - last_inputs;
      const int64_t depth = PairsOf(first_inputs) + PairsOf(last_inputs);
      std::vector<BFloat16Pair> pairs(depth * packed.out);
      kernels.round_pairs(packed.out, first_inputs, weight, packed.in, pairs.data(), depth);
      kernels.round_pairs(packed.out, last_inputs, weight + first_inputs, packed.in,
                          pairs.data() + PairsOf(first_inputs), depth);
      packed.packed_pairs.resize(PackedSize(depth, packed.out));
      kernels.pack(pairs.data(), 1, depth, depth, packed.out, packed.packed_pairs.data());
    }
    packed.bias = Copy(layer.bias);
    if (packed.normalised) {
      packed.gain = Copy(layer.gain);
      packed.shift = Copy(layer.shift);
    }
    widest_ = std::max(widest_, packed.out);
  }
  widest_ = std::max(widest_, PairsOf(in()) + 1);  // The tail begins a pair of its own.
}

PackedMlp::Operand PackedMlp::FirstOperand(int64_t begin, int64_t end, int64_t num_rows,
                                           const float* x, int64_t x_stride,
                                           BFloat16Pair* pairs) const {
  if (factors_ == Factors::kFloat32) return {x + begin, nullptr, x_stride};
  // The parts before and of the tail.
  const int64_t middle = std::clamp(in() - tail_, begin, end);
  const int64_t stride = PairsOf(middle - begin) + PairsOf(end - middle);
  Kernels().round_pairs(num_rows, middle - begin, x + begin, x_stride, pairs, stride);
  Kernels().round_pairs(num_rows, end - middle, x + middle, x_stride,
                        pairs + PairsOf(middle - begin), stride);
  return {nullptr, pairs, stride};
}

void PackedMlp::Multiply(const PackedLayer& layer, int64_t begin, int64_t end, int64_t num_rows,
                         const Operand& x, const float* start, float* y, int64_t y_stride) const {
  // All at once, or panel by panel: within one, the weights of consecutive inputs are consecutive.
  const int64_t depth = static_cast<int64_t>(layer.packed.size() + layer.packed_pairs.size()) /
                        PackedSize(1, layer.out);
  const int64_t step = end - begin == layer.in ? layer.out : kPanel;
  for (int64_t j = 0; j < layer.out; j += step) {
    const int64_t cols = std::min(step, layer.out - j);
    if (factors_ == Factors::kFloat32) {
      Kernels().gemm_packed(num_rows, end - begin, cols, x.rows, x.stride, false,
                            layer.packed.data() + j * depth + begin * kPanel, start + j, 0, y + j,
                            y_stride);
    } else {
      Kernels().gemm_packed_pairs(num_rows, x.stride, cols, x.pairs, x.stride,
                                  layer.packed_pairs.data() + j * depth + PairsOf(begin) * kPanel,
                                  start + j, 0, y + j, y_stride);
    }
  }
}

void PackedMlp::SharedProduct(const float* x, float* scratch, float* product) const {
  const int64_t end = in() - tail_;
  const Operand operand = FirstOperand(0, end, 1, x, end, reinterpret_cast<BFloat16Pair*>(scratch));
  Multiply(layers_.front(), 0, end, 1, operand, layers_.front().bias.data(), product,
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
  // float32: two buffers that layers read and write in turn. bfloat16: one that layers write to,
  // one for what the next reads.
  float* const buffers[2] = {scratch, scratch + kBlockRows * widest_};
  BFloat16Pair* const pairs = reinterpret_cast<BFloat16Pair*>(buffers[1]);
  const bool rounds = factors_ == Factors::kBFloat16;
  const int64_t begin = input.shared_product != nullptr ? in() - tail_ : 0;
  Operand x = FirstOperand(begin, in(), num_rows, input.rows, input.stride, pairs);
  for (size_t i = 0; i < layers_.size(); ++i) {
    const PackedLayer& layer = layers_[i];
    const bool last = i + 1 == layers_.size();
    float* output = last ? y : buffers[rounds ? 0 : i % 2];
    const int64_t stride = last ? y_stride : layer.out;
    if (i == 0 && begin > 0) {
      Multiply(layer, begin, layer.in, num_rows, x, input.shared_product, output, stride);
    } else {
      Multiply(layer, 0, layer.in, num_rows, x, layer.bias.data(), output, stride);
    }
    if (layer.normalised) {
      Kernels().norm_activation(
          {num_rows, layer.out, layer.gain.data(), layer.shift.data(),
           i == 0 ? input.mask : nullptr, layer.options.activation, layer.options.simnorm_dim,
           stride, rounds && !last ? pairs : nullptr},
          output, output, nullptr);
    }
    x = rounds ? Operand{nullptr, pairs, PairsOf(layer.out)} : Operand{output, nullptr, stride};
  }
}

}  // namespace pompc
