// RemoteStoredWindows: StoredWindows of one or several servers, each Peek() from the next one.
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
  std::vector<std::unique_ptr<v1::Replay::Stub>> stubs_;
  size_t server_ = 0;  // Of the last Peek().
  UnaryCaller caller_;
};

}  // namespace pompc

#endif  // POMPC_REPLAY_CLIENT_REMOTE_STORED_WINDOWS_H_
