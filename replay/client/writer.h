// ReplayWriter: where an actor puts its segments.
//
// Units: a row is one decision, or the last observation of an episode (see replay.proto, Segment).
#ifndef POMPC_REPLAY_CLIENT_WRITER_H_
#define POMPC_REPLAY_CLIENT_WRITER_H_

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "proto/pompc/v1/replay.pb.h"

namespace pompc {

class ReplayWriter {
 public:
  virtual ~ReplayWriter() = default;

  // Hands over one segment; writer_id and sequence are filled in here. Segments are stored once
  // each, in this order, whatever happens to the connection. Blocks while replay does not keep up.
  // DEADLINE_EXCEEDED: not taken, may be tried again. CANCELLED: closed. Any other: replay
  // refused an earlier segment for good; the writer is of no more use.
  virtual absl::Status Append(v1::Segment segment, absl::Time deadline) = 0;

  // Blocks until everything appended so far is stored. Errors as above.
  virtual absl::Status Flush(absl::Time deadline) = 0;
};

}  // namespace pompc

#endif  // POMPC_REPLAY_CLIENT_WRITER_H_
