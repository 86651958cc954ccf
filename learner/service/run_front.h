// RunFront: everything of a run that other processes see, shared by the service that answers them
// and the loop that makes the updates.
//
// Thread-safety: thread-safe, member by member.
#ifndef POMPC_LEARNER_SERVICE_RUN_FRONT_H_
#define POMPC_LEARNER_SERVICE_RUN_FRONT_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/base/clock.h"
#include "common/metrics/metrics.h"
#include "learner/service/episode_log.h"
#include "learner/service/publisher.h"
#include "learner/service/roster.h"
#include "learner/service/run_progress.h"
#include "learner/service/run_records.h"
#include "proto/pompc/v1/learner.pb.h"

namespace pompc {

struct RunFrontOptions {
  v1::GetConfigResponse identity;  // Config and run id.
  v1::RunBooks books;              // Of the checkpoint that the run resumes from, or empty.
  std::string run_dir;
  std::vector<const char*> stat_names;        // Columns of losses.csv.
  std::vector<std::string> replay_addresses;  // Empty: the learner's own server.
};

struct RunFront {
  const v1::GetConfigResponse identity;
  const std::unique_ptr<RunRecords> records;
  Roster roster;
  EpisodeLog episodes;
  RunProgress progress;
  Publisher publisher;

  // Errors: those of RunRecords::Open(). `clock` and `metrics` must outlive it.
  static absl::StatusOr<std::unique_ptr<RunFront>> Create(const RunFrontOptions& options,
                                                          Clock* clock, MetricsRegistry* metrics);
};

}  // namespace pompc

#endif  // POMPC_LEARNER_SERVICE_RUN_FRONT_H_
