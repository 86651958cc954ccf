// Whom a process that acts or evaluates talks to, and how it enters the run.
#ifndef POMPC_ACTOR_LOOP_PEERS_H_
#define POMPC_ACTOR_LOOP_PEERS_H_

#include <algorithm>
#include <cstdint>
#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/base/clock.h"
#include "common/metrics/metrics.h"
#include "learner/client/learner_client.h"
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

// How long a learner may be away before it is not worth waiting any more: enough for it to be
// restarted and to load its checkpoint.
inline constexpr absl::Duration kLearnerPatience = absl::Minutes(5);

// Makes a call of LearnerClient in short attempts, so that a wait for the learner ends soon after
// `stop` is raised: CANCELLED. Other errors: the call's; without an answer until `deadline` those
// of its last attempt.
template <typename Call>
auto AskLearner(const Event& stop, Clock* clock, absl::Time deadline, Call call)
    -> decltype(call(deadline)) {
  constexpr absl::Duration kAttempt = absl::Seconds(2);
  while (!stop.HasBeenNotified()) {
    auto answer = call(std::min(deadline, clock->Now() + kAttempt));
    const bool away =
        absl::IsUnavailable(answer.status()) || absl::IsDeadlineExceeded(answer.status());
    if (!away || clock->Now() >= deadline) return answer;
  }
  return absl::CancelledError("told to stop");
}

v1::JoinRequest MakeJoinRequest(v1::Role role, std::optional<int64_t> index,
                                const v1::TaskSizes& sizes);

// Enters the run. Blocks for up to kLearnerPatience. Errors: AskLearner()'s; FAILED_PRECONDITION:
// the run has a task of other sizes.
absl::StatusOr<v1::JoinResponse> JoinRun(const ActingPeers& peers, v1::Role role,
                                         std::optional<int64_t> index, const v1::TaskSizes& sizes);

// Watches how long the learner has been away: without parameters and without an answer to a join.
// Joins again every few seconds until there are parameters: a learner that died before its first
// checkpoint comes back without knowing the sizes of the task, and publishes nothing until somebody
// joins.
// Thread-safety: none.
class LearnerWatch {
 public:
  // `join`: what the process joined with, its index included.
  LearnerWatch(const ActingPeers& peers, v1::JoinRequest join)
      : peers_(peers),
        join_(std::move(join)),
        last_contact_(peers.clock->Now()),
        next_join_(last_contact_ + kJoinEvery) {}

  // Call often. Blocks for a second at most, and only while the learner is away. UNAVAILABLE: away
  // for kLearnerPatience. Others: the learner that came back refuses this process.
  absl::Status Check();

 private:
  static constexpr absl::Duration kJoinEvery = absl::Seconds(5);

  const ActingPeers peers_;
  const v1::JoinRequest join_;
  absl::Time last_contact_, next_join_;
};

}  // namespace pompc

#endif  // POMPC_ACTOR_LOOP_PEERS_H_
