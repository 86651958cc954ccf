// SnapshotReader: one Subscribe stream that is kept open. A thread reads it and opens it again when
// it breaks.
//
// The next snapshot is asked for when the last one has been taken, so at most one is on its way.
// One whose checksum or size is wrong is dropped and counted, and the stream is opened anew.
//
// Thread-safety: thread-safe.
#ifndef POMPC_LEARNER_CLIENT_SNAPSHOT_READER_H_
#define POMPC_LEARNER_CLIENT_SNAPSHOT_READER_H_

#include <cstdint>
#include <functional>
#include <memory>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "common/base/clock.h"
#include "common/base/thread.h"
#include "common/metrics/metrics.h"
#include "grpcpp/channel.h"
#include "grpcpp/client_context.h"
#include "grpcpp/generic/generic_stub.h"
#include "grpcpp/support/byte_buffer.h"
#include "proto/pompc/v1/learner.pb.h"

namespace pompc {

class SnapshotReader {
 public:
  // Takes a snapshot, and the bytes that it came in. Runs on the reader's thread.
  using Take = std::function<void(v1::ParameterSnapshot snapshot, const grpc::ByteBuffer& bytes)>;

  // channel: of CreateChannel() (common/rpc/channel.h). backoff_seed: of the pauses' jitter,
  // another one in each process. `clock` and `metrics` must outlive this.
  SnapshotReader(std::shared_ptr<grpc::Channel> channel, uint64_t backoff_seed, Clock* clock,
                 MetricsRegistry* metrics, Take take);
  // Closes, and waits for the thread.
  ~SnapshotReader();

  // Snapshots that came damaged and were dropped.
  int64_t dropped_snapshots() const;
  // OK once the present stream has brought a snapshot; else the error that ended the last one.
  absl::Status status() const;

  // Cancels the stream for good. May be repeated.
  void Close();

 private:
  void ReadLoop(uint64_t backoff_seed);
  // Reads one stream until it breaks or a snapshot is damaged; why it did. Calls `received` after
  // each good snapshot.
  template <typename Received>
  absl::Status ReadStream(Received received);

  grpc::GenericStub stub_;
  Clock* const clock_;
  Counter* const reconnects_;
  const Take take_;
  Event closed_;

  mutable absl::Mutex mu_;
  grpc::ClientContext* context_ ABSL_GUARDED_BY(mu_) = nullptr;  // Of the open stream.
  int64_t dropped_ ABSL_GUARDED_BY(mu_) = 0;
  absl::Status status_ ABSL_GUARDED_BY(mu_) = absl::UnavailableError("not connected yet");

  Thread thread_;  // Last: it uses all of the above.
};

}  // namespace pompc

#endif  // POMPC_LEARNER_CLIENT_SNAPSHOT_READER_H_
