// RemoteWriter: a ReplayWriter over one Append stream, uploaded in the background.
//
// Segments are kept until acknowledged and sent again, with their sequence numbers, when the
// connection breaks; replay drops those it has. They are limited by the server's last credits, or
// one segment, so that an actor runs ahead of the rate limiter by no more than those, connected or
// not; before the first answer by one segment.
//
// When replay comes back with another table than before (it was restarted without its rows), what
// was acknowledged is gone; the rest goes into the new table, an episode under way from its first
// row that is left. Nothing that is not acknowledged is dropped, but by Close().
#ifndef POMPC_REPLAY_CLIENT_REMOTE_WRITER_H_
#define POMPC_REPLAY_CLIENT_REMOTE_WRITER_H_

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/base/clock.h"
#include "common/base/thread.h"
#include "common/metrics/metrics.h"
#include "common/rpc/retry.h"
#include "grpcpp/channel.h"
#include "grpcpp/client_context.h"
#include "proto/pompc/v1/replay.grpc.pb.h"
#include "replay/client/writer.h"

namespace pompc {

struct RemoteWriterOptions {
  uint64_t writer_id = 0;  // Unique for each start of an actor, >= 1.
  RetryPolicy reconnect;   // Its backoff; there is no end to it.
};

// Thread-safety: thread-safe.
class RemoteWriter final : public ReplayWriter {
 public:
  // `clock` and `metrics` must outlive this.
  RemoteWriter(const RemoteWriterOptions& options, std::shared_ptr<grpc::Channel> channel,
               Clock* clock, MetricsRegistry* metrics);
  // Closes.
  ~RemoteWriter() override;

  absl::Status Append(v1::Segment segment, absl::Time deadline) override;
  absl::Status Flush(absl::Time deadline) override;

  // Whether the last connection failed and no other has been made since.
  bool away() const;

  // Drops what is not acknowledged and ends all waits with CANCELLED. May be repeated.
  void Close();

 private:
  struct Queued {
    std::shared_ptr<v1::AppendRequest> request;
    uint64_t first_row;  // As the caller counts; the request's may count from a later row.
  };

  // The background thread: uploads until closed or refused, reconnecting in between.
  void Run();
  // One connection: (1) opens the stream, (2) sends what the credits allow, while a second thread
  // (3) takes acknowledgements; (4) returns why the stream ended.
  absl::Status Upload(v1::Replay::Stub* stub);
  void Acknowledge(const v1::AppendResponse& response) ABSL_LOCKS_EXCLUDED(mu_);
  // Gives a segment its place in the present table: sequence and first row.
  void Number(Queued& queued) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Numbers what is queued anew, for an empty table.
  void StartOver() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  bool CanQueue(int64_t rows) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  bool CanSend() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void SetQueuedRows(int64_t rows) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Waits with `decided`, and turns the end of this writer into a status.
  absl::Status Await(const absl::Condition& decided, absl::Time deadline)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const RemoteWriterOptions options_;
  const std::shared_ptr<grpc::Channel> channel_;
  Clock* const clock_;
  Gauge* const queue_rows_metric_;
  Counter* const wait_seconds_metric_;
  Counter* const reconnects_metric_;

  mutable absl::Mutex mu_;
  bool closed_ ABSL_GUARDED_BY(mu_) = false;
  absl::Status refused_ ABSL_GUARDED_BY(mu_);  // Why replay wants no more from us.
  uint64_t last_sequence_ ABSL_GUARDED_BY(mu_) = 0;
  std::deque<Queued> queue_ ABSL_GUARDED_BY(mu_);  // Unacknowledged, by sequence.
  int64_t queued_rows_ ABSL_GUARDED_BY(mu_) = 0;
  // Of the present connection:
  size_t sent_segments_ ABSL_GUARDED_BY(mu_) = 0;  // The first of queue_.
  int64_t sent_rows_ ABSL_GUARDED_BY(mu_) = 0;
  bool greeted_ ABSL_GUARDED_BY(mu_) = false;
  // Of the last answer, of any connection; 0 before the first. No table has the id 0.
  int64_t credits_ ABSL_GUARDED_BY(mu_) = 0;
  uint64_t table_id_ ABSL_GUARDED_BY(mu_) = 0;
  bool started_over_ ABSL_GUARDED_BY(mu_) = false;
  // Of the episodes under way, by id: the caller's number of their first row in this table.
  std::map<uint64_t, uint64_t> first_rows_ ABSL_GUARDED_BY(mu_);
  bool broken_ ABSL_GUARDED_BY(mu_) = false;
  bool away_ ABSL_GUARDED_BY(mu_) = false;
  grpc::ClientContext* context_ ABSL_GUARDED_BY(mu_) = nullptr;

  std::optional<Thread> thread_;  // Last, so that it starts when all else is there.
};

}  // namespace pompc

#endif  // POMPC_REPLAY_CLIENT_REMOTE_WRITER_H_
