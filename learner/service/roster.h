// Roster: who has entered the run, and the sizes of the task that the first of them told.
//
// Thread-safety: thread-safe.
#ifndef POMPC_LEARNER_SERVICE_ROSTER_H_
#define POMPC_LEARNER_SERVICE_ROSTER_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/base/clock.h"
#include "proto/pompc/v1/config.pb.h"
#include "proto/pompc/v1/learner.pb.h"

namespace pompc {

class Roster {
 public:
  // sizes: of the checkpoint that the run resumes from. replay_addresses: where rows go, part of
  // every answer; empty: to the learner. Writer ids count on from the clock's time
  // in microseconds, so that a learner that starts again never gives one a second time.
  Roster(const v1::RunConfig& config, std::optional<v1::TaskSizes> sizes,
         std::vector<std::string> replay_addresses, Clock* clock);

  // A request that is repeated (JoinRequest.nonce) is answered as before, and counts once.
  // INVALID_ARGUMENT: role, index, nonce or a size out of range; a nonce of somebody else.
  // FAILED_PRECONDITION: the sizes differ from those of the run, or do not go with its config; a
  // second actor in lock-step.
  absl::StatusOr<v1::JoinResponse> Join(const v1::JoinRequest& request);

  // Blocks until somebody has joined (or sizes came from a checkpoint) or `deadline`; nothing then.
  std::optional<v1::TaskSizes> AwaitSizes(absl::Time deadline) const;

  bool evaluator_joined() const;

 private:
  struct Member {
    v1::Role role = v1::ROLE_UNSPECIFIED;
    int64_t index = 0;
    uint64_t writer_id = 0;
    int64_t predecessors = 0;
  };

  absl::Status CheckSizes(const v1::TaskSizes& sizes) const;
  // Enters whoever asks, or finds who did with this nonce.
  absl::StatusOr<Member> Enter(const v1::JoinRequest& request) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const v1::RunConfig config_;
  const std::vector<std::string> replay_addresses_;
  Clock* const clock_;
  mutable absl::Mutex mu_;
  std::optional<v1::TaskSizes> sizes_ ABSL_GUARDED_BY(mu_);
  uint64_t next_writer_id_ ABSL_GUARDED_BY(mu_);
  std::map<v1::Role, int64_t> next_index_ ABSL_GUARDED_BY(mu_);
  std::map<uint64_t, Member> members_ ABSL_GUARDED_BY(mu_);  // By nonce; less than 100 bytes each.
};

}  // namespace pompc

#endif  // POMPC_LEARNER_SERVICE_ROSTER_H_
