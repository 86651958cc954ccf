// `pompc eval`: how well a checkpoint plays.
#ifndef POMPC_CLI_EVAL_H_
#define POMPC_CLI_EVAL_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "learner/service/run_checkpoint.h"
#include "proto/pompc/v1/learner.pb.h"

namespace pompc {

// The parameters of a checkpoint as actors get them. DATA_LOSS: it lacks some.
absl::StatusOr<v1::ParameterSnapshot> SnapshotOf(const RunCheckpoint& checkpoint);

struct EvalOptions {
  std::string checkpoint;      // Path of a run's checkpoint.safetensors.
  int episodes = 0;            // 0: as many as the run's evaluations.
  std::string device = "cpu";  // Plans here, whatever the run's actors do: "cpu", "cuda", "cuda:1".
};

// Plays the episodes, one printed line each as they end together, and their mean. The start states
// are those of the run's own evaluations. Errors: the file's, or DATA_LOSS for a damaged one.
// INVALID_ARGUMENT: this build or machine has no such device.
absl::Status Evaluate(const EvalOptions& options);

}  // namespace pompc

#endif  // POMPC_CLI_EVAL_H_
