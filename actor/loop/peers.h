// Whom a process that acts or evaluates talks to, and how it enters the run.
#ifndef POMPC_ACTOR_LOOP_PEERS_H_
#define POMPC_ACTOR_LOOP_PEERS_H_

#include <cstdint>
#include <optional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/clock.h"
#include "common/metrics/metrics.h"
#include "learner/client/learner_client.h"
#include "learner/client/learner_watch.h"
#include "learner/client/parameter_subscriber.h"
#include "proto/pompc/v1/learner.pb.h"
#include "replay/client/writer.h"

namespace pompc {

// All must outlive whoever is given them.
struct ActingPeers {
  LearnerClient* learner = nullptr;
  ParameterSubscriber* parameters = nullptr;
  ReplayWriter* replay = nullptr;  // Null for an evaluator.
  Clock* clock = nullptr;
  const Event* stop = nullptr;  // Leave in order.
  MetricsRegistry* metrics = nullptr;
};

// Of one process. Whoever joins again does so with `request`, so that the learner knows it.
struct JoinedRun {
  v1::JoinRequest request;  // As it was answered, and with the index that the learner gave.
  v1::JoinResponse answer;
};

// Enters the run. Blocks for up to kLearnerPatience. Errors: AskLearner()'s; FAILED_PRECONDITION:
// the run has a task of other sizes.
absl::StatusOr<JoinedRun> JoinRun(const ActingPeers& peers, v1::Role role,
                                  std::optional<int64_t> index, const v1::TaskSizes& sizes);

}  // namespace pompc

#endif  // POMPC_ACTOR_LOOP_PEERS_H_
