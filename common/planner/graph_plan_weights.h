// The weights of a plan on a GPU (graph_plan.h), copied from the model's parameters as its products
// want them.
#ifndef POMPC_COMMON_PLANNER_GRAPH_PLAN_WEIGHTS_H_
#define POMPC_COMMON_PLANNER_GRAPH_PLAN_WEIGHTS_H_

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "common/model/layers.h"
#include "common/model/parameters.h"
#include "common/model/world_model.h"
#include "common/planner/graph_plan.h"

namespace pompc {

// The weights in the activations' type, padded with zeros; biases and LayerNorm's parameters, and
// the networks that see observations alone, are the model's own float32 tensors.
class GraphPlanner::Weights {
 public:
  static constexpr int64_t kLayers = 3;  // Of every network but the encoder.
  using Network = std::array<Layer, kLayers>;

  // n rounded up to what products want of their sizes.
  static int64_t Padded(int64_t n) { return (n + 7) / 8 * 8; }

  Weights(const WorldModel& model, at::ScalarType type);

  // Copies the weights if the parameters have changed.
  void Refresh();

  // Value heads: all weights of a head in one row of each.
  at::Tensor head_weights;  // [Q, ..] in the activations' type.
  at::Tensor head_vectors;  // float32 [Q, ..]
  // The layers of rows like those of head_weights and head_vectors: weight [rows, out, in], ...
  Network HeadLayers(const at::Tensor& weights, const at::Tensor& vectors) const;

  std::vector<Layer> encoder;
  Network dynamics, reward, policy, policy_at_observation;
  Layer dynamics_at_observation, reward_at_observation;

 private:
  // Offsets in a row of head_weights and head_vectors; out and in are padded.
  struct HeadSlot {
    int64_t out, in, weight, bias;
  };

  Layer Views(const std::string& network, int i) const;

  // first_in: padded inputs of the first layer.
  Layer Pack(const std::string& network, int i, int64_t first_in, const at::TensorOptions& options);

  void PackHeads(int64_t first_in, const at::TensorOptions& options, at::ScalarType type);

  const std::shared_ptr<const Parameters> parameters_;
  std::array<HeadSlot, kLayers> slots_;
  std::vector<std::pair<at::Tensor, at::Tensor>> copies_;
  std::optional<uint32_t> version_;
};

}  // namespace pompc

#endif  // POMPC_COMMON_PLANNER_GRAPH_PLAN_WEIGHTS_H_
