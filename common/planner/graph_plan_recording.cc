#include "common/planner/graph_plan_recording.h"

#include <ATen/Context.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>

#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "common/model/launch.h"

namespace pompc {
namespace {

// Observations of a chunk, and chunks at work at the same time.
constexpr int64_t kChunkSize = 256;
constexpr int64_t kNumLanes = 2;

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

GraphPlanner::Streams::Fence::Fence() {
  C10_CUDA_CHECK(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming));
}
GraphPlanner::Streams::Fence::~Fence() { cudaEventDestroy(event_); }

void GraphPlanner::Streams::Fence::Order(const Stream& from, const Stream& to) {
  C10_CUDA_CHECK(cudaEventRecord(event_, from.stream()));
  C10_CUDA_CHECK(cudaStreamWaitEvent(to.stream(), event_, 0));
}

GraphPlanner::Streams::Streams(c10::DeviceIndex device) {
  for (int64_t i = 0; i < 3 * kNumLanes; ++i) {
    cudaStream_t stream;
    C10_CUDA_CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    streams_.push_back(c10::cuda::getStreamFromExternal(stream, device));
  }
}

GraphPlanner::Streams::~Streams() {
  for (const Stream& stream : streams_) cudaStreamDestroy(stream.stream());
}

GraphPlanner::Graph::Graph(const MppiOptions& options, int iterations, const WorldModel& model,
                           const Weights& weights, Streams& streams, int64_t batch)
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
      joined_(Weights::Padded(latent_ + action_)),
      type_(weights.dynamics[0].weight.scalar_type()),
      float_options_(weights.head_vectors.options()) {
  Allocate();
  c10::cuda::getCurrentCUDAStream().synchronize();  // What our streams see is in place.
  const c10::cuda::CUDAStreamGuard guard(streams_.main(0));
  const Tf32Scope tf32(options_.precision == v1::TF32);
  const LateLaunchScope late(options_.leaves_room);
  // Once outside of the graph, so that cuBLAS is initialised and has its workspaces.
  Enqueue();
  streams_.main(0).synchronize();
  graph_.capture_begin({0, 0}, cudaStreamCaptureModeThreadLocal);
  Enqueue();
  graph_.capture_end();
}

void GraphPlanner::Graph::SetInputs(const PlanRequest& request, uint64_t seed,
                                    const PlannerState* state) {
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

absl::StatusOr<PlanResult> GraphPlanner::Graph::Result() {
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

GraphPlanner::Graph::Rollout GraphPlanner::Graph::MakeRollout(int64_t capacity,
                                                              int64_t per_observation,
                                                              int64_t offset) const {
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

void GraphPlanner::Graph::Allocate() {
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
    lane.value_logits = Float({2, capacity * samples_, Weights::Padded(spec_.config.num_bins())});
    lane.policy_output = Float({capacity * samples_, output});
    lane.proposal_output = Float({capacity * proposals_, output});
    const bool all = weights_.head_weights.size(0) == 2;
    lane.head_weights =
        all ? weights_.head_weights : at::zeros_like(weights_.head_weights.narrow(0, 0, 2));
    lane.head_vectors =
        all ? weights_.head_vectors : at::zeros_like(weights_.head_vectors.narrow(0, 0, 2));
  }
}

GraphPlanner::Graph::Lane GraphPlanner::Graph::View(const Lane& lane, int64_t count) const {
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

}  // namespace pompc
