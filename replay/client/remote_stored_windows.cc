#include "replay/client/remote_stored_windows.h"

#include "common/base/check.h"
#include "common/base/rng.h"
#include "common/base/status_macros.h"

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
  for (const auto& channel : channels) stubs_.push_back(v1::Replay::NewStub(channel));
}

absl::StatusOr<v1::SampleResponse> RemoteStoredWindows::Peek(int32_t windows, uint64_t seed) {
  server_ = (server_ + 1) % stubs_.size();
  v1::PeekRequest request;
  request.set_windows(windows);
  request.set_seed(seed);
  v1::SampleResponse response;
  POMPC_RETURN_IF_ERROR(caller_.Call([&](grpc::ClientContext* context) {
    return stubs_[server_]->Peek(context, request, &response);
  }));
  return response;
}

absl::StatusOr<v1::UpdateResponse> RemoteStoredWindows::Update(
    absl::Span<const uint64_t> keys, absl::Span<const NamedRows> columns) {
  const v1::UpdateRequest request = MakeUpdateRequest(keys, columns);
  v1::UpdateResponse response;
  POMPC_RETURN_IF_ERROR(caller_.Call([&](grpc::ClientContext* context) {
    return stubs_[server_]->Update(context, request, &response);
  }));
  return response;
}

}  // namespace pompc
