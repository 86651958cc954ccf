// The learned world model: encode, next, reward, (termination), policy, intermediate prior, value.
//
// Source: TD-MPC2 (arXiv:2310.16828); nicklashansen/tdmpc2@e9f5932 tdmpc2/common/world_model.py.
// Deviations: (1) dropout is a mask that the caller draws. (2) V heads (BMPC) and the intermediate
//   prior (PO-MPC) are the same class by config.
// Shapes: O obs size, A action size, L latent size, K bins, Q value heads; leading dimensions ".."
//   are free. `za` is Join(z, a) [.., L+A]: join once, use for reward, next and value. (On a GPU
//   columns of zeros may follow.)
// Units: actions are normalised to [-1, 1]; Reward() and Decode() give reward units.
// Thread-safety: immutable; methods are safe concurrently while nobody writes the parameters.
// Device and dtype are those of the parameters.
#ifndef POMPC_COMMON_MODEL_WORLD_MODEL_H_
#define POMPC_COMMON_MODEL_WORLD_MODEL_H_

#include <memory>
#include <optional>
#include <vector>

#include "common/model/layers.h"
#include "common/model/math.h"
#include "common/model/packed_mlp.h"
#include "common/model/parameters.h"
#include "common/model/tensor.h"

namespace pompc {

// A diagonal Gaussian policy, before (SQUASHED) or after (TANH_MEAN) the squashing of its mean.
struct PolicyDistribution {
  v1::ModelConfig::PolicyForm form;
  at::Tensor pre_tanh_mean;  // [.., A] m, the network's output.
  at::Tensor mean;           // [.., A] tanh(m), the centre in action space.
  at::Tensor log_std;        // [.., A]
  at::Tensor raw_log_std;    // [.., A] the network's output, from which LogStd() makes log_std.

  // The action of a standard normal draw, reparameterised. eps: [.., A] -> [.., A] in [-1, 1].
  at::Tensor Sample(const at::Tensor& eps) const;
};

// The networks of a world model for many evaluations on the CPU. Where an input ends in an action,
// rows may share the product of the latent before it.
struct PackedModel {
  PackedMlp encoder, dynamics, reward, policy;
  std::optional<PackedMlp> termination, prior;
  std::vector<PackedMlp> value;  // One for each head.
  int64_t scratch_size = 0;      // Of the network that needs most.
};

class WorldModel {
 public:
  enum class Gradients { kNone, kTracked };
  // Shares the parameters: updates made to their buffers show at once. kTracked: results carry
  // gradients to the parameters' leaves. kNone: parameters count as constants (gradients with
  // respect to inputs still flow).
  WorldModel(std::shared_ptr<const Parameters> parameters, Gradients gradients);

  // Whether Pack() applies: float32 on the CPU.
  bool CanPack() const;
  // The networks with the weights copied and packed as they are now; later updates of the
  // parameters do not reach them. The encoder, which sees few rows, keeps float32.
  std::shared_ptr<const PackedModel> Pack(Factors factors) const;

  at::Tensor Encode(const at::Tensor& obs) const;                   // [.., O] -> [.., L]
  at::Tensor Join(const at::Tensor& z, const at::Tensor& a) const;  // -> [.., L+A]
  at::Tensor Next(const at::Tensor& za) const;                      // -> [.., L]
  at::Tensor RewardLogits(const at::Tensor& za) const;              // -> [.., K]
  at::Tensor Reward(const at::Tensor& za) const;                    // -> [..]
  at::Tensor TerminationLogit(const at::Tensor& z) const;           // -> [..]
  PolicyDistribution Policy(const at::Tensor& z) const;
  // With another range of log_std (re-planning explores wider).
  PolicyDistribution Policy(const at::Tensor& z, LogStdRange range) const;
  PolicyDistribution Prior(const at::Tensor& z) const;  // Only if spec().intermediate_prior.

  enum class Heads { kOnline, kTarget };
  // Value logits of the selected heads. input: z for V heads, za for Q heads. heads: int64 [2] (see
  // Noise::Heads) or undefined for all. mask: dropout, DropoutShape(input, heads) or undefined.
  // -> [Q, .., K].
  at::Tensor ValueLogits(const at::Tensor& input, Heads set, const at::Tensor& heads,
                         const at::Tensor& mask = {}) const;
  // The mask's shape for `num_heads` heads: [Q, product of .., mlp_dim].
  std::vector<int64_t> DropoutShape(const at::Tensor& input, int64_t num_heads) const;
  // Expected value of two-hot logits. [.., K] -> [..].
  at::Tensor Decode(const at::Tensor& logits) const;

  bool values_take_actions() const { return spec().config.value_kind() == v1::ModelConfig::Q; }
  int64_t num_value_heads() const { return spec().config.num_value_heads(); }
  const Bins& bins() const { return bins_; }
  const ModelSpec& spec() const { return parameters_->spec(); }
  const std::shared_ptr<const Parameters>& parameters() const { return parameters_; }

 private:
  PolicyDistribution DistributionOf(const at::Tensor& output, LogStdRange range) const;

  std::shared_ptr<const Parameters> parameters_;
  Bins bins_;
  NormedLinearOptions simnorm_;
  Mlp encoder_, dynamics_, reward_, termination_, value_, target_value_, policy_, prior_;
};

}  // namespace pompc

#endif  // POMPC_COMMON_MODEL_WORLD_MODEL_H_
