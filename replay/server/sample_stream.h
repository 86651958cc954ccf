// One Sample stream of ReplayService: draws and sends a batch for every credit.
#ifndef POMPC_REPLAY_SERVER_SAMPLE_STREAM_H_
#define POMPC_REPLAY_SERVER_SAMPLE_STREAM_H_

#include <cstdint>
#include <memory>
#include <optional>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "grpcpp/support/byte_buffer.h"
#include "grpcpp/support/server_callback.h"
#include "replay/server/batch_encoding.h"
#include "replay/server/replay.h"

namespace pompc {

// A read is always in flight, to learn of new credits. Beside it at most one batch is being drawn
// or written. The stream ends when the client stops sending, goes or errs; then batches still owed
// are not drawn.
//
// Lock order: mu_, then Replay's. Replay calls back without holding its own.
class SampleStream final : public grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer> {
 public:
  // Lives until the stream is done. `replay` must outlive it.
  static SampleStream* Start(Replay* replay);

 private:
  explicit SampleStream(Replay* replay) : replay_(replay) {}

  void OnReadDone(bool ok) override;
  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

  // Takes in a request. INVALID_ARGUMENT or FAILED_PRECONDITION, naming the field.
  absl::Status Accept() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Has the next batch drawn, if one is owed and none is on its way.
  void DrawNext() ABSL_LOCKS_EXCLUDED(mu_);
  void OnDrawn(const absl::StatusOr<Replay::Drawn>& drawn);
  // Ends the stream as soon as nothing is being drawn or written.
  void End(absl::Status status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void EndIfIdle() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  Replay* const replay_;
  std::shared_ptr<SampleStream> self_;  // Until OnDone(). Callbacks of Replay share it.
  grpc::ByteBuffer request_;            // Being read.

  absl::Mutex mu_;
  std::optional<Replay::Layout> layout_ ABSL_GUARDED_BY(mu_);  // Unset before the first request.
  int32_t batch_size_ ABSL_GUARDED_BY(mu_) = 0;
  int64_t credits_ ABSL_GUARDED_BY(mu_) = 0;        // Batches owed, the one on its way included.
  Replay::Ticket ticket_ ABSL_GUARDED_BY(mu_) = 0;  // Of the batch being drawn; 0: none.
  bool writing_ ABSL_GUARDED_BY(mu_) = false;
  std::optional<BatchEncoding> batch_ ABSL_GUARDED_BY(mu_);  // Being drawn.
  grpc::ByteBuffer response_ ABSL_GUARDED_BY(mu_);           // Being written.
  std::optional<absl::Status> end_ ABSL_GUARDED_BY(mu_);     // To be ended with.
  bool ended_ ABSL_GUARDED_BY(mu_) = false;
};

}  // namespace pompc

#endif  // POMPC_REPLAY_SERVER_SAMPLE_STREAM_H_
