// The order of a plan's work, and those parts of it that are no networks: actions drawn, heads
// gathered, elites refitted.
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>

#include <functional>
#include <utility>

#include "common/planner/graph_plan_recording.h"
#include "common/planner/plan_kernels.h"

namespace pompc {

void GraphPlanner::Graph::Enqueue() {
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
  C10_CUDA_CHECK(BeginPlan(begin, start.stream()));

  for (size_t i = 1; i < lanes_.size(); ++i) {
    Order(start, streams_.main(i));
    if (proposals_ > 0) Order(streams_.proposals(0), streams_.proposals(i));
  }
  for (size_t c = 0; c < chunks_.size(); ++c) {
    const size_t i = c % lanes_.size();
    PlanChunk(chunks_[c], View(lanes_[i], chunks_[c].count), streams_.main(i), streams_.rewards(i),
              streams_.proposals(i));
  }
  for (size_t i = 1; i < lanes_.size(); ++i) Order(streams_.main(i), start);
}

void GraphPlanner::Graph::PlanChunk(const Chunk& chunk, Lane lane, const Stream& main,
                                    const Stream& rewards, const Stream& proposals) {
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
    // Well before the heads are used: see FusedLayer().
    if (weights_.head_weights.size(0) > 2) Gather(lane, i, main);
    Sample(chunk, lane.candidates, i, main);
    RollOut(chunk, lane.candidates, lane.terminal, main, [](int64_t) {});
    finish(lane.candidates, main);
    if (i == 0 && proposals_ > 0) {
      finish(lane.proposals, proposals);
      Order(proposals, main);
    }
    TerminalLogits(chunk, lane, i, main);
    Order(rewards, main);
    AddTerminalValue(chunk, lane, main);
    Refit(chunk, i + 1 == iterations_, main);
  }
}

void GraphPlanner::Graph::RollOut(const Chunk& chunk, const Rollout& r, const at::Tensor& terminal,
                                  const Stream& stream, const std::function<void(int64_t)>& act) {
  for (int64_t t = 0; t < horizon_; ++t) {
    act(t);
    if (t + 1 < horizon_) Step(chunk, r, t, terminal, stream);
  }
}

void GraphPlanner::Graph::Propose(const Chunk& chunk, const Lane& lane, int64_t t,
                                  const Stream& stream) {
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
  C10_CUDA_CHECK(DrawPolicyActions(policy, stream.stream()));
}

void GraphPlanner::Graph::Sample(const Chunk& chunk, const Rollout& r, int iteration,
                                 const Stream& stream) {
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
  C10_CUDA_CHECK(SampleCandidates(sample, stream.stream()));
}

void GraphPlanner::Graph::Gather(const Lane& lane, int iteration, const Stream& stream) {
  for (const auto& [from, to] : {std::pair(weights_.head_weights, lane.head_weights),
                                 std::pair(weights_.head_vectors, lane.head_vectors)}) {
    C10_CUDA_CHECK(GatherHeads({Control(), from.data_ptr(), to.data_ptr(),
                                static_cast<int64_t>(from.stride(0) * from.element_size()),
                                static_cast<int>(from.size(0)), iteration},
                               stream.stream()));
  }
}

void GraphPlanner::Graph::Refit(const Chunk& chunk, bool last, const Stream& stream) {
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
  C10_CUDA_CHECK(RefitElites(refit, stream.stream()));
}

PolicyArgs GraphPlanner::Graph::Policy(const Chunk& chunk, int64_t rows_per_observation,
                                       const at::Tensor& output, int64_t rows_per_output) const {
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

}  // namespace pompc
