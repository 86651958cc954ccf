#include "cli/render.h"

#include <algorithm>
#include <memory>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "actor/env/environment.h"
#include "actor/loop/acting_policy.h"
#include "actor/loop/episodes.h"
#include "actor/render/episode_video.h"
#include "cli/eval.h"
#include "common/base/rng.h"
#include "common/base/signal.h"
#include "common/base/status_macros.h"
#include "learner/service/run_checkpoint.h"

namespace pompc {
namespace {

// Of a plan's sequences so many are drawn, spread evenly over all of them.
constexpr int64_t kDrawnCandidates = 32;

// What is drawn of a plan's sequences.
struct DrawnCandidates {
  explicit DrawnCandidates(const Decision& decision) {
    if (!decision.candidates.defined()) return;
    const int64_t every = std::max<int64_t>(1, decision.candidates.size(1) / kDrawnCandidates);
    actions = decision.candidates[0].slice(0, 0, std::nullopt, every).contiguous();
    values = decision.candidate_value[0].slice(0, 0, std::nullopt, every).contiguous();
  }
  Candidates view() const {
    if (!actions.defined()) return {};
    return {{actions.data_ptr<float>(), static_cast<size_t>(actions.numel())},
            {values.data_ptr<float>(), static_cast<size_t>(values.numel())}};
  }

  at::Tensor actions, values;  // [K, H, A], [K].
};

}  // namespace

absl::StatusOr<std::string> RenderVideo(const RenderVideoOptions& options) {
  POMPC_ASSIGN_OR_RETURN(const RunCheckpoint checkpoint, LoadRunCheckpoint(options.checkpoint));
  POMPC_ASSIGN_OR_RETURN(const v1::ParameterSnapshot snapshot, SnapshotOf(checkpoint));
  const v1::RunConfig& config = checkpoint.config;
  const EnvironmentOptions environment = EnvironmentOptionsOf(config.environment());
  POMPC_ASSIGN_OR_RETURN(const std::unique_ptr<Environment> played, CreateEnvironment(environment));
  POMPC_ASSIGN_OR_RETURN(const std::unique_ptr<ActingPolicy> policy,
                         ActingPolicy::Create(config, checkpoint.books.sizes(),
                                              {.mode = PlanMode::kEvaluate,
                                               .planner_stream = RngRole::kEvaluation,
                                               .keep_candidates = options.candidates}));
  POMPC_RETURN_IF_ERROR(policy->Load(snapshot));
  POMPC_ASSIGN_OR_RETURN(
      const std::unique_ptr<EpisodeVideo> video,
      EpisodeVideo::Create(environment, {options.width, options.height, options.camera},
                           options.output));

  const EnvironmentSpec& spec = played->spec();
  std::string result;
  at::Tensor observation = at::empty({1, spec.observation_dim}, at::kFloat);
  const auto observed = absl::MakeSpan(observation.data_ptr<float>(), spec.observation_dim);
  EnvironmentState state;
  uint64_t step = 1;  // 0 names the start states.
  bool stopped = false;
  for (int episode = 0; episode < options.episodes && !stopped; ++episode) {
    played->Seed(static_cast<uint32_t>(
        SeedFor(config.seed(), RngRole::kEvaluation, static_cast<uint32_t>(episode), 0)));
    POMPC_RETURN_IF_ERROR(played->Reset(observed));
    std::vector<double> returns;
    bool over = false;
    while (!over && !stopped) {
      POMPC_ASSIGN_OR_RETURN(
          const Decision decision,
          policy->Act(observation, at::full({1}, returns.empty(), at::kBool), step++));
      played->SaveState(&state);
      const DrawnCandidates candidates(decision);
      POMPC_RETURN_IF_ERROR(video->Add(state, candidates.view(), returns));
      POMPC_ASSIGN_OR_RETURN(
          const StepResult next,
          played->Step({decision.action.data_ptr<float>(), static_cast<size_t>(spec.action_dim)},
                       observed));
      returns.push_back((returns.empty() ? 0 : returns.back()) + next.reward);
      over = next.terminated || next.truncated;
      stopped = TerminationRequest().HasBeenNotified();
    }
    absl::StrAppendFormat(&result, "  episode %2d  return %8.2f%s\n", episode + 1, returns.back(),
                          over ? "" : ", stopped");
  }
  POMPC_RETURN_IF_ERROR(video->Close());
  if (stopped) return absl::CancelledError("stopped");
  return absl::StrCat(config.environment().task(), ", preset ", config.preset(), "\n", result,
                      "Written to ", options.output, "\n");
}

}  // namespace pompc
