// The folder of a run, before and after `pompc train`.
#ifndef POMPC_CLI_RUN_DIR_H_
#define POMPC_CLI_RUN_DIR_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "cli/train.h"
#include "proto/pompc/v1/config.pb.h"
#include "proto/pompc/v1/learner.pb.h"

namespace pompc {

// runs/TASK-PRESET-sSEED-TIME of a new run.
std::string DefaultRunDir(const v1::RunConfig& config);

// Of the evaluations, with evaluation.video.
std::string VideoFolder(const std::string& run_dir);

// Creates options.run_dir and writes the resolved config there. NOT_FOUND: no checkpoint to resume
// from. FAILED_PRECONDITION: it holds one already, but options.resume is not set. ABORTED: a
// learner is at work there. INVALID_ARGUMENT: the run to resume cannot go on with this config
// (CheckResumable()); the message names the fields. DATA_LOSS: its checkpoint is damaged. Others:
// those of the file system. After an error the config of an earlier run is as it was.
absl::Status PrepareRunDir(const TrainOptions& options);

// Says on stdout how the run stands, what lies in its folder, and what to do next.
void PrintSummary(const TrainOptions& options, const v1::RunStatus& status, bool finished,
                  int64_t restarts);

}  // namespace pompc

#endif  // POMPC_CLI_RUN_DIR_H_
