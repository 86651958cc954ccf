// How those who need the learner wait for it: until it answers a call, and while it is away.
#ifndef POMPC_LEARNER_CLIENT_LEARNER_WATCH_H_
#define POMPC_LEARNER_CLIENT_LEARNER_WATCH_H_

#include <algorithm>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "common/base/clock.h"
#include "common/rpc/status.h"
#include "learner/client/learner_client.h"
#include "proto/pompc/v1/learner.pb.h"

namespace pompc {

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
    if (!IsAway(answer.status()) || clock->Now() >= deadline) return answer;
  }
  return absl::CancelledError("told to stop");
}

// Watches how long the learner has been away: without parameters, since the first call that it did
// not answer. So whoever does something long between two checks, an evaluation say, does not take
// its own time for the learner's. Joins again every few seconds until there are parameters: a
// learner that died before its first checkpoint comes back without knowing the sizes of the task,
// and publishes nothing until somebody joins.
// Thread-safety: none.
class LearnerWatch {
 public:
  // Both must outlive this.
  LearnerWatch(LearnerClient* learner, Clock* clock)
      : learner_(learner), clock_(clock), next_ask_(clock->Now() + kAskEvery) {}

  // Call often. stream: whether parameters come, and if not, why. join: what was joined with, index
  // included; null where nobody has joined: it asks for the status instead. Blocks for a second at
  // most, and only while the learner is away. UNAVAILABLE: away for kLearnerPatience, and still
  // now. Others: the learner that came back refuses this process.
  absl::Status Check(const absl::Status& stream, const v1::JoinRequest* join);

 private:
  static constexpr absl::Duration kAskEvery = absl::Seconds(5);

  LearnerClient* const learner_;
  Clock* const clock_;
  absl::Time away_since_ = absl::InfiniteFuture(), next_ask_;
};

}  // namespace pompc

#endif  // POMPC_LEARNER_CLIENT_LEARNER_WATCH_H_
