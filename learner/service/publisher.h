// Publisher: the newest parameters of a run, streamed to any number of subscribers.
//
// A subscriber asks for one snapshot at a time and gets the newest one as soon as its version is
// not the one it holds. A slow subscriber thus skips versions: nothing is queued. A version is
// serialised once; the buffer is shared by all subscribers.
//
// A subscriber may hold a version of another run that was served at this address before; hence "not
// the one it holds" rather than "greater".
//
// Thread-safety: thread-safe. No thread of its own: streams run on gRPC's callbacks.
#ifndef POMPC_LEARNER_SERVICE_PUBLISHER_H_
#define POMPC_LEARNER_SERVICE_PUBLISHER_H_

#include <cstdint>
#include <memory>
#include <unordered_set>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/base/clock.h"
#include "common/metrics/metrics.h"
#include "grpcpp/support/byte_buffer.h"
#include "grpcpp/support/server_callback.h"
#include "proto/pompc/v1/learner.pb.h"

namespace pompc {

// Where a publisher counts: in the metrics of the learner or in those of a relay.
struct PublisherMetrics {
  Gauge* version;
  Gauge* lag_updates;
  Gauge* subscribers;
  Counter* sent_bytes;
};

class Publisher {
 public:
  using Reactor = grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>;

  // The first version that Publish() makes is `first_version`. `clock` must outlive this. Its time
  // in microseconds becomes the learner's id.
  Publisher(int64_t first_version, Clock* clock, const PublisherMetrics& metrics);
  // Every stream must have ended: shut the server down first.
  ~Publisher();

  // Makes `snapshot` the newest; fills in version, learner_id and checksum. Returns the version.
  // From one thread at a time.
  int64_t Publish(v1::ParameterSnapshot snapshot);
  // Makes a snapshot of another publisher the newest, in the bytes that it came in. Likewise.
  void PassOn(const v1::ParameterSnapshot& snapshot, const grpc::ByteBuffer& bytes);

  // The newest version; first_version - 1 before the first.
  int64_t version() const;

  // Serves one Subscribe call; the reactor deletes itself when the call is over.
  Reactor* Subscribe();

  // Blocks until every subscriber that is connected holds the newest version, or `deadline`;
  // returns whether they do.
  bool AwaitDelivered(absl::Time deadline);

  // Updates by which the parameters of the subscriber that lags most are behind the learner's
  // `updates`; of those that hold any. 0 without one. Also sets the metric.
  int64_t GreatestLag(int64_t updates);

  // Blocks until no subscriber is connected, or `deadline`; returns whether none is.
  bool AwaitLeft(absl::Time deadline);

  // Ends all streams, and new ones at once, with UNAVAILABLE. May be repeated.
  void Close();

 private:
  class Subscription;

  void Remove(Subscription* subscription);

  Clock* const clock_;
  const uint64_t learner_id_;
  const PublisherMetrics metrics_;

  mutable absl::Mutex mu_;
  int64_t version_ ABSL_GUARDED_BY(mu_);
  int64_t updates_ ABSL_GUARDED_BY(mu_) = 0;                             // Of the newest version.
  std::shared_ptr<const grpc::ByteBuffer> newest_ ABSL_GUARDED_BY(mu_);  // Null before the first.
  bool closed_ ABSL_GUARDED_BY(mu_) = false;
  std::unordered_set<Subscription*> subscriptions_ ABSL_GUARDED_BY(mu_);
};

}  // namespace pompc

#endif  // POMPC_LEARNER_SERVICE_PUBLISHER_H_
