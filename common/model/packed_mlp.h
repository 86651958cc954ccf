// A perceptron whose weights are packed once and then used many times, for planning on the CPU.
//
// Blocks of rows go through all layers before the next block starts, so that activations stay in
// the first- and second-level caches and no tensor is made in between.
//
// Thread-safety: immutable; Forward() is safe concurrently.
// Determinism: a row's result does not depend on the other rows.
#ifndef POMPC_COMMON_MODEL_PACKED_MLP_H_
#define POMPC_COMMON_MODEL_PACKED_MLP_H_

#include <cstdint>
#include <vector>

#include "common/model/fused_layers.h"
#include "common/model/tensor.h"

namespace pompc {

// One layer's parameters on the CPU, float32; see Layer (layers.h). weight: [out, in].
struct PlainLayer {
  at::Tensor weight, bias, gain, shift;  // The last two undefined in a plain layer.
};

class PackedMlp {
 public:
  // Copies the parameters. `last`: activation of the last layer if it has a gain.
  PackedMlp(const std::vector<PlainLayer>& layers, const NormedLinearOptions& last);

  // x: [.., in] float32 -> [.., out], without gradient.
  at::Tensor Forward(const at::Tensor& x) const;

 private:
  struct PackedLayer {
    int64_t in, out;
    bool normalised;
    NormedLinearOptions options;
    std::vector<float> packed, bias, gain, shift;
  };

  void ForwardRows(int64_t rows, const float* x, float* y) const;

  std::vector<PackedLayer> layers_;
  int64_t widest_ = 0;        // Outputs of the widest layer.
  std::vector<float> zeros_;  // [widest_]
};

}  // namespace pompc

#endif  // POMPC_COMMON_MODEL_PACKED_MLP_H_
