// FakeWriter: a ReplayWriter that keeps what it gets, for tests of those who write.
//
// Who samples needs no fake: a Replay with a LocalSampler runs without a socket.
#ifndef POMPC_REPLAY_CLIENT_FAKE_WRITER_H_
#define POMPC_REPLAY_CLIENT_FAKE_WRITER_H_

#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "replay/client/writer.h"

namespace pompc {

// Thread-safe.
class FakeWriter final : public ReplayWriter {
 public:
  // The segments so far, with the sequence numbers they would have had.
  std::vector<v1::Segment> segments() const {
    absl::MutexLock lock(&mu_);
    return segments_;
  }
  // What Append() and Flush() answer from now on; a segment refused so is not kept.
  void SetStatus(absl::Status status) {
    absl::MutexLock lock(&mu_);
    status_ = std::move(status);
  }

  absl::Status Append(v1::Segment segment, absl::Time) override {
    absl::MutexLock lock(&mu_);
    if (!status_.ok()) return status_;
    segment.set_writer_id(1);
    segment.set_sequence(segments_.size() + 1);
    segments_.push_back(std::move(segment));
    return absl::OkStatus();
  }
  absl::Status Flush(absl::Time) override {
    absl::MutexLock lock(&mu_);
    return status_;
  }

 private:
  mutable absl::Mutex mu_;
  absl::Status status_ ABSL_GUARDED_BY(mu_);
  std::vector<v1::Segment> segments_ ABSL_GUARDED_BY(mu_);
};

}  // namespace pompc

#endif  // POMPC_REPLAY_CLIENT_FAKE_WRITER_H_
