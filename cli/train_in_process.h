// `pompc train --in-process`: a whole run in this process alone (in_process_run.h).
#ifndef POMPC_CLI_TRAIN_IN_PROCESS_H_
#define POMPC_CLI_TRAIN_IN_PROCESS_H_

#include "absl/status/status.h"
#include "cli/train.h"

namespace pompc {

// Trains, shows a line of progress now and then, and leaves a folder like that of Train(): config,
// records and a checkpoint that `pompc eval` reads. Evaluates every evaluation.every_decisions and
// at the end, writes a checkpoint every learner.checkpoint_every_seconds; seconds in the records
// leave evaluations out. Blocks until the run is complete (OK) or it is told to stop (CANCELLED,
// after a checkpoint). INVALID_ARGUMENT: options.resume; Train() can go on from the folder, with a
// new replay table. Others: as Train(); INTERNAL: a loss is not finite.
absl::Status TrainInProcess(const TrainOptions& options);

}  // namespace pompc

#endif  // POMPC_CLI_TRAIN_IN_PROCESS_H_
