#include "cli/eval.h"

#include <algorithm>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "actor/loop/evaluator.h"
#include "cli/progress.h"
#include "common/base/clock.h"
#include "common/base/signal.h"
#include "common/base/status_macros.h"
#include "common/model/device.h"
#include "common/model/parameters.h"
#include "learner/service/run_checkpoint.h"

namespace pompc {
absl::StatusOr<v1::ParameterSnapshot> SnapshotOf(const RunCheckpoint& checkpoint) {
  const v1::TaskSizes& sizes = checkpoint.books.sizes();
  POMPC_ASSIGN_OR_RETURN(
      const std::shared_ptr<Parameters> parameters,
      Parameters::Create(
          ModelSpec::FromConfig(checkpoint.config, sizes.observation_dim(), sizes.action_dim()),
          ParameterUse::kActing));
  for (const NamedParameter& p : parameters->layout().parameters()) {
    const auto tensor = checkpoint.state.tensors.find(p.name);
    if (tensor == checkpoint.state.tensors.end() || tensor->second.sizes() != p.shape) {
      return absl::DataLossError(absl::StrCat("the checkpoint's config asks for a tensor ", p.name,
                                              " that is missing or has another shape"));
    }
    parameters->View(p.name).copy_(tensor->second);
  }
  v1::ParameterSnapshot snapshot;
  snapshot.set_version(checkpoint.books.parameter_version());
  snapshot.set_decisions(checkpoint.books.decisions());
  snapshot.set_trained(true);
  snapshot.set_data(parameters->Snapshot());
  return snapshot;
}

absl::Status Evaluate(const EvalOptions& options) {
  POMPC_ASSIGN_OR_RETURN(RunCheckpoint checkpoint, LoadRunCheckpoint(options.checkpoint));
  POMPC_RETURN_IF_ERROR(FindDevice("--device", options.device).status());
  checkpoint.config.mutable_actor()->set_device(options.device);
  if (options.episodes > 0) {
    checkpoint.config.mutable_evaluation()->set_episodes(options.episodes);
  }
  POMPC_ASSIGN_OR_RETURN(const v1::ParameterSnapshot snapshot, SnapshotOf(checkpoint));
  POMPC_ASSIGN_OR_RETURN(const std::unique_ptr<Evaluator> evaluator,
                         Evaluator::Create(checkpoint.config));
  std::printf("%s, preset %s, trained for %s decisions: %d episodes...\n",
              checkpoint.config.environment().task().c_str(), checkpoint.config.preset().c_str(),
              WithThousands(snapshot.decisions()).c_str(),
              checkpoint.config.evaluation().episodes());
  std::fflush(stdout);
  POMPC_ASSIGN_OR_RETURN(const std::vector<v1::Episode> episodes,
                         evaluator->Evaluate(snapshot, RealClock(), TerminationRequest()));
  double sum = 0, low = episodes.front().return_(), high = low, plan_seconds = 0;
  int64_t decisions = 0;
  for (size_t i = 0; i < episodes.size(); ++i) {
    const v1::Episode& episode = episodes[i];
    std::printf("  episode %2zu  return %8.2f  %s control steps\n", i + 1, episode.return_(),
                WithThousands(episode.env_steps()).c_str());
    sum += episode.return_();
    low = std::min(low, episode.return_());
    high = std::max(high, episode.return_());
    plan_seconds += episode.plan_seconds();
    decisions += episode.decisions();
  }
  std::printf("mean return %.2f (lowest %.2f, highest %.2f), %.2f ms a plan\n",
              sum / static_cast<double>(episodes.size()), low, high,
              1e3 * plan_seconds / static_cast<double>(std::max<int64_t>(1, decisions)));
  return absl::OkStatus();
}

}  // namespace pompc
