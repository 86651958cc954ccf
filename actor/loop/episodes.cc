#include "actor/loop/episodes.h"

#include <algorithm>
#include <utility>

#include "common/base/status_macros.h"

namespace pompc {

EnvironmentOptions EnvironmentOptionsOf(const v1::EnvironmentConfig& config) {
  EnvironmentOptions options{.task = config.task(), .action_repeat = config.action_repeat()};
  if (config.has_episode_steps()) options.episode_steps = config.episode_steps();
  return options;
}

absl::StatusOr<std::unique_ptr<Episodes>> Episodes::Create(const v1::EnvironmentConfig& config,
                                                           int count, int threads, bool busy) {
  POMPC_ASSIGN_OR_RETURN(std::unique_ptr<EnvironmentBatch> batch,
                         EnvironmentBatch::Create(EnvironmentOptionsOf(config), count,
                                                  std::min(count, threads) + (busy ? 1 : 0)));
  return std::unique_ptr<Episodes>(new Episodes(config, std::move(batch)));
}

absl::StatusOr<std::vector<std::unique_ptr<Episodes>>> Episodes::CreateGroups(
    const v1::RunConfig& config) {
  const v1::ActorConfig& actor = config.actor();
  const int64_t environments = actor.environments_per_actor();
  const int64_t num_groups = actor.groups();
  std::vector<std::unique_ptr<Episodes>> groups;
  for (int64_t g = 0; g < num_groups; ++g) {
    const int64_t count = (g + 1) * environments / num_groups - g * environments / num_groups;
    POMPC_ASSIGN_OR_RETURN(groups.emplace_back(),
                           Create(config.environment(), static_cast<int>(count), actor.threads(),
                                  /*busy=*/num_groups > 1));
  }
  return groups;
}

Episodes::~Episodes() {
  if (stepping_) batch_->FinishStep().IgnoreError();
}

Episodes::Episodes(const v1::EnvironmentConfig& config, std::unique_ptr<EnvironmentBatch> batch)
    : action_repeat_(config.action_repeat()),
      batch_(std::move(batch)),
      results_(batch_->size()),
      tallies_(batch_->size()) {
  const EnvironmentSpec& spec = batch_->spec();
  sizes_.set_observation_dim(spec.observation_dim);
  sizes_.set_action_dim(spec.action_dim);
  sizes_.set_episode_decisions((spec.episode_steps + action_repeat_ - 1) / action_repeat_);
  sizes_.set_can_terminate(spec.can_terminate);
  observations_ = at::zeros({count(), spec.observation_dim}, at::kFloat);
  starts_ = at::ones({count()}, at::kBool);
}

absl::Span<float> Episodes::MutableObservation(int e) {
  const int64_t size = sizes_.observation_dim();
  return {observations_.data_ptr<float>() + e * size, static_cast<size_t>(size)};
}

absl::Span<const float> Episodes::observation(int e) const {
  const int64_t size = sizes_.observation_dim();
  return {observations_.const_data_ptr<float>() + e * size, static_cast<size_t>(size)};
}

absl::Status Episodes::Start(int e) {
  POMPC_RETURN_IF_ERROR(batch_->environment(e).Reset(MutableObservation(e)));
  starts_.data_ptr<bool>()[e] = true;
  tallies_[e].Clear();
  return absl::OkStatus();
}

absl::StatusOr<absl::Span<const StepResult>> Episodes::Step(const at::Tensor& actions) {
  POMPC_RETURN_IF_ERROR(StartStep(actions));
  return FinishStep();
}

absl::Status Episodes::StartStep(const at::Tensor& actions) {
  const absl::Span<float> observations(observations_.data_ptr<float>(),
                                       static_cast<size_t>(observations_.numel()));
  POMPC_RETURN_IF_ERROR(
      batch_->StartStep({actions.const_data_ptr<float>(), static_cast<size_t>(actions.numel())},
                        observations, absl::MakeSpan(results_)));
  stepping_ = true;
  return absl::OkStatus();
}

absl::StatusOr<absl::Span<const StepResult>> Episodes::FinishStep() {
  stepping_ = false;
  POMPC_RETURN_IF_ERROR(batch_->FinishStep());
  starts_.fill_(false);
  for (int e = 0; e < count(); ++e) {
    v1::Episode& tally = tallies_[e];
    tally.set_return_(tally.return_() + results_[e].reward);
    tally.set_decisions(tally.decisions() + 1);
    // The time limit may cut the last decision short.
    const int64_t steps =
        std::min<int64_t>(action_repeat_, batch_->spec().episode_steps - tally.env_steps());
    tally.set_env_steps(tally.env_steps() + steps);
    env_steps_ += steps;
  }
  return absl::MakeConstSpan(results_);
}

void Episodes::CountPlan(double seconds, bool nonfinite) {
  for (v1::Episode& tally : tallies_) {
    tally.set_plan_seconds(tally.plan_seconds() + seconds / count());
    tally.set_nonfinite_plans(tally.nonfinite_plans() + (nonfinite ? 1 : 0));
  }
}

}  // namespace pompc
