#include "cli/inspect.h"

#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "actor/env/environment.h"
#include "common/base/status_macros.h"

namespace pompc {

absl::StatusOr<std::string> DescribeTasks() {
  std::string text;
  for (const std::string& task : TaskNames()) {
    POMPC_ASSIGN_OR_RETURN(const EnvironmentSpec spec, FindSpec(task));
    absl::StrAppendFormat(&text, "%-28s observation %3d  action %2d  control step %.4g s\n", task,
                          spec.observation_dim, spec.action_dim, spec.control_timestep_seconds);
  }
  return text;
}

absl::StatusOr<std::string> DescribeTask(const std::string& task) {
  POMPC_ASSIGN_OR_RETURN(const EnvironmentSpec spec, FindSpec(task));
  std::string text = absl::StrFormat(
      "task            %s\n"
      "observation     %d numbers\n",
      spec.task, spec.observation_dim);
  for (const ObservationSlice& slice : spec.observation) {
    absl::StrAppendFormat(&text, "  [%3d, %3d)    %s\n", slice.offset, slice.offset + slice.size,
                          slice.name);
  }
  absl::StrAppendFormat(&text,
                        "action          %d numbers in [-1, 1]\n"
                        "  stand for     [%s]\n"
                        "  to            [%s]\n"
                        "control step    %g s of simulated time\n"
                        "episode         %d control steps%s\n",
                        spec.action_dim, absl::StrJoin(spec.action_min, ", "),
                        absl::StrJoin(spec.action_max, ", "), spec.control_timestep_seconds,
                        spec.episode_steps,
                        spec.can_terminate ? ", or until the task terminates" : "");
  return text;
}

}  // namespace pompc
