// ParameterSubscriber: the newest parameters that the learner has published.
//
// Only the newest snapshot is kept: a reader that is slow skips versions, nothing queues up.
//
// Thread-safety: thread-safe.
#ifndef POMPC_LEARNER_CLIENT_PARAMETER_SUBSCRIBER_H_
#define POMPC_LEARNER_CLIENT_PARAMETER_SUBSCRIBER_H_

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "proto/pompc/v1/learner.pb.h"

namespace pompc {

using SnapshotPtr = std::shared_ptr<const v1::ParameterSnapshot>;

class ParameterSubscriber {
 public:
  virtual ~ParameterSubscriber() = default;

  // Null before the first has arrived. Does not block.
  virtual SnapshotPtr Newest() const = 0;

  // Blocks until Newest() has another version than `version` (-1: until there is one) and returns
  // it. Another, not greater: a learner that resumes from a checkpoint repeats versions.
  // DEADLINE_EXCEEDED; CANCELLED: closed. A lost connection is no error: it is made again.
  virtual absl::StatusOr<SnapshotPtr> WaitForNewer(int64_t version, absl::Time deadline) = 0;

  // Snapshots that came damaged (size or checksum) and were dropped.
  virtual int64_t dropped_snapshots() const = 0;
  // Whether the stream stands, and when not, the error that ended it.
  virtual absl::Status status() const = 0;

  // Ends calls that wait, and all later ones, with CANCELLED. May be repeated.
  virtual void Close() = 0;
};

}  // namespace pompc

#endif  // POMPC_LEARNER_CLIENT_PARAMETER_SUBSCRIBER_H_
