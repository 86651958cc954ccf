// EpisodeReporter: tells the learner about finished episodes, in the background.
//
// What is not acknowledged is kept and sent again, under the same sequence number, so that each
// episode counts once. Acting never waits for it.
//
// Thread-safety: thread-safe; one thread of its own.
#ifndef POMPC_ACTOR_LOOP_EPISODE_REPORTER_H_
#define POMPC_ACTOR_LOOP_EPISODE_REPORTER_H_

#include <cstdint>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/base/clock.h"
#include "common/base/thread.h"
#include "learner/client/learner_client.h"
#include "proto/pompc/v1/learner.pb.h"

namespace pompc {

class EpisodeReporter {
 public:
  // `client` and `clock` must outlive this. reporter_id: JoinResponse.writer_id.
  EpisodeReporter(LearnerClient* client, uint64_t reporter_id, Clock* clock);
  // Drops what is not acknowledged. Waits for a call under way, a few seconds at most.
  ~EpisodeReporter();

  // Does not block.
  void Add(v1::Episode episode);

  // The learner's updates as of its last answer; 0 before the first and when forgotten.
  int64_t learner_updates() const;
  void ForgetLearnerUpdates();

  // Blocks until everything added so far is acknowledged or, because the learner refused it,
  // dropped. DEADLINE_EXCEEDED.
  absl::Status Flush(absl::Time deadline);

 private:
  void SendLoop();
  bool Idle() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    return pending_.episodes().empty() && !sending_;
  }
  bool MayProceed() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    return stopping_ || !pending_.episodes().empty();
  }

  LearnerClient* const client_;
  const uint64_t reporter_id_;
  Clock* const clock_;

  mutable absl::Mutex mu_;
  v1::ReportEpisodesRequest pending_ ABSL_GUARDED_BY(mu_);  // Not handed to the client yet.
  bool sending_ ABSL_GUARDED_BY(mu_) = false;               // A report is not acknowledged yet.
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  int64_t learner_updates_ ABSL_GUARDED_BY(mu_) = 0;

  Thread thread_;  // Last: it uses all of the above.
};

}  // namespace pompc

#endif  // POMPC_ACTOR_LOOP_EPISODE_REPORTER_H_
