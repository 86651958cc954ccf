#include "common/planner/graph_plan.h"

#include <ATen/Context.h>
#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/planner/plan_kernels.h"

namespace pompc {
namespace {

using Stream = c10::cuda::CUDAStream;

constexpr int64_t kLayers = 3;  // Of every network but the encoder.
// Observations of a chunk, and chunks at work at the same time.
constexpr int64_t kChunkSize = 256;
constexpr int64_t kNumLanes = 2;

int64_t Padded(int64_t n) { return (n + 7) / 8 * 8; }

const float* Floats(const at::Tensor& t) { return t.const_data_ptr<float>(); }

// Everything enqueued on `to` from now on waits for what is on `from` now.
class Fence {
 public:
  Fence() { C10_CUDA_CHECK(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming)); }
  ~Fence() { cudaEventDestroy(event_); }
  Fence(const Fence&) = delete;
  Fence& operator=(const Fence&) = delete;

  void Order(const Stream& from, const Stream& to) {
    C10_CUDA_CHECK(cudaEventRecord(event_, from.stream()));
    C10_CUDA_CHECK(cudaStreamWaitEvent(to.stream(), event_, 0));
  }

 private:
  cudaEvent_t event_ = nullptr;
};

// y = x w^T on the current stream. x [M, K], w [N, K]; or batches of both. y float32 or as x.
void Product(const at::Tensor& x, const at::Tensor& w, at::Tensor y) {
  const at::Tensor wt = w.transpose(-1, -2);
  const bool widens = y.scalar_type() != x.scalar_type();
  if (x.dim() == 3) {
    widens ? at::bmm_out(y, x, wt, y.scalar_type()) : at::bmm_out(y, x, wt);
  } else {
    widens ? at::mm_out(y, x, wt, y.scalar_type()) : at::mm_out(y, x, wt);
  }
}

// While it lives, float32 products may or may not round their factors to TF32.
class Tf32Scope {
 public:
  explicit Tf32Scope(bool allowed) : before_(at::globalContext().allowTF32CuBLAS()) {
    at::globalContext().setAllowTF32CuBLAS(allowed);
  }
  ~Tf32Scope() { at::globalContext().setAllowTF32CuBLAS(before_); }
  Tf32Scope(const Tf32Scope&) = delete;
  Tf32Scope& operator=(const Tf32Scope&) = delete;

 private:
  const bool before_;
};

}  // namespace

// The weights in the activations' type, padded with zeros; biases and LayerNorm's parameters, and
// the networks that see observations alone, are the model's own float32 tensors.
class GraphPlanner::Weights {
 public:
  using Network = std::array<Layer, kLayers>;

  Weights(const WorldModel& model, at::ScalarType type) : parameters_(model.parameters()) {
    const ModelSpec& spec = parameters_->spec();
    const int64_t latent = spec.config.latent_dim(), joined = Padded(latent + spec.action_dim);
    const at::TensorOptions options = parameters_->flat().options();
    for (int i = 0; parameters_->layout().Contains(absl::StrCat("encoder.", i, ".weight")); ++i) {
      encoder.push_back(Views("encoder", i));
    }
    for (int i = 0; i < kLayers; ++i) {
      dynamics[i] = Pack("dynamics", i, joined, options.dtype(type));
      reward[i] = Pack("reward", i, joined, options.dtype(type));
      policy[i] = Pack("policy", i, latent, options.dtype(type));
      policy_at_observation[i] = Views("policy", i);
    }
    dynamics_at_observation = Views("dynamics", 0);
    reward_at_observation = Views("reward", 0);
    PackHeads(model.values_take_actions() ? joined : latent, options, type);
  }

  // Copies the weights if the parameters have changed.
  void Refresh() {
    if (version_ == parameters_->version()) return;
    for (auto& [to, from] : copies_) to.copy_(from);
    version_ = parameters_->version();
  }

  // Value heads: all weights of a head in one row of each.
  at::Tensor head_weights;  // [Q, ..] in the activations' type.
  at::Tensor head_vectors;  // float32 [Q, ..]
  // The layers of rows like those of head_weights and head_vectors: weight [rows, out, in], ...
  Network HeadLayers(const at::Tensor& weights, const at::Tensor& vectors) const {
    Network layers;
    for (int i = 0; i < kLayers; ++i) {
      const HeadSlot& slot = slots_[i];
      const auto vector = [&](int64_t offset) { return vectors.narrow(1, offset, slot.out); };
      layers[i].weight =
          weights.narrow(1, slot.weight, slot.out * slot.in).unflatten(1, {slot.out, slot.in});
      layers[i].bias = vector(slot.bias);
      if (i + 1 < kLayers) {
        layers[i].gain = vector(slot.bias + slot.out);
        layers[i].shift = vector(slot.bias + 2 * slot.out);
      }
    }
    return layers;
  }

  std::vector<Layer> encoder;
  Network dynamics, reward, policy, policy_at_observation;
  Layer dynamics_at_observation, reward_at_observation;

 private:
  // Offsets in a row of head_weights and head_vectors; out and in are padded.
  struct HeadSlot {
    int64_t out, in, weight, bias;
  };

  Layer Views(const std::string& network, int i) const {
    const std::string prefix = absl::StrCat(network, ".", i);
    Layer layer = {
        parameters_->View(prefix + ".weight"), parameters_->View(prefix + ".bias"), {}, {}};
    if (parameters_->layout().Contains(prefix + ".ln.weight")) {
      layer.gain = parameters_->View(prefix + ".ln.weight");
      layer.shift = parameters_->View(prefix + ".ln.bias");
    }
    return layer;
  }

  // first_in: padded inputs of the first layer.
  Layer Pack(const std::string& network, int i, int64_t first_in,
             const at::TensorOptions& options) {
    Layer layer = Views(network, i);
    const at::Tensor from = layer.weight;
    layer.weight = at::zeros({Padded(from.size(0)), i == 0 ? first_in : from.size(1)}, options);
    copies_.emplace_back(layer.weight.narrow(0, 0, from.size(0)).narrow(1, 0, from.size(1)), from);
    return layer;
  }

  void PackHeads(int64_t first_in, const at::TensorOptions& options, at::ScalarType type) {
    int64_t heads = 0, weight_size = 0, vector_size = 0;
    for (int i = 0; i < kLayers; ++i) {
      const Layer from = Views("value", i);
      heads = from.weight.size(0);
      const int64_t out = Padded(from.weight.size(1)), in = i == 0 ? first_in : from.weight.size(2);
      slots_[i] = {out, in, weight_size, vector_size};
      weight_size += out * in;
      vector_size += (from.gain.defined() ? 3 : 1) * out;
    }
    head_weights = at::zeros({heads, weight_size}, options.dtype(type));
    head_vectors = at::zeros({heads, vector_size}, options);
    const Network to = HeadLayers(head_weights, head_vectors);
    for (int i = 0; i < kLayers; ++i) {
      const Layer from = Views("value", i);
      const int64_t out = from.weight.size(1), in = from.weight.size(2);
      copies_.emplace_back(to[i].weight.narrow(1, 0, out).narrow(2, 0, in), from.weight);
      copies_.emplace_back(to[i].bias.narrow(1, 0, out), from.bias);
      if (!from.gain.defined()) continue;
      copies_.emplace_back(to[i].gain.narrow(1, 0, out), from.gain);
      copies_.emplace_back(to[i].shift.narrow(1, 0, out), from.shift);
    }
  }

  const std::shared_ptr<const Parameters> parameters_;
  std::array<HeadSlot, kLayers> slots_;
  std::vector<std::pair<at::Tensor, at::Tensor>> copies_;
  std::optional<uint32_t> version_;
};

// Streams of our own: cuBLAS keeps a workspace for each, which nobody else's kernels then share.
class GraphPlanner::Streams {
 public:
  explicit Streams(c10::DeviceIndex device) {
    for (int64_t i = 0; i < 3 * kNumLanes; ++i) {
      cudaStream_t stream;
      C10_CUDA_CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
      streams_.push_back(c10::cuda::getStreamFromExternal(stream, device));
    }
  }
  ~Streams() {
    for (const Stream& stream : streams_) cudaStreamDestroy(stream.stream());
  }
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
        Streams& streams, int64_t batch)
      : options_(options),
        config_(options_.config),
        spec_(model.spec()),
        weights_(weights),
        streams_(streams),
        q_heads_(model.values_take_actions()),
        iterations_(iterations),
        batch_(batch),
        horizon_(config_.horizon()),
        samples_(config_.num_samples()),
        proposals_(config_.num_policy_samples()),
        action_(spec_.action_dim),
        latent_(spec_.config.latent_dim()),
        joined_(Padded(latent_ + action_)),
        type_(weights.dynamics[0].weight.scalar_type()),
        float_options_(weights.head_vectors.options()) {
    Allocate();
    c10::cuda::getCurrentCUDAStream().synchronize();  // What our streams see is in place.
    const c10::cuda::CUDAStreamGuard guard(streams_.main(0));
    const Tf32Scope tf32(options_.precision == v1::TF32);
    // Once outside of the graph, so that cuBLAS is initialised and has its workspaces.
    Enqueue();
    streams_.main(0).synchronize();
    graph_.capture_begin({0, 0}, cudaStreamCaptureModeThreadLocal);
    Enqueue();
    graph_.capture_end();
  }

  // The caller's current stream does all of this in order.
  void SetInputs(const PlanRequest& request, uint64_t seed, const PlannerState* state) {
    const bool warm =
        state != nullptr && state->mean.defined() && request.mode != PlanMode::kReanalyze;
    const LogStdRange range =
        request.mode == PlanMode::kReanalyze
            ? options_.reanalyze_log_std
            : LogStdRange{spec_.config.log_std_min(), spec_.config.log_std_max()};
    PlanControl control;
    control.seed = seed;
    control.proposal_log_std_min = static_cast<float>(range.min);
    control.proposal_log_std_max = static_cast<float>(range.max);
    control.warm = warm;
    if (request.mode == PlanMode::kAct) {
      control.action = PlanControl::kNoisyElite;
    } else if (request.mode == PlanMode::kEvaluate &&
               config_.evaluation_action() == v1::PlannerConfig::MEAN) {
      control.action = PlanControl::kMean;
    }
    auto* host = static_cast<uint8_t*>(host_control_.data_ptr());
    std::memcpy(host, &control, sizeof(control));
    std::memset(host + sizeof(control), 0, batch_);
    if (request.reset.defined()) {
      const at::Tensor reset = request.reset.to(at::kCPU).contiguous();
      std::memcpy(host + sizeof(control), reset.const_data_ptr<bool>(), batch_);
    }
    control_.copy_(host_control_, /*non_blocking=*/true);
    obs_.copy_(request.obs, /*non_blocking=*/true);
    if (warm) previous_.copy_(state->mean);
  }

  void Replay() { graph_.replay(); }

  // After Replay(), on the same stream; waits for it.
  absl::StatusOr<PlanResult> Result() {
    const at::Tensor all = result_.clone();
    host_counts_.copy_(counts_, /*non_blocking=*/true);
    c10::cuda::getCurrentCUDAStream().synchronize();
    const int32_t* counts = host_counts_.const_data_ptr<int32_t>();
    if (counts[1] > 0) {
      return absl::FailedPreconditionError(
          absl::StrCat("no action sequence of ", counts[1], " observations has a finite value"));
    }
    const auto part = [&](int64_t i) {
      return all.narrow(0, i * batch_ * action_, batch_ * action_).view({batch_, action_});
    };
    PlanResult result;
    result.action = part(0);
    result.elite = part(1);
    result.mean = part(2);
    result.prior_std = part(3);
    result.prior_mean =
        config_.prior_centre() == v1::PlannerConfig::MEAN ? result.mean : result.elite;
    result.value = all.narrow(0, 4 * batch_ * action_, batch_);
    result.num_nonfinite = counts[0];
    return result;
  }

  at::Tensor Mean() const { return mean_.clone(); }
  Trace LastTrace() const { return {actions_.clone(), value_.clone()}; }

 private:
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

  at::Tensor Typed(at::IntArrayRef shape) const {
    return at::zeros(shape, float_options_.dtype(type_));
  }
  at::Tensor Float(at::IntArrayRef shape) const { return at::zeros(shape, float_options_); }

  Rollout MakeRollout(int64_t capacity, int64_t per_observation, int64_t offset) const {
    const int64_t rows = capacity * per_observation, mlp = spec_.config.mlp_dim();
    Rollout r = {per_observation, offset, {}, {}, {}, {}, {}, {}, {}, {}};
    r.first = Typed({rows, joined_ - latent_});
    r.later = Typed({horizon_ - 1, rows, joined_});
    r.hidden = Typed({rows, mlp});
    r.other = Typed({rows, mlp});
    r.next = Typed({rows, latent_});
    r.reward_hidden = Typed({horizon_ * rows, mlp});
    r.reward_other = Typed({horizon_ * rows, mlp});
    r.reward_logits = Float({horizon_ * rows, weights_.reward[2].weight.size(0)});
    return r;
  }

  void Allocate() {
    const int64_t mlp = spec_.config.mlp_dim();
    const at::TensorOptions bytes = float_options_.dtype(at::kByte);
    const int64_t control_size = static_cast<int64_t>(sizeof(PlanControl)) + batch_;
    host_control_ = at::empty({control_size}, at::TensorOptions(at::kByte).pinned_memory(true));
    control_ = at::zeros({control_size}, bytes);
    host_counts_ = at::empty({2}, at::TensorOptions(at::kInt).pinned_memory(true));
    counts_ = at::zeros({2}, float_options_.dtype(at::kInt));
    obs_ = Float({batch_, spec_.obs_dim});
    for (const Layer& layer : weights_.encoder) {
      encoded_.push_back(Float({batch_, layer.weight.size(0)}));
    }
    dynamics_product_ = Float({batch_, mlp});
    reward_product_ = Float({batch_, mlp});
    for (const Layer& layer : weights_.policy_at_observation) {
      first_policy_.push_back(Float({batch_, layer.weight.size(0)}));
    }
    previous_ = Float({batch_, horizon_, action_});
    mean_ = Float({batch_, horizon_, action_});
    std_ = Float({batch_, horizon_, action_});
    actions_ = Float({batch_, samples_, horizon_, action_});
    reward_ = Float({batch_, samples_});
    value_ = Float({batch_, samples_});
    result_ = Float({batch_ * (4 * action_ + 1)});

    const int64_t num_chunks = (batch_ + kChunkSize - 1) / kChunkSize;
    const int64_t num_lanes = std::min(kNumLanes, num_chunks);
    for (int64_t c = 0, first = 0; c < num_chunks; ++c) {
      const int64_t end = (c + 1) * batch_ / num_chunks;
      chunks_.push_back({first, end - first});
      first = end;
    }
    const int64_t capacity = (batch_ + num_chunks - 1) / num_chunks;
    for (int64_t i = 0; i < num_lanes; ++i) {
      Lane& lane = lanes_.emplace_back();
      lane.capacity = capacity;
      lane.proposals = MakeRollout(capacity, proposals_, 0);
      lane.candidates = MakeRollout(capacity, samples_ - proposals_, proposals_);
      lane.terminal = Typed({capacity * samples_, joined_});
      lane.value_hidden = Typed({2, capacity * samples_, mlp});
      lane.value_other = Typed({2, capacity * samples_, mlp});
      const int64_t output = weights_.policy[2].weight.size(0);
      lane.value_logits = Float({2, capacity * samples_, Padded(spec_.config.num_bins())});
      lane.policy_output = Float({capacity * samples_, output});
      lane.proposal_output = Float({capacity * proposals_, output});
      const bool all = weights_.head_weights.size(0) == 2;
      lane.head_weights =
          all ? weights_.head_weights : at::zeros_like(weights_.head_weights.narrow(0, 0, 2));
      lane.head_vectors =
          all ? weights_.head_vectors : at::zeros_like(weights_.head_vectors.narrow(0, 0, 2));
    }
  }

  // --- The plan. ---

  void Enqueue() {
    const Stream& start = streams_.main(0);
    const c10::cuda::CUDAStreamGuard guard(start);
    BeginArgs begin = {};
    begin.control = Control();
    begin.reset = control_.const_data_ptr<uint8_t>() + sizeof(PlanControl);
    begin.previous = Floats(previous_);
    begin.mean = mean_.data_ptr<float>();
    begin.std = std_.data_ptr<float>();
    begin.counts = counts_.data_ptr<int32_t>();
    begin.observations = static_cast<int>(batch_);
    begin.horizon = static_cast<int>(horizon_);
    begin.action = static_cast<int>(action_);
    begin.max_std = static_cast<float>(config_.max_std());
    EncodeObservations(start, streams_.proposals(0));
    BeginPlan(begin, start.stream());

    for (size_t i = 1; i < lanes_.size(); ++i) {
      Order(start, streams_.main(i));
      if (proposals_ > 0) Order(streams_.proposals(0), streams_.proposals(i));
    }
    for (size_t c = 0; c < chunks_.size(); ++c) {
      const size_t i = c % lanes_.size();
      PlanChunk(chunks_[c], View(lanes_[i], chunks_[c].count), streams_.main(i),
                streams_.rewards(i), streams_.proposals(i));
    }
    for (size_t i = 1; i < lanes_.size(); ++i) Order(streams_.main(i), start);
  }

  // Latents and what follows from them alone, in float32; the policy's output on `proposals`.
  void EncodeObservations(const Stream& stream, const Stream& proposals) {
    at::Tensor x = obs_;
    for (size_t i = 0; i < weights_.encoder.size(); ++i) {
      const Layer& layer = weights_.encoder[i];
      Product(x, layer.weight, encoded_[i]);
      NormArgs norm = InPlace(encoded_[i], layer);
      norm.simnorm = i + 1 == weights_.encoder.size();
      Normalise(norm, stream.stream());
      x = encoded_[i];
    }
    if (proposals_ > 0) Order(stream, proposals);
    const auto shared = [&](const Layer& layer, at::Tensor& product) {
      at::addmm_out(product, layer.bias, x, layer.weight.narrow(1, 0, latent_).t());
    };
    shared(weights_.dynamics_at_observation, dynamics_product_);
    shared(weights_.reward_at_observation, reward_product_);
    if (proposals_ == 0) return;
    const c10::cuda::CUDAStreamGuard guard(proposals);
    for (int i = 0; i < kLayers; ++i) {
      const Layer& layer = weights_.policy_at_observation[i];
      Product(i == 0 ? x : first_policy_[i - 1], layer.weight, first_policy_[i]);
      if (i + 1 < kLayers) Normalise(InPlace(first_policy_[i], layer), proposals.stream());
    }
  }

  // The proposals roll out beside the first iteration's candidates, and each rollout's rewards are
  // computed beside its last step.
  void PlanChunk(const Chunk& chunk, Lane lane, const Stream& main, const Stream& rewards,
                 const Stream& proposals) {
    const c10::cuda::CUDAStreamGuard guard(main);
    if (proposals_ > 0) {
      Order(main, proposals);
      const c10::cuda::CUDAStreamGuard on_proposals(proposals);
      RollOut(chunk, lane.proposals, lane.terminal, proposals,
              [&](int64_t t) { Propose(chunk, lane, t, proposals); });
    }
    const auto finish = [&](const Rollout& r, const Stream& stream) {
      Order(stream, rewards);
      {
        const c10::cuda::CUDAStreamGuard on_rewards(rewards);
        Rewards(chunk, r, rewards);
      }
      const c10::cuda::CUDAStreamGuard on_stream(stream);
      Step(chunk, r, horizon_ - 1, lane.terminal, stream);
    };
    for (int i = 0; i < iterations_; ++i) {
      Sample(chunk, lane.candidates, i, main);
      RollOut(chunk, lane.candidates, lane.terminal, main, [](int64_t) {});
      finish(lane.candidates, main);
      if (i == 0 && proposals_ > 0) {
        finish(lane.proposals, proposals);
        Order(proposals, main);
      }
      if (weights_.head_weights.size(0) > 2) Gather(lane, i, main);
      TerminalLogits(chunk, lane, i, main);
      Order(rewards, main);
      AddTerminalValue(chunk, lane, main);
      Refit(chunk, i + 1 == iterations_, main);
    }
  }

  // All steps but the last; act(t) puts the actions of step t into the inputs, for the last as
  // well.
  void RollOut(const Chunk& chunk, const Rollout& r, const at::Tensor& terminal,
               const Stream& stream, const std::function<void(int64_t)>& act) {
    for (int64_t t = 0; t < horizon_; ++t) {
      act(t);
      if (t + 1 < horizon_) Step(chunk, r, t, terminal, stream);
    }
  }

  // One step of the dynamics, from the inputs of step t to the latents of the next or to
  // `terminal`.
  void Step(const Chunk& chunk, const Rollout& r, int64_t t, const at::Tensor& terminal,
            const Stream& stream) {
    const auto& layers = weights_.dynamics;
    FirstLayer(chunk, r, t, t + 1, layers[0], dynamics_product_, r.hidden, stream);
    Product(r.hidden, layers[1].weight, r.other);
    Normalise(InPlace(r.other, layers[1]), stream.stream());
    Product(r.other, layers[2].weight, r.next);
    NormArgs norm = InPlace(r.next, layers[2]);
    norm.simnorm = true;
    const bool last = t + 1 == horizon_;
    const at::Tensor to = last ? terminal : r.later[t];
    norm.y = to.data_ptr();
    norm.y_stride = to.stride(0);
    if (last) norm.to = Among(r, 0);
    Normalise(norm, stream.stream());
  }

  // act(LayerNorm(first layer)) of the inputs of the steps [begin, end) -> y [(end - begin) rows,
  // .]. At the first step all sequences are at the latent of their observation: `shared` [E, .].
  void FirstLayer(const Chunk& chunk, const Rollout& r, int64_t begin, int64_t end,
                  const Layer& layer, const at::Tensor& shared, const at::Tensor& y,
                  const Stream& stream) {
    const int64_t rows = chunk.count * r.per_observation;
    at::Tensor rest = y;
    if (begin == 0) {
      const at::Tensor part = y.narrow(0, 0, rows);
      Product(r.first, layer.weight.narrow(1, latent_, joined_ - latent_), part);
      NormArgs norm = InPlace(part, layer);
      norm.bias = Floats(shared) + chunk.first * shared.stride(0);
      norm.bias_groups = {static_cast<int>(r.per_observation), shared.stride(0)};
      Normalise(norm, stream.stream());
      rest = y.narrow(0, rows, y.size(0) - rows);
      begin = 1;
    }
    if (begin == end) return;
    Product(r.later.narrow(0, begin - 1, end - begin).flatten(0, 1), layer.weight, rest);
    Normalise(InPlace(rest, layer), stream.stream());
  }

  // Discounted rewards of all steps -> reward_.
  void Rewards(const Chunk& chunk, const Rollout& r, const Stream& stream) {
    const auto& layers = weights_.reward;
    FirstLayer(chunk, r, 0, horizon_, layers[0], reward_product_, r.reward_hidden, stream);
    Product(r.reward_hidden, layers[1].weight, r.reward_other);
    Normalise(InPlace(r.reward_other, layers[1]), stream.stream());
    Product(r.reward_other, layers[2].weight, r.reward_logits);
    DecodeArgs decode = Decode(r.reward_logits, layers[2], horizon_);
    decode.scale = 1;
    decode.ratio = static_cast<float>(options_.discount);
    decode.out = reward_.data_ptr<float>();
    decode.to = Among(r, chunk.first);
    DecodeSum(decode, stream.stream());
  }

  // Value logits of both heads at the last latents (and actions of the policy there).
  void TerminalLogits(const Chunk& chunk, const Lane& lane, int iteration, const Stream& stream) {
    const int64_t rows = chunk.count * samples_;
    if (q_heads_) {
      PolicyNetwork(lane.terminal.narrow(1, 0, latent_), lane.value_hidden[0], lane.value_other[0],
                    lane.policy_output, stream);
      PolicyArgs policy = Policy(chunk, samples_, lane.policy_output, 1);
      policy.to = lane.terminal.narrow(1, latent_, action_).data_ptr();
      policy.to_stride = lane.terminal.stride(0);
      policy.iteration = iteration;
      DrawPolicyActions(policy, stream.stream());
    }
    const auto layers = weights_.HeadLayers(lane.head_weights, lane.head_vectors);
    const at::Tensor input = q_heads_ ? lane.terminal : lane.terminal.narrow(1, 0, latent_);
    Product(input.unsqueeze(0).expand({2, -1, -1}), layers[0].weight, lane.value_hidden);
    Normalise(InPlace(lane.value_hidden.flatten(0, 1), layers[0], rows), stream.stream());
    Product(lane.value_hidden, layers[1].weight, lane.value_other);
    Normalise(InPlace(lane.value_other.flatten(0, 1), layers[1], rows), stream.stream());
    Product(lane.value_other, layers[2].weight, lane.value_logits);
  }

  // The mean of the two heads, discounted, and the rewards -> value_.
  void AddTerminalValue(const Chunk& chunk, const Lane& lane, const Stream& stream) {
    const auto layers = weights_.HeadLayers(lane.head_weights, lane.head_vectors);
    DecodeArgs decode = Decode(lane.value_logits.flatten(0, 1), layers[2], 2);
    decode.bias_stride = layers[2].bias.stride(0);
    decode.scale = static_cast<float>(0.5 * std::pow(options_.discount, horizon_));
    decode.ratio = 1;
    decode.base = Floats(reward_);
    decode.out = value_.data_ptr<float>();
    decode.to.offset = static_cast<int>(chunk.first * samples_);
    DecodeSum(decode, stream.stream());
  }

  void PolicyNetwork(const at::Tensor& z, const at::Tensor& hidden, const at::Tensor& other,
                     const at::Tensor& output, const Stream& stream) {
    const auto& layers = weights_.policy;
    Product(z, layers[0].weight, hidden);
    Normalise(InPlace(hidden, layers[0]), stream.stream());
    Product(hidden, layers[1].weight, other);
    Normalise(InPlace(other, layers[1]), stream.stream());
    Product(other, layers[2].weight, output);
  }

  void Propose(const Chunk& chunk, const Lane& lane, int64_t t, const Stream& stream) {
    const Rollout& r = lane.proposals;
    PolicyArgs policy;
    if (t == 0) {
      const at::Tensor output = first_policy_.back().narrow(0, chunk.first, chunk.count);
      policy = Policy(chunk, proposals_, output, proposals_);
      policy.to = r.first.data_ptr();
      policy.to_stride = r.first.stride(0);
    } else {
      const at::Tensor input = r.later[t - 1];
      PolicyNetwork(input.narrow(1, 0, latent_), r.hidden, r.other, lane.proposal_output, stream);
      policy = Policy(chunk, proposals_, lane.proposal_output, 1);
      policy.to = input.narrow(1, latent_, action_).data_ptr();
      policy.to_stride = input.stride(0);
    }
    policy.proposal = true;
    policy.step = static_cast<int>(t);
    policy.exact = actions_.data_ptr<float>() + t * action_;
    policy.exact_stride = actions_.stride(1);
    policy.exact_rows = Among(r, chunk.first);
    DrawPolicyActions(policy, stream.stream());
  }

  void Sample(const Chunk& chunk, const Rollout& r, int iteration, const Stream& stream) {
    SampleArgs sample = {};
    sample.control = Control();
    sample.mean = Floats(mean_);
    sample.std = Floats(std_);
    sample.out.bfloat16 = type_ == at::kBFloat16;
    sample.out.exact = actions_.data_ptr<float>();
    sample.out.first = r.first.data_ptr();
    sample.out.first_stride = r.first.stride(0);
    sample.out.later = r.later.data_ptr();
    sample.out.later_stride = r.later.stride(1);
    sample.first_observation = static_cast<int>(chunk.first);
    sample.observations = static_cast<int>(chunk.count);
    sample.horizon = static_cast<int>(horizon_);
    sample.action = static_cast<int>(action_);
    sample.latent = static_cast<int>(latent_);
    sample.sequences = static_cast<int>(samples_);
    sample.proposals = static_cast<int>(proposals_);
    sample.iteration = iteration;
    SampleCandidates(sample, stream.stream());
  }

  void Gather(const Lane& lane, int iteration, const Stream& stream) {
    for (const auto& [from, to] : {std::pair(weights_.head_weights, lane.head_weights),
                                   std::pair(weights_.head_vectors, lane.head_vectors)}) {
      GatherHeads({Control(), from.data_ptr(), to.data_ptr(),
                   static_cast<int64_t>(from.stride(0) * from.element_size()),
                   static_cast<int>(from.size(0)), iteration},
                  stream.stream());
    }
  }

  void Refit(const Chunk& chunk, bool last, const Stream& stream) {
    float* result = result_.data_ptr<float>();
    const int64_t part = batch_ * action_;
    RefitArgs refit = {};
    refit.control = Control();
    refit.value = Floats(value_);
    refit.actions = Floats(actions_);
    refit.mean = mean_.data_ptr<float>();
    refit.std = std_.data_ptr<float>();
    refit.counts = counts_.data_ptr<int32_t>();
    refit.first_observation = static_cast<int>(chunk.first);
    refit.observations = static_cast<int>(chunk.count);
    refit.sequences = static_cast<int>(samples_);
    refit.elites = config_.num_elites();
    refit.horizon = static_cast<int>(horizon_);
    refit.action = static_cast<int>(action_);
    refit.inverse_temperature = static_cast<float>(config_.inverse_temperature());
    refit.min_std = static_cast<float>(config_.min_std());
    refit.max_std = static_cast<float>(config_.max_std());
    refit.last = last;
    refit.result_action = result;
    refit.result_elite = result + part;
    refit.result_mean = result + 2 * part;
    refit.result_std = result + 3 * part;
    refit.result_value = result + 4 * part;
    RefitElites(refit, stream.stream());
  }

  // --- Arguments. ---

  const PlanControl* Control() const {
    return static_cast<const PlanControl*>(control_.const_data_ptr());
  }

  // x [rows, width], with the layer's parameters; those of a pair of heads (two rows each) change
  // after head_rows rows.
  NormArgs InPlace(const at::Tensor& x, const Layer& layer, int64_t head_rows = 0) const {
    NormArgs norm;
    norm.bfloat16 = x.scalar_type() == at::kBFloat16;
    norm.rows = static_cast<int>(x.size(0));
    norm.width = static_cast<int>(x.size(1));
    norm.x = norm.y = x.data_ptr();
    norm.x_stride = norm.y_stride = x.stride(0);
    norm.bias = Floats(layer.bias);
    norm.gain = Floats(layer.gain);
    norm.shift = Floats(layer.shift);
    if (head_rows > 0) {
      norm.bias_groups = norm.norm_groups = {static_cast<int>(head_rows), layer.bias.stride(0)};
    }
    return norm;
  }

  DecodeArgs Decode(const at::Tensor& logits, const Layer& layer, int64_t terms) const {
    DecodeArgs decode = {};
    decode.logits = Floats(logits);
    decode.stride = logits.stride(0);
    decode.bins = spec_.config.num_bins();
    decode.bin_min = static_cast<float>(spec_.config.bin_min());
    decode.bin_max = static_cast<float>(spec_.config.bin_max());
    decode.bias = Floats(layer.bias);
    decode.rows = static_cast<int>(logits.size(0) / terms);
    decode.terms = static_cast<int>(terms);
    return decode;
  }

  PolicyArgs Policy(const Chunk& chunk, int64_t rows_per_observation, const at::Tensor& output,
                    int64_t rows_per_output) const {
    PolicyArgs policy = {};
    policy.control = Control();
    policy.output = Floats(output);
    policy.output_stride = output.stride(0);
    policy.rows_per_output = static_cast<int>(rows_per_output);
    policy.bias = Floats(weights_.policy[2].bias);
    policy.squashed = spec_.config.policy_form() == v1::ModelConfig::SQUASHED;
    policy.log_std_min = static_cast<float>(spec_.config.log_std_min());
    policy.log_std_max = static_cast<float>(spec_.config.log_std_max());
    policy.rows = static_cast<int>(chunk.count * rows_per_observation);
    policy.rows_per_observation = static_cast<int>(rows_per_observation);
    policy.first_observation = static_cast<int>(chunk.first);
    policy.action = static_cast<int>(action_);
    policy.bfloat16 = type_ == at::kBFloat16;
    return policy;
  }

  // The rollout's rows among all N sequences of observations from `first` on.
  RowMap Among(const Rollout& r, int64_t first) const {
    return {static_cast<int>(r.per_observation), static_cast<int>(samples_),
            static_cast<int>(first * samples_ + r.offset)};
  }

  // The first part of a lane's buffers, for a chunk of `count` observations.
  Lane View(const Lane& lane, int64_t count) const {
    if (count == lane.capacity) return lane;
    // Dimension 0, or 1 where it is [2, rows, ..] or [H - 1, rows, ..]: dense, rows as wide as
    // before.
    const auto rows = [&](const at::Tensor& t, int64_t dim) {
      std::vector<int64_t> shape = t.sizes().vec();
      shape[dim] = shape[dim] / lane.capacity * count;
      return t.flatten().narrow(0, 0, c10::multiply_integers(shape)).view(shape);
    };
    const auto rollout = [&](const Rollout& r) {
      return Rollout{r.per_observation,       r.offset,
                     rows(r.first, 0),        rows(r.later, 1),
                     rows(r.hidden, 0),       rows(r.other, 0),
                     rows(r.next, 0),         rows(r.reward_hidden, 0),
                     rows(r.reward_other, 0), rows(r.reward_logits, 0)};
    };
    return {count,
            rollout(lane.proposals),
            rollout(lane.candidates),
            rows(lane.terminal, 0),
            rows(lane.value_hidden, 1),
            rows(lane.value_other, 1),
            rows(lane.value_logits, 1),
            rows(lane.policy_output, 0),
            rows(lane.proposal_output, 0),
            lane.head_weights,
            lane.head_vectors};
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

bool GraphPlanner::Supports(const MppiOptions& options, const WorldModel& model) {
  const v1::ModelConfig& config = model.spec().config;
  const at::Tensor& flat = model.parameters()->flat();
  const auto fits = [](int64_t width) { return width % 8 == 0 && width <= kMaxNormWidth; };
  return flat.is_cuda() && flat.scalar_type() == at::kFloat && options.dropout == 0 &&
         !config.predict_termination() && options.config.proposal_mix() == 0 &&
         config.simnorm_dim() == 8 && fits(config.latent_dim()) && fits(config.encoder_dim()) &&
         fits(config.mlp_dim()) && config.num_bins() <= kMaxBins &&
         options.config.num_policy_samples() < options.config.num_samples() &&
         options.config.num_samples() <= kMaxSequences;
}

GraphPlanner::GraphPlanner(const MppiOptions& options, int iterations,
                           std::shared_ptr<const WorldModel> model)
    : options_(options), iterations_(iterations), model_(std::move(model)) {
  const at::Device device = model_->parameters()->flat().device();
  const c10::cuda::CUDAGuard guard(device);
  const absl::MutexLock lock(&mu_);
  weights_ = std::make_unique<Weights>(*model_,
                                       options_.precision == v1::BF16 ? at::kBFloat16 : at::kFloat);
  streams_ = std::make_unique<Streams>(device.index());
}

GraphPlanner::~GraphPlanner() = default;

GraphPlanner::Graph& GraphPlanner::GraphFor(int64_t batch) {
  std::unique_ptr<Graph>& graph = graphs_[batch];
  if (graph == nullptr) {
    graph = std::make_unique<Graph>(options_, iterations_, *model_, *weights_, *streams_, batch);
  }
  return *graph;
}

absl::StatusOr<PlanResult> GraphPlanner::Plan(const PlanRequest& request, uint64_t seed,
                                              PlannerState* state) {
  const at::NoGradGuard no_grad;
  const c10::cuda::CUDAGuard guard(model_->parameters()->flat().device());
  const absl::MutexLock lock(&mu_);
  weights_->Refresh();
  Graph& graph = GraphFor(request.obs.size(0));
  graph.SetInputs(request, seed, state);
  graph.Replay();
  absl::StatusOr<PlanResult> result = graph.Result();
  if (result.ok() && state != nullptr && request.mode != PlanMode::kReanalyze) {
    state->mean = graph.Mean();
  }
  return result;
}

GraphPlanner::Trace GraphPlanner::LastTrace(int64_t batch) {
  const absl::MutexLock lock(&mu_);
  return GraphFor(batch).LastTrace();
}

}  // namespace pompc
