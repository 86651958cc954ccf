// Reanalyze worker: re-plans windows that replay stores, with the newest parameters, and writes the
// planner priors back; beside the learner, on cores or a GPU of its own.
//
// Thread-safety: none.
#ifndef POMPC_ACTOR_LOOP_REANALYZE_WORKER_H_
#define POMPC_ACTOR_LOOP_REANALYZE_WORKER_H_

#include "absl/status/status.h"
#include "actor/loop/peers.h"
#include "proto/pompc/v1/config.pb.h"
#include "replay/client/stored_windows.h"

namespace pompc {

// The life of a worker process that has joined the run: draws config.reanalyze.windows windows,
// plans all their rows but the last as the learner's reanalyze does, writes prior_mean and
// prior_std, and again.
//
// Blocks until the run is finished or `stop` is raised: OK. UNAVAILABLE: no learner for 5 minutes.
// Others: replay refuses, or planner settings, device or a snapshot that cannot be.
absl::Status RunReanalyzeWorker(const v1::RunConfig& config, const JoinedRun& join,
                                StoredWindows& stored, const ActingPeers& peers);

}  // namespace pompc

#endif  // POMPC_ACTOR_LOOP_REANALYZE_WORKER_H_
