// A perceptron whose weights are packed once and then used many times, for planning on the CPU.
//
// Blocks of rows go through all layers before the next block starts, so that activations stay in
// the first- and second-level caches. Nothing is allocated.
//
// With bfloat16 factors, each layer's weights and inputs are rounded to bfloat16 and its product is
// summed in float32; bias, LayerNorm, activation and the last layer's outputs stay float32.
//
// Thread-safety: immutable; safe concurrently with a scratch for each thread.
// Determinism: a row's result does not depend on the other rows.
#ifndef POMPC_COMMON_MODEL_PACKED_MLP_H_
#define POMPC_COMMON_MODEL_PACKED_MLP_H_

#include <cstdint>
#include <vector>

#include "common/model/fused_layers.h"
#include "common/model/kernels.h"
#include "common/model/tensor.h"

namespace pompc {

// One layer's parameters on the CPU, float32; see Layer (layers.h). weight: [out, in].
struct PlainLayer {
  at::Tensor weight, bias, gain, shift;  // The last two undefined in a plain layer.
};

// What the factors of products are. kBFloat16 only where HasBFloat16Products().
enum class Factors { kFloat32, kBFloat16 };

class PackedMlp {
 public:
  // Rows that go through all layers together: enough to use each weight many times, few enough that
  // their activations (96 x 512 floats: 192 KB) stay in the second-level cache.
  static constexpr int64_t kBlockRows = 96;

  struct Input {
    const float* rows = nullptr;
    int64_t stride = 0;  // From row to row.
    // All rows have the same inputs but for the last `tail`: the first layer's product of those
    // others (see SharedProduct), which are then not read from `rows`. Or null.
    const float* shared_product = nullptr;
    // Dropout of the first layer's product [rows, its width], already scaled; or null.
    const float* mask = nullptr;
  };

  // Copies the parameters. `last`: activation of the last layer if it has a gain. `tail`: how many
  // of the inputs differ between rows with a shared product; the first layer is then normalised.
  PackedMlp(const std::vector<PlainLayer>& layers, const NormedLinearOptions& last, Factors factors,
            int64_t tail = 0);

  int64_t in() const { return layers_.front().in; }
  int64_t out() const { return layers_.back().out; }
  int64_t first_width() const { return layers_.front().out; }
  int64_t scratch_size() const { return 2 * kBlockRows * widest_; }  // Floats or pairs.

  // y [rows, out], y_stride from row to row, may overlap the input of the same rows if there are
  // two layers or more. scratch: scratch_size() floats.
  void Forward(int64_t num_rows, const Input& input, float* scratch, float* y,
               int64_t y_stride) const;

  // x: the first in() - tail inputs -> product [first_width()], with the bias. scratch as above.
  void SharedProduct(const float* x, float* scratch, float* product) const;

 private:
  struct PackedLayer {
    int64_t in, out;
    bool normalised;
    NormedLinearOptions options;
    std::vector<float> bias, gain, shift;
    // One of both. An odd number of inputs before the tail, or in it, is filled up to pairs.
    std::vector<float> packed;
    std::vector<BFloat16Pair> packed_pairs;
  };
  // The left side of a product: one of both.
  struct Operand {
    const float* rows;
    const BFloat16Pair* pairs;
    int64_t stride;  // Floats or pairs.
  };

  // y [num_rows, out] = start + x times the part of the layer's weights that inputs [begin, end)
  // have; x: those inputs. start: as gemm_packed's.
  void Multiply(const PackedLayer& layer, int64_t begin, int64_t end, int64_t num_rows,
                const Operand& x, const float* start, float* y, int64_t y_stride) const;
  // Inputs [begin, end) of the network as an operand: themselves, or rounded into `pairs`.
  Operand FirstOperand(int64_t begin, int64_t end, int64_t num_rows, const float* x,
                       int64_t x_stride, BFloat16Pair* pairs) const;
  void ForwardBlock(int64_t num_rows, const Input& input, float* scratch, float* y,
                    int64_t y_stride) const;

  Factors factors_;
  std::vector<PackedLayer> layers_;
  int64_t tail_;
  int64_t widest_ = 0;  // Outputs of the widest layer, or pairs of the network's inputs.
};

}  // namespace pompc

#endif  // POMPC_COMMON_MODEL_PACKED_MLP_H_
