// One Append stream of ReplayService: tells the credits and the table, then reads a segment, has it
// stored, acknowledges it, reads on.
#ifndef POMPC_REPLAY_SERVER_APPEND_STREAM_H_
#define POMPC_REPLAY_SERVER_APPEND_STREAM_H_

#include <memory>
#include <optional>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "common/metrics/metrics.h"
#include "grpcpp/support/server_callback.h"
#include "proto/pompc/v1/replay.pb.h"
#include "replay/server/replay.h"

namespace pompc {

// Either a read is in flight or the segment is with Replay, never both; whoever holds this "turn"
// may end the stream, so it ends once. Acknowledgements are cumulative: the newest replaces one
// that could not be sent yet.
//
// Lock order: mu_, then Replay's. Replay calls back without holding its own.
class AppendStream final : public grpc::ServerBidiReactor<v1::AppendRequest, v1::AppendResponse> {
 public:
  // Lives until the stream is done. `replay` and `writers` must outlive it.
  static AppendStream* Start(Replay* replay, Gauge* writers);

 private:
  AppendStream(Replay* replay, Gauge* writers);

  void OnReadDone(bool ok) override;
  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

  // Tells the client its credits and takes the first turn.
  void Greet();
  void OnStored(const absl::StatusOr<Replay::Appended>& result);
  // Keeps the turn for the next segment, or ends the stream.
  void AnswerAndRead(const absl::StatusOr<Replay::Appended>& result)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Takes the turn back from Replay, if the peer is gone, and ends the stream.
  void EndIfCancelled() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Ends the stream after the acknowledgements that are due.
  void End(absl::Status status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void WriteNext() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  Replay* const replay_;
  Gauge* const writers_;
  std::shared_ptr<AppendStream> self_;  // Until OnDone(). Callbacks of Replay share it.

  // Belong to whoever has the turn.
  v1::AppendRequest request_;
  uint64_t writer_id_ = 0;  // Of the first segment.

  absl::Mutex mu_;
  Replay::Ticket ticket_ ABSL_GUARDED_BY(mu_) = 0;  // Of the segment that Replay has; 0: none.
  bool cancelled_ ABSL_GUARDED_BY(mu_) = false;
  bool writing_ ABSL_GUARDED_BY(mu_) = false;
  std::optional<v1::AppendResponse> next_ ABSL_GUARDED_BY(mu_);  // To be written.
  std::optional<absl::Status> end_ ABSL_GUARDED_BY(mu_);         // To be ended with.
  v1::AppendResponse response_ ABSL_GUARDED_BY(mu_);             // Being written.
};

}  // namespace pompc

#endif  // POMPC_REPLAY_SERVER_APPEND_STREAM_H_
