#include "learner/service/replay_link.h"

#include "common/base/rng.h"
#include "common/base/status_macros.h"
#include "common/rpc/retry.h"
#include "proto/pompc/v1/replay.grpc.pb.h"
#include "replay/client/remote_sampler.h"
#include "replay/client/sharded_sampler.h"
#include "replay/client/shards.h"

namespace pompc {

absl::StatusOr<v1::InfoResponse> LocalReplayLink::Info(const Event& /*stop*/) {
  return replay_->Info();
}

absl::StatusOr<std::unique_ptr<ReplaySampler>> LocalReplayLink::Open(const v1::RunConfig& config,
                                                                     const v1::TableConfig& table,
                                                                     int64_t updates_done) {
  v1::ConfigureRequest request;
  *request.mutable_table() = table;
  request.set_updates_done(updates_done);
  POMPC_RETURN_IF_ERROR(replay_->Configure(request));
  return std::make_unique<LocalSampler>(config.learning().batch_size(), replay_, clock_);
}

absl::StatusOr<v1::InfoResponse> RemoteReplayLink::Info(const Event& stop) {
  std::vector<v1::InfoResponse> infos;
  for (const std::shared_ptr<grpc::Channel>& channel : channels_) {
    const auto stub = v1::Replay::NewStub(channel);
    UnaryCaller caller(RetryPolicy(), Rng(0, RngRole::kBackoff, 2, infos.size()), clock_, &stop,
                       metrics_);
    v1::InfoResponse& response = infos.emplace_back();
    POMPC_RETURN_IF_ERROR(caller.Call([&](grpc::ClientContext* context) {
      return stub->Info(context, v1::InfoRequest(), &response);
    }));
  }
  return MergeInfos(infos);
}

absl::StatusOr<std::unique_ptr<ReplaySampler>> RemoteReplayLink::Open(const v1::RunConfig& config,
                                                                      const v1::TableConfig& table,
                                                                      int64_t updates_done) {
  RemoteSamplerOptions options;
  options.table = table;
  options.updates_done = updates_done;
  options.batch_size = config.learning().batch_size();
  options.prefetch = config.replay().prefetch_batches();
  if (channels_.size() > 1) {
    return ShardedSampler::Create(options, channels_, clock_, metrics_);
  }
  return std::make_unique<RemoteSampler>(options, channels_[0], clock_, metrics_);
}

}  // namespace pompc
