// What GraphPlanner (graph_plan.h) keeps for a batch size: buffers, and the graph of a whole plan
// that is recorded on them once and replayed for each plan.
//
// Where to look: graph_plan_recording.cc has the buffers, the recording, and what goes into and
// comes out of a replay; graph_plan_iteration.cc what a plan does in which order, and its random
// and fitting parts; graph_plan_networks.cc the networks, products and what follows each.
#ifndef POMPC_COMMON_PLANNER_GRAPH_PLAN_RECORDING_H_
#define POMPC_COMMON_PLANNER_GRAPH_PLAN_RECORDING_H_

#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDAStream.h>
#include <cuda_runtime_api.h>

#include <cstdint>
#include <functional>
#include <vector>

#include "absl/status/statusor.h"
#include "common/model/layers.h"
#include "common/model/world_model.h"
#include "common/planner/graph_plan.h"
#include "common/planner/graph_plan_weights.h"
#include "common/planner/mppi_planner.h"
#include "common/planner/plan_kernels.h"
#include "common/planner/planner.h"

namespace pompc {

// Streams of our own: cuBLAS keeps a workspace for each, which nobody else's kernels then share.
class GraphPlanner::Streams {
 public:
  using Stream = c10::cuda::CUDAStream;

  // Everything enqueued on `to` from now on waits for what is on `from` now.
  class Fence {
   public:
    Fence();
    ~Fence();
    Fence(const Fence&) = delete;
    Fence& operator=(const Fence&) = delete;

    void Order(const Stream& from, const Stream& to);

   private:
    cudaEvent_t event_ = nullptr;
  };

  explicit Streams(c10::DeviceIndex device);
  ~Streams();
  Streams(const Streams&) = delete;
  Streams& operator=(const Streams&) = delete;

  // Of a lane: its chain of kernels, and what runs beside it: rewards, and latents of proposals.
  const Stream& main(int64_t lane) const { return streams_[3 * lane]; }
  const Stream& rewards(int64_t lane) const { return streams_[3 * lane + 1]; }
  const Stream& proposals(int64_t lane) const { return streams_[3 * lane + 2]; }
  Fence& fence() { return fence_; }

 private:
  std::vector<Stream> streams_;
  Fence fence_;
};

// Buffers and graph of one batch size.
class GraphPlanner::Graph {
 public:
  Graph(const MppiOptions& options, int iterations, const WorldModel& model, const Weights& weights,
        Streams& streams, int64_t batch);

  // The caller's current stream does all of this in order.
  void SetInputs(const PlanRequest& request, uint64_t seed, const PlannerState* state);

  void Replay() { graph_.replay(); }

  // After Replay(), on the same stream; waits for it.
  absl::StatusOr<PlanResult> Result();

  at::Tensor Mean() const { return mean_.clone(); }
  Trace LastTrace() const { return {actions_.clone(), value_.clone()}; }

 private:
  using Stream = Streams::Stream;
  static constexpr int64_t kLayers = Weights::kLayers;

  // Observations [first, first + count).
  struct Chunk {
    int64_t first, count;
  };

  // Sequences of a chunk that go through the horizon together: its proposals or its candidates.
  struct Rollout {
    int64_t per_observation;                 // P or N - P.
    int64_t offset;                          // Of the first among an observation's N.
    at::Tensor first;                        // [rows, joined - L] actions of step 0.
    at::Tensor later;                        // [H - 1, rows, joined] inputs of the later steps.
    at::Tensor hidden, other;                // [rows, mlp]
    at::Tensor next;                         // [rows, L]
    at::Tensor reward_hidden, reward_other;  // [H rows, mlp]
    at::Tensor reward_logits;                // float32 [H rows, K]
  };

  // What a lane's chunks work on, one after the other.
  struct Lane {
    int64_t capacity;  // Observations.
    Rollout proposals, candidates;
    at::Tensor terminal;                    // [capacity N, joined] z_H (and the action there).
    at::Tensor value_hidden, value_other;   // [2, capacity N, mlp]
    at::Tensor value_logits;                // float32 [2, capacity N, K]
    at::Tensor policy_output;               // float32 [capacity N, 2 A]
    at::Tensor proposal_output;             // float32 [capacity P, 2 A]
    at::Tensor head_weights, head_vectors;  // Of the two heads in use.
  };

  // --- graph_plan_recording.cc: buffers. ---

  at::Tensor Typed(at::IntArrayRef shape) const {
    return at::zeros(shape, float_options_.dtype(type_));
  }
  at::Tensor Float(at::IntArrayRef shape) const { return at::zeros(shape, float_options_); }

  Rollout MakeRollout(int64_t capacity, int64_t per_observation, int64_t offset) const;
  void Allocate();
  // The first part of a lane's buffers, for a chunk of `count` observations.
  Lane View(const Lane& lane, int64_t count) const;

  // --- graph_plan_iteration.cc: the plan. ---

  void Enqueue();
  // The proposals roll out beside the first iteration's candidates, and each rollout's rewards are
  // computed beside its last step.
  void PlanChunk(const Chunk& chunk, Lane lane, const Stream& main, const Stream& rewards,
                 const Stream& proposals);
  // All steps but the last; act(t) puts the actions of step t into the inputs, for the last as
  // well.
  void RollOut(const Chunk& chunk, const Rollout& r, const at::Tensor& terminal,
               const Stream& stream, const std::function<void(int64_t)>& act);
  void Propose(const Chunk& chunk, const Lane& lane, int64_t t, const Stream& stream);
  void Sample(const Chunk& chunk, const Rollout& r, int iteration, const Stream& stream);
  void Gather(const Lane& lane, int iteration, const Stream& stream);
  void Refit(const Chunk& chunk, bool last, const Stream& stream);
  PolicyArgs Policy(const Chunk& chunk, int64_t rows_per_observation, const at::Tensor& output,
                    int64_t rows_per_output) const;

  // --- graph_plan_networks.cc. ---

  // Latents and what follows from them alone, in float32; the policy's output on `proposals`.
  void EncodeObservations(const Stream& stream, const Stream& proposals);
  // One step of the dynamics, from the inputs of step t to the latents of the next or to
  // `terminal`.
  void Step(const Chunk& chunk, const Rollout& r, int64_t t, const at::Tensor& terminal,
            const Stream& stream);
  // act(LayerNorm(first layer)) of the inputs of the steps [begin, end) -> y [(end - begin) rows,
  // .]. At the first step all sequences are at the latent of their observation: `shared` [E, .].
  void FirstLayer(const Chunk& chunk, const Rollout& r, int64_t begin, int64_t end,
                  const Layer& layer, const at::Tensor& shared, const at::Tensor& y,
                  const Stream& stream);
  // Discounted rewards of all steps -> reward_.
  void Rewards(const Chunk& chunk, const Rollout& r, const Stream& stream);
  // Value logits of both heads at the last latents (and actions of the policy there).
  void TerminalLogits(const Chunk& chunk, const Lane& lane, int iteration, const Stream& stream);
  // The mean of the two heads, discounted, and the rewards -> value_.
  void AddTerminalValue(const Chunk& chunk, const Lane& lane, const Stream& stream);
  void PolicyNetwork(const at::Tensor& z, const at::Tensor& hidden, const at::Tensor& other,
                     const at::Tensor& output, const Stream& stream);
  // What `norm` says of x w^T (see Product), by way of `product` where that takes two kernels.
  void NormedLayer(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& product,
                   const NormArgs& norm, const Stream& stream) const;
  // Whether logits of x are decoded by DecodeLayer(), without being stored.
  bool DecodesFused(const at::Tensor& x) const;
  void DecodeLayer(const at::Tensor& x, const at::Tensor& weight, const DecodeArgs& decode,
                   const Stream& stream) const;
  // x [rows, width], with the layer's parameters; those of a pair of heads (two rows each) change
  // after head_rows rows.
  NormArgs InPlace(const at::Tensor& x, const Layer& layer, int64_t head_rows = 0) const;
  DecodeArgs Decode(const at::Tensor& logits, const Layer& layer, int64_t terms) const;

  // --- Arguments. ---

  static const float* Floats(const at::Tensor& t) { return t.const_data_ptr<float>(); }
  const PlanControl* Control() const {
    return static_cast<const PlanControl*>(control_.const_data_ptr());
  }

  // The rollout's rows among all N sequences of observations from `first` on.
  RowMap Among(const Rollout& r, int64_t first) const {
    return {static_cast<int>(r.per_observation), static_cast<int>(samples_),
            static_cast<int>(first * samples_ + r.offset)};
  }

  void Order(const Stream& from, const Stream& to) { streams_.fence().Order(from, to); }

  const MppiOptions& options_;
  const v1::PlannerConfig& config_;
  const ModelSpec& spec_;
  const Weights& weights_;
  Streams& streams_;
  const bool q_heads_;
  const int iterations_;
  const int64_t batch_, horizon_, samples_, proposals_, action_, latent_;
  const int64_t joined_;       // Of [z | a], padded.
  const at::ScalarType type_;  // Of activations and weights.
  const at::TensorOptions float_options_;

  // Inputs. control_: a PlanControl, then a reset flag for each observation.
  at::Tensor host_control_, control_;
  at::Tensor obs_, previous_;
  // Of all observations.
  std::vector<at::Tensor> encoded_, first_policy_;    // Layer by layer; [B, L] and [B, 2 A] last.
  at::Tensor dynamics_product_, reward_product_;      // [B, mlp] the latent's, and the bias.
  at::Tensor mean_, std_, actions_, reward_, value_;  // value_: see Trace.
  at::Tensor counts_, host_counts_, result_;
  std::vector<Chunk> chunks_;
  std::vector<Lane> lanes_;
  at::cuda::CUDAGraph graph_;
};

}  // namespace pompc

#endif  // POMPC_COMMON_PLANNER_GRAPH_PLAN_RECORDING_H_
