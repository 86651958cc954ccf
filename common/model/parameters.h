// The parameters of the world model as flat, contiguous buffers with named views.
//
// Optimiser, gradient clipping, target update, checkpoint and snapshot are then a few operations on
// ranges of one buffer instead of a loop over some sixty tensors.
//
// Layout, in this order: encoder, dynamics, reward, termination (if predicted), value heads,
// policy, intermediate prior (if used). Each tensor starts at a multiple of 16 elements; the
// padding stays zero. Names: "encoder.0.weight" [out, in], "encoder.0.bias", "encoder.0.ln.weight"
// (gain), "encoder.0.ln.bias" (shift); value heads are stacked, "value.0.weight" [Q, out, in]. The
// target value heads live in a buffer of their own with the layout of the value range.
//
// Thread-safety: const methods are safe concurrently; whoever writes the buffers must be alone.
// Errors: Create() and LoadSnapshot() return INVALID_ARGUMENT; unknown names break an invariant.
#ifndef POMPC_COMMON_MODEL_PARAMETERS_H_
#define POMPC_COMMON_MODEL_PARAMETERS_H_

#include <c10/core/Event.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/model/tensor.h"
#include "proto/pompc/v1/config.pb.h"

namespace pompc {

// Whether the policy loss has a divergence term, now or later in the run.
bool IsRegularised(const v1::LearningConfig& config);

// What the shapes of all networks follow from.
struct ModelSpec {
  v1::ModelConfig config;
  int64_t obs_dim = 0;
  int64_t action_dim = 0;
  bool intermediate_prior = false;  // Has the network pi_p.

  // The spec of a run; pi_p exists only if the policy loss or the planner uses it.
  static ModelSpec FromConfig(const v1::RunConfig& config, int64_t obs_dim, int64_t action_dim);
};

// Parameter groups, in buffer order.
enum class ParameterGroup { kEncoder, kDynamics, kReward, kTermination, kValue, kPolicy, kPrior };

// [begin, end) in elements of a flat buffer.
struct ParameterRange {
  int64_t begin = 0;
  int64_t end = 0;
  int64_t size() const { return end - begin; }
  at::Tensor Of(const at::Tensor& flat) const { return flat.narrow(0, begin, size()); }
};

struct NamedParameter {
  std::string name;
  std::vector<int64_t> shape;
  int64_t offset = 0;  // Elements.
  int64_t size = 0;    // Elements, without padding.
  ParameterGroup group = ParameterGroup::kEncoder;
};

class ParameterLayout {
 public:
  // INVALID_ARGUMENT: sizes not positive, or latent_dim not a multiple of simnorm_dim.
  static absl::StatusOr<ParameterLayout> Create(const ModelSpec& spec);

  const std::vector<NamedParameter>& parameters() const { return parameters_; }
  bool Contains(std::string_view name) const { return index_.find(name) != index_.end(); }
  const NamedParameter& Find(std::string_view name) const;
  // Empty range (begin == end) for a group that this model does not have.
  ParameterRange range(ParameterGroup group) const { return ranges_[static_cast<int>(group)]; }
  // Everything that the model loss trains: encoder to value heads.
  ParameterRange model_range() const { return {0, range(ParameterGroup::kValue).end}; }
  int64_t size() const { return size_; }  // Elements, padding included.

 private:
  void Add(ParameterGroup group, std::string name, std::vector<int64_t> shape);

  std::vector<NamedParameter> parameters_;
  std::map<std::string, size_t, std::less<>> index_;
  ParameterRange ranges_[7];
  int64_t size_ = 0;
};

// kActing: values only. kTraining: gradient buffer and target value heads as well.
enum class ParameterUse { kActing, kTraining };

// Whether all values are finite. Waits for the device.
bool AllFinite(const at::Tensor& values);

// A snapshot whose values may still be on their way from a GPU. Thread-safety: none; may be moved
// to another thread.
class PendingSnapshot {
 public:
  // Blocks until the values are there. What Parameters::Snapshot() returns.
  std::string Bytes() const;
  // Blocks likewise. Whether all values are finite: LoadSnapshot() refuses others.
  bool Finite() const;

 private:
  friend class Parameters;
  at::Tensor values_;                 // [size], in memory of the host.
  std::optional<c10::Event> copied_;  // Behind the copy; unset on the CPU.
};

class Parameters {
 public:
  // Zero-filled. `options`: device and dtype (float32; tests also use float64).
  static absl::StatusOr<std::shared_ptr<Parameters>> Create(
      const ModelSpec& spec, ParameterUse use, const at::TensorOptions& options = at::kFloat);

  const ModelSpec& spec() const { return spec_; }
  const ParameterLayout& layout() const { return layout_; }
  const at::Tensor& flat() const { return flat_; }  // [size]
  // Changes when an in-place operator writes to flat() or one of its views. at::_fused_adam_ does
  // not count; who calls it bumps the version.
  uint32_t version() const { return static_cast<uint32_t>(flat_._version()); }
  const at::Tensor& target() const { return target_; }  // [value range size]; kTraining only.
  const at::Tensor& grad() const { return grad_; }      // [size]; kTraining only.

  // A view without gradient: writes to the buffer show in it at once.
  at::Tensor View(std::string_view name) const;
  // The same for a target value head: name "value.…".
  at::Tensor TargetView(std::string_view name) const;
  // The autograd leaf: backward() adds its gradient to grad() in place. kTraining only.
  at::Tensor Leaf(std::string_view name) const;

  // Draws initial values: weights N(0, 0.02^2), biases and last layers of reward and value 0,
  // LayerNorm gain 1; value heads as ModelConfig.value_init says. (The reference truncates at +-2,
  // a hundred standard deviations: never.) Targets become copies of the value heads. The draws
  // depend on `seed` alone, not on the device.
  void Initialise(uint64_t seed);

  // What actors need, all but the targets, in one buffer: a header of 16 bytes (the text "PMPC",
  // format version, dtype, number of elements), then the values in buffer order; little-endian.
  // bfloat16 rounds to nearest: a relative error of 2^-8 at most. No checksum: whoever stores or
  // sends it adds one (ParameterSnapshot.crc32c).
  std::string Snapshot(v1::LearnerConfig::PublishDtype dtype = v1::LearnerConfig::FLOAT32) const {
    return StartSnapshot(dtype).Bytes();
  }
  // The same values, of now, for another thread to turn into bytes: from a GPU they are copied in
  // the order of the current stream, and nobody waits for that here.
  PendingSnapshot StartSnapshot(v1::LearnerConfig::PublishDtype dtype) const;
  // Replaces the values, from either dtype. INVALID_ARGUMENT: no snapshot, another format version,
  // wrong size, or a value that is not finite; the values are then unchanged.
  absl::Status LoadSnapshot(std::string_view bytes);

 private:
  Parameters(ModelSpec spec, ParameterLayout layout)
      : spec_(std::move(spec)), layout_(std::move(layout)) {}

  ModelSpec spec_;
  ParameterLayout layout_;
  at::Tensor flat_, target_, grad_;
  std::vector<at::Tensor> leaves_;  // In the order of layout_.parameters(); kTraining only.
};

}  // namespace pompc

#endif  // POMPC_COMMON_MODEL_PARAMETERS_H_
