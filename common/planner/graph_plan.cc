#include "common/planner/graph_plan.h"

#include <c10/cuda/CUDAGuard.h>

#include <utility>

#include "common/planner/graph_plan_recording.h"
#include "common/planner/graph_plan_weights.h"
#include "common/planner/plan_kernels.h"

namespace pompc {

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
