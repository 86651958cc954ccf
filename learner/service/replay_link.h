// ReplayLink: the replay of a run, in this process or in others.
//
// Thread-safety: none; one thread owns a link and the sampler it opened.
#ifndef POMPC_LEARNER_SERVICE_REPLAY_LINK_H_
#define POMPC_LEARNER_SERVICE_REPLAY_LINK_H_

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "common/base/clock.h"
#include "common/metrics/metrics.h"
#include "grpcpp/channel.h"
#include "proto/pompc/v1/config.pb.h"
#include "proto/pompc/v1/replay.pb.h"
#include "replay/client/local_sampler.h"
#include "replay/client/sampler.h"

namespace pompc {

class ReplayLink {
 public:
  virtual ~ReplayLink() = default;

  // What replay holds; without a table while nobody has configured it. Blocks until replay can be
  // reached. CANCELLED once `stop` is raised.
  virtual absl::StatusOr<v1::InfoResponse> Info(const Event& stop) = 0;

  // Declares the table and samples from it. updates_done: made with this table before. Errors:
  // those of Replay's Configure, here or from the sampler.
  virtual absl::StatusOr<std::unique_ptr<ReplaySampler>> Open(const v1::RunConfig& config,
                                                              const v1::TableConfig& table,
                                                              int64_t updates_done) = 0;
};

class LocalReplayLink final : public ReplayLink {
 public:
  // `replay` and `clock` must outlive the samplers.
  LocalReplayLink(Replay* replay, Clock* clock) : replay_(replay), clock_(clock) {}

  absl::StatusOr<v1::InfoResponse> Info(const Event& stop) override;
  absl::StatusOr<std::unique_ptr<ReplaySampler>> Open(const v1::RunConfig& config,
                                                      const v1::TableConfig& table,
                                                      int64_t updates_done) override;

 private:
  Replay* const replay_;
  Clock* const clock_;
};

class RemoteReplayLink final : public ReplayLink {
 public:
  // channels: of CreateChannel() (common/rpc/channel.h), one for each server that has a part of the
  // rows, 1 to kMaxShards; a resumed run names them in the same order. `clock` and `metrics` must
  // outlive the samplers.
  RemoteReplayLink(std::vector<std::shared_ptr<grpc::Channel>> channels, Clock* clock,
                   MetricsRegistry* metrics)
      : channels_(std::move(channels)), clock_(clock), metrics_(metrics) {}

  // DATA_LOSS as well: some servers hold the run's rows, and one has lost its own.
  absl::StatusOr<v1::InfoResponse> Info(const Event& stop) override;
  absl::StatusOr<std::unique_ptr<ReplaySampler>> Open(const v1::RunConfig& config,
                                                      const v1::TableConfig& table,
                                                      int64_t updates_done) override;

 private:
  const std::vector<std::shared_ptr<grpc::Channel>> channels_;
  Clock* const clock_;
  MetricsRegistry* const metrics_;
};

}  // namespace pompc

#endif  // POMPC_LEARNER_SERVICE_REPLAY_LINK_H_
