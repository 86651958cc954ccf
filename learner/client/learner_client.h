// LearnerClient: the learner's unary calls, for those who act, evaluate or watch.
//
// Thread-safety: thread-safe. Every call blocks until it has an answer or `deadline`; while the
// learner cannot be reached the call is tried again with growing pauses.
// Errors: what the learner answered, e.g. INVALID_ARGUMENT for a request that can never be right or
// FAILED_PRECONDITION for a task that does not fit the run; UNAVAILABLE or DEADLINE_EXCEEDED when
// there was no answer until `deadline`; CANCELLED after Close().
#ifndef POMPC_LEARNER_CLIENT_LEARNER_CLIENT_H_
#define POMPC_LEARNER_CLIENT_LEARNER_CLIENT_H_

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "proto/pompc/v1/learner.pb.h"

namespace pompc {

class LearnerClient {
 public:
  virtual ~LearnerClient() = default;

  virtual absl::StatusOr<v1::GetConfigResponse> GetConfig(absl::Time deadline) = 0;
  // A request is answered as an earlier one with its nonce was, and enters the run once.
  virtual absl::StatusOr<v1::JoinResponse> Join(const v1::JoinRequest& request,
                                                absl::Time deadline) = 0;
  // A report with the reporter_id and sequence of an earlier one is counted once.
  virtual absl::StatusOr<v1::ReportEpisodesResponse> ReportEpisodes(
      const v1::ReportEpisodesRequest& request, absl::Time deadline) = 0;
  virtual absl::StatusOr<v1::RunStatus> GetStatus(absl::Time deadline) = 0;

  // Ends calls that wait, and all later ones, with CANCELLED. May be repeated.
  virtual void Close() = 0;
};

}  // namespace pompc

#endif  // POMPC_LEARNER_CLIENT_LEARNER_CLIENT_H_
