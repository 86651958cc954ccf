// ShardedSampler: a ReplaySampler over several replay servers that share a run's rows.
//
// Each batch is drawn from all of them in proportion to the windows they store, and put together so
// that it is what one server with all the rows would give; ShardPlan (shard_plan.h) decides what
// comes from where and keeps the rate limits. One background thread draws ahead: a batch is one
// Draw to every server, all at once; while no batch may be drawn, or enough are ready, it still
// calls every few milliseconds, because the grants of inserts travel with the calls.
//
// A server that does not answer is left out, and connected to again with backoff: batches go on
// from the others. Nothing is drawn before every server has answered once. One that comes back
// with fewer rows than it had shows in Info(), as with one server.
//
// Keys tell the shard too (shards.h). newest_key of a batch is 0: ages differ between servers.
// Determinism: equal rows and counts on every server at batch n => equal batches n.
#ifndef POMPC_REPLAY_CLIENT_SHARDED_SAMPLER_H_
#define POMPC_REPLAY_CLIENT_SHARDED_SAMPLER_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/base/clock.h"
#include "common/base/thread.h"
#include "common/metrics/metrics.h"
#include "common/rpc/retry.h"
#include "grpcpp/channel.h"
#include "grpcpp/client_context.h"
#include "proto/pompc/v1/replay.grpc.pb.h"
#include "replay/client/remote_sampler.h"
#include "replay/client/sampler.h"
#include "replay/client/shard_plan.h"
#include "replay/server/schema.h"

namespace pompc {

// Thread-safety: thread-safe.
class ShardedSampler final : public ReplaySampler {
 public:
  // options.table: of the whole run; its capacity is divided. channels: 2 to kMaxShards, in the
  // order that the servers had before, if they hold rows. `clock` and `metrics` must outlive this.
  // INVALID_ARGUMENT: limits or schema.
  static absl::StatusOr<std::unique_ptr<ShardedSampler>> Create(
      const RemoteSamplerOptions& options,
      const std::vector<std::shared_ptr<grpc::Channel>>& channels, Clock* clock,
      MetricsRegistry* metrics);
  // Closes.
  ~ShardedSampler() override;

  absl::Status Next(absl::Time deadline, ColumnBatch* batch) override;
  // Rows of a server that does not answer count as stale. Blocks for up to 10 s.
  absl::StatusOr<v1::UpdateResponse> Update(absl::Span<const uint64_t> keys,
                                            absl::Span<const NamedRows> columns) override;
  absl::StatusOr<v1::UpdateResponse> UpdatePriorities(absl::Span<const uint64_t> keys,
                                                      absl::Span<const float> priorities) override;
  // Counts of a server that does not answer are its last ones. Blocks for up to 1 s. UNAVAILABLE:
  // one has never answered. DATA_LOSS: MergeInfos().
  absl::StatusOr<v1::InfoResponse> Info() override;

  // Drops what is prefetched and ends all waits with CANCELLED. May be repeated.
  void Close();

 private:
  struct Shard {
    std::string name;  // For logs: "2 of 3".
    std::unique_ptr<v1::Replay::Stub> stub;
    v1::TableConfig table;
    Backoff backoff;
    // Of the background thread:
    bool present = false;  // Knows the table.
    bool missing = false;  // Has not answered since a call failed.
    absl::Time next_attempt = absl::InfinitePast();
  };
  // A call to one shard.
  template <typename Request, typename Response>
  struct Call {
    int shard = 0;
    Request request;
    Response response;
    absl::Status status;
    grpc::ClientContext context;
  };
  template <typename Request, typename Response>
  using Calls = std::deque<Call<Request, Response>>;
  template <typename Request, typename Response>
  using Method = void (v1::Replay::Stub::async::*)(grpc::ClientContext*, const Request*, Response*,
                                                   std::function<void(grpc::Status)>);
  using DrawCalls = Calls<v1::DrawRequest, v1::SampleResponse>;

  ShardedSampler(const RemoteSamplerOptions& options, Schema schema, ShardPlan plan,
                 const std::vector<std::shared_ptr<grpc::Channel>>& channels, Clock* clock,
                 MetricsRegistry* metrics);

  // The background thread: rounds until closed or refused.
  void Run();
  // One round: (1) declares the table to the shards that are away and due; (2) makes a Draw of each
  // that is there; (3) puts the batch together, if one was due and no part is missing. Returns
  // whether one was made. Errors: a shard refused for good.
  absl::StatusOr<bool> Round();
  absl::Status Connect();
  // shares: of each shard in the draw.
  absl::Status Merge(const std::vector<int>& assignment, const std::vector<double>& shares,
                     const DrawCalls& calls, ColumnBatch* batch) const;
  void Lose(int shard, const absl::Status& status);

  // Makes one Update of each shard that a key is of, with the rows that belong to it.
  // add_row(i, request): adds what key i is to get.
  absl::StatusOr<v1::UpdateResponse> UpdateShards(
      absl::Span<const uint64_t> keys,
      const std::function<void(size_t, v1::UpdateRequest&)>& add_row);
  // Makes all calls at once with `method` of the stubs and waits for the last one.
  template <typename Request, typename Response>
  void CallAll(Calls<Request, Response>& calls, absl::Duration timeout,
               Method<Request, Response> method) ABSL_LOCKS_EXCLUDED(mu_);

  const RemoteSamplerOptions options_;
  const Schema schema_;
  Clock* const clock_;
  Counter* const reconnects_metric_;
  std::vector<Shard> shards_;
  ShardPlan plan_;  // Of the background thread.

  absl::Mutex mu_;
  bool closed_ ABSL_GUARDED_BY(mu_) = false;
  absl::Status refused_ ABSL_GUARDED_BY(mu_);  // Why a server answers us no more.
  std::deque<ColumnBatch> ready_ ABSL_GUARDED_BY(mu_);
  std::set<grpc::ClientContext*> contexts_ ABSL_GUARDED_BY(mu_);  // Of calls under way.
  // Last ones; empty before a shard has answered.
  std::vector<std::optional<v1::InfoResponse>> infos_ ABSL_GUARDED_BY(mu_);
  std::vector<int64_t> drawn_decisions_ ABSL_GUARDED_BY(mu_);  // Of each shard, by its last draw.

  std::optional<Thread> thread_;  // Last, so that it starts when all else is there.
};

}  // namespace pompc

#endif  // POMPC_REPLAY_CLIENT_SHARDED_SAMPLER_H_
