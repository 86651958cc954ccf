// RemoteStoredWindows: StoredWindows of one or several servers.
//
// Each Peek() is from one of them, drawn in proportion to what they store: to their windows, or to
// the sum of their weights where windows have priorities. So every stored window is as likely as if
// one server had them all. What a server stores its answers tell; before each Peek() one of them,
// in turn, is asked for it, so what is known of any is no older than as many Peek()s as there are
// servers. One that does not answer counts as empty until it does, one that hangs after 5 s.
#ifndef POMPC_REPLAY_CLIENT_REMOTE_STORED_WINDOWS_H_
#define POMPC_REPLAY_CLIENT_REMOTE_STORED_WINDOWS_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "absl/time/time.h"
#include "common/base/clock.h"
#include "common/metrics/metrics.h"
#include "common/rpc/retry.h"
#include "grpcpp/channel.h"
#include "proto/pompc/v1/replay.grpc.pb.h"
#include "replay/client/stored_windows.h"

namespace pompc {

class RemoteStoredWindows final : public StoredWindows {
 public:
  // channels: one for each server, at least one. Calls end soon after `stop` is raised, with
  // CANCELLED. `clock`, `stop` and `metrics` must outlive this.
  RemoteStoredWindows(const std::vector<std::shared_ptr<grpc::Channel>>& channels,
                      uint64_t backoff_seed, Clock* clock, const Event* stop,
                      MetricsRegistry* metrics);

  absl::StatusOr<v1::SampleResponse> Peek(int32_t windows, uint64_t seed) override;
  absl::StatusOr<v1::UpdateResponse> Update(absl::Span<const uint64_t> keys,
                                            absl::Span<const NamedRows> columns) override;

 private:
  struct Server {
    std::unique_ptr<v1::Replay::Stub> stub;
    double weight = 0;  // By its last answer.
  };

  // Draws from one server, whose weight comes with the answer.
  absl::StatusOr<v1::SampleResponse> PeekAt(Server& server, int32_t windows, uint64_t seed);
  // Draws the server of the next Peek().
  absl::Status Choose(uint64_t seed);

  std::vector<Server> servers_;
  size_t asked_ = 0;   // How often Choose() has asked one of them.
  size_t server_ = 0;  // Of the last Peek().
  UnaryCaller caller_;
};

}  // namespace pompc

#endif  // POMPC_REPLAY_CLIENT_REMOTE_STORED_WINDOWS_H_
