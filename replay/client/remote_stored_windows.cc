#include "replay/client/remote_stored_windows.h"

#include <algorithm>

#include "common/base/check.h"
#include "common/base/rng.h"
#include "common/base/status_macros.h"
#include "common/rpc/status.h"
#include "replay/client/shards.h"

namespace pompc {
namespace {

// A server that is away is not waited for: others may be there, and the caller has other things to
// see to.
constexpr RetryPolicy kOnce = {.attempt_timeout = absl::Seconds(5),
                               .give_up_after = absl::ZeroDuration()};

}  // namespace

RemoteStoredWindows::RemoteStoredWindows(
    const std::vector<std::shared_ptr<grpc::Channel>>& channels, uint64_t backoff_seed,
    Clock* clock, const Event* stop, MetricsRegistry* metrics)
    : caller_(kOnce, Rng(backoff_seed, RngRole::kBackoff, 0, 0), clock, stop, metrics) {
  POMPC_CHECK(!channels.empty());
  for (const auto& channel : channels) {
    servers_.push_back({.stub = v1::Replay::NewStub(channel)});
  }
}

absl::StatusOr<v1::SampleResponse> RemoteStoredWindows::PeekAt(Server& server, int32_t windows,
                                                               uint64_t seed) {
  v1::PeekRequest request;
  request.set_windows(windows);
  request.set_seed(seed);
  v1::SampleResponse response;
  server.weight = 0;
  POMPC_RETURN_IF_ERROR(caller_.Call([&](grpc::ClientContext* context) {
    return server.stub->Peek(context, request, &response);
  }));
  server.weight = response.weights().empty() ? static_cast<double>(response.stored_windows())
                                             : response.total_weight();
  return response;
}

absl::Status RemoteStoredWindows::Choose(uint64_t seed) {
  absl::Status answer;
  do {  // At first all of them.
    answer = PeekAt(servers_[asked_ % servers_.size()], 1, seed).status();
    if (!answer.ok() && !IsAway(answer)) return answer;
  } while (++asked_ < servers_.size());
  std::vector<double> weights;
  for (const Server& server : servers_) weights.push_back(server.weight);
  if (std::all_of(weights.begin(), weights.end(), [](double weight) { return weight == 0; })) {
    return answer.ok() ? absl::UnavailableError("no window has a priority above 0") : answer;
  }
  // Of its own: a server draws from the stream of index 0.
  Rng rng(seed, RngRole::kReplaySampler, static_cast<uint32_t>(servers_.size()), 0);
  server_ = DrawShards(weights, 1, rng).front();
  return absl::OkStatus();
}

absl::StatusOr<v1::SampleResponse> RemoteStoredWindows::Peek(int32_t windows, uint64_t seed) {
  if (servers_.size() > 1) POMPC_RETURN_IF_ERROR(Choose(seed));
  return PeekAt(servers_[server_], windows, seed);
}

absl::StatusOr<v1::UpdateResponse> RemoteStoredWindows::Update(
    absl::Span<const uint64_t> keys, absl::Span<const NamedRows> columns) {
  const v1::UpdateRequest request = MakeUpdateRequest(keys, columns);
  v1::UpdateResponse response;
  POMPC_RETURN_IF_ERROR(caller_.Call([&](grpc::ClientContext* context) {
    return servers_[server_].stub->Update(context, request, &response);
  }));
  return response;
}

}  // namespace pompc
