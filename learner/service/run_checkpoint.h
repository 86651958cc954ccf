// The checkpoint of a run: everything to go on from, in one safetensors file that other tools can
// read.
//
// Tensors: those of Updater::Save(). Metadata: "config", the run's config as textproto; "books",
// v1::RunBooks as textproto.
// Thread-safety: functions without state.
#ifndef POMPC_LEARNER_SERVICE_RUN_CHECKPOINT_H_
#define POMPC_LEARNER_SERVICE_RUN_CHECKPOINT_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/model/checkpoint.h"
#include "proto/pompc/v1/config.pb.h"
#include "proto/pompc/v1/learner.pb.h"

namespace pompc {

struct RunCheckpoint {
  v1::RunConfig config;
  v1::RunBooks books;
  Checkpoint state;  // Tensors alone.
};

// Of a run of `config` that begins at `start`; stays the same when it is resumed.
std::string NewRunId(const v1::RunConfig& config, absl::Time start);

// A RunStatus as textproto: where the run stood when its last learner left in order.
std::string RunStatusPath(const std::string& run_dir);

// "<run_dir>/checkpoint.safetensors".
std::string RunCheckpointPath(const std::string& run_dir);

// Replaces the file atomically. Errors: those of the file system.
absl::Status SaveRunCheckpoint(const RunCheckpoint& checkpoint, const std::string& path);

// NOT_FOUND; DATA_LOSS: damaged, or no checkpoint of a run.
absl::StatusOr<RunCheckpoint> LoadRunCheckpoint(const std::string& path);

// Whether a run of config `saved` may go on with `wanted`. INVALID_ARGUMENT: one line for each
// field that differs and must not; what may differ: preset, total_decisions, evaluation, actor,
// and of learner all but publish_every; also fields that the run's version did not have, which the
// log names.
absl::Status CheckResumable(const v1::RunConfig& saved, const v1::RunConfig& wanted);

}  // namespace pompc

#endif  // POMPC_LEARNER_SERVICE_RUN_CHECKPOINT_H_
