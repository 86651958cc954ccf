// ShardedWriter: a ReplayWriter over several replay servers that share a run's rows.
//
// The segments of an episode go to one server, so that every window lies in one; the episodes take
// turns, and writers begin with different servers, so that all fill evenly. While a server is away
// new episodes go to the others, and an episode under way moves when its server takes no more rows:
// it goes on elsewhere as a new one, which costs the windows across the cut and no row. What was
// handed over for a server that is away waits for it, within its credits.
#ifndef POMPC_REPLAY_CLIENT_SHARDED_WRITER_H_
#define POMPC_REPLAY_CLIENT_SHARDED_WRITER_H_

#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/base/clock.h"
#include "common/metrics/metrics.h"
#include "grpcpp/channel.h"
#include "replay/client/remote_writer.h"
#include "replay/client/writer.h"

namespace pompc {

// Thread-safety: thread-safe, but the segments of one episode come from one thread at a time.
class ShardedWriter final : public ReplayWriter {
 public:
  // channels: at least one. `clock` and `metrics` must outlive this.
  ShardedWriter(const RemoteWriterOptions& options,
                const std::vector<std::shared_ptr<grpc::Channel>>& channels, Clock* clock,
                MetricsRegistry* metrics);

  absl::Status Append(v1::Segment segment, absl::Time deadline) override;
  absl::Status Flush(absl::Time deadline) override;

 private:
  // Where the rest of an episode goes.
  struct Route {
    size_t shard;
    uint64_t episode_id;  // As the server knows it.
    uint64_t first_row;   // As the caller counts, the first one that went there.
  };

  Route RouteOf(const v1::Segment& segment) ABSL_LOCKS_EXCLUDED(mu_);
  // A new route from this segment on, to a server after `shard` that is not away if there is one.
  Route NewRoute(const v1::Segment& segment, size_t shard) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // After `route` took no more rows in time: elsewhere if its server is away.
  void Move(const v1::Segment& segment, const Route& route) ABSL_LOCKS_EXCLUDED(mu_);

  const uint64_t writer_id_;
  Clock* const clock_;
  std::vector<std::unique_ptr<RemoteWriter>> writers_;  // By shard.

  absl::Mutex mu_;
  uint64_t episodes_ ABSL_GUARDED_BY(mu_) = 0;             // Begun on any server.
  std::map<uint64_t, Route> routes_ ABSL_GUARDED_BY(mu_);  // By the caller's episode_id.
};

}  // namespace pompc

#endif  // POMPC_REPLAY_CLIENT_SHARDED_WRITER_H_
