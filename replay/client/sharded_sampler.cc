#include "replay/client/sharded_sampler.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/blocking_counter.h"
#include "common/base/check.h"
#include "common/base/log.h"
#include "common/base/rng.h"
#include "common/base/status_macros.h"
#include "common/rpc/status.h"
#include "replay/client/shards.h"
#include "replay/server/replay.h"

namespace pompc {
namespace {

// Between two rounds that make no batch: how late a grant may come.
constexpr absl::Duration kPoll = absl::Milliseconds(10);
// Of what a round can do without: a server that hangs must not hold up the others.
constexpr absl::Duration kShortTimeout = absl::Seconds(1);
constexpr absl::Duration kLongestBackoff = absl::Seconds(10);

}  // namespace

absl::StatusOr<std::unique_ptr<ShardedSampler>> ShardedSampler::Create(
    const RemoteSamplerOptions& options,
    const std::vector<std::shared_ptr<grpc::Channel>>& channels, Clock* clock,
    MetricsRegistry* metrics) {
  const int shards = static_cast<int>(channels.size());
  POMPC_CHECK(shards >= 2 && shards <= kMaxShards && options.batch_size >= 1 &&
              options.prefetch >= 1 && options.updates_done >= 0);
  POMPC_ASSIGN_OR_RETURN(Schema schema, Schema::Create(options.table.schema()));
  POMPC_ASSIGN_OR_RETURN(ShardPlan plan,
                         ShardPlan::Create(options.table.limits(), shards, options.updates_done));
  return std::unique_ptr<ShardedSampler>(
      new ShardedSampler(options, std::move(schema), std::move(plan), channels, clock, metrics));
}

ShardedSampler::ShardedSampler(const RemoteSamplerOptions& options, Schema schema, ShardPlan plan,
                               const std::vector<std::shared_ptr<grpc::Channel>>& channels,
                               Clock* clock, MetricsRegistry* metrics)
    : options_(options),
      schema_(std::move(schema)),
      clock_(clock),
      reconnects_metric_(metrics->GetCounter("pompc_rpc_reconnects_total")),
      plan_(std::move(plan)),
      infos_(channels.size()),
      drawn_decisions_(channels.size()) {
  const int shards = static_cast<int>(channels.size());
  RetryPolicy reconnect = options.retry;
  reconnect.max_backoff = std::max(reconnect.max_backoff, kLongestBackoff);
  for (int i = 0; i < shards; ++i) {
    shards_.push_back(
        {.name = absl::StrCat(i + 1, " of ", shards),
         .stub = v1::Replay::NewStub(channels[i]),
         .table = TableOfShard(options.table, i, shards),
         .backoff = Backoff(reconnect, Rng(options.table.seed(), RngRole::kBackoff, 0, i))});
  }
  thread_.emplace("replay-sample", [this] { Run(); });
}

ShardedSampler::~ShardedSampler() {
  Close();
  thread_->Join();
}

void ShardedSampler::Close() {
  absl::MutexLock lock(&mu_);
  closed_ = true;
  ready_.clear();
  for (grpc::ClientContext* const context : contexts_) context->TryCancel();
}

template <typename Request, typename Response>
void ShardedSampler::CallAll(Calls<Request, Response>& calls, absl::Duration timeout,
                             Method<Request, Response> method) {
  {
    absl::MutexLock lock(&mu_);
    for (auto& call : calls) {
      if (closed_) call.context.TryCancel();  // Before its start: it fails at once.
      contexts_.insert(&call.context);
    }
  }
  absl::BlockingCounter pending(static_cast<int>(calls.size()));
  for (auto& call : calls) {
    call.context.set_deadline(std::chrono::system_clock::now() +
                              absl::ToChronoNanoseconds(timeout));
    (shards_[call.shard].stub->async()->*method)(&call.context, &call.request, &call.response,
                                                 [&call, &pending](const grpc::Status& status) {
                                                   call.status = FromGrpc(status);
                                                   pending.DecrementCount();
                                                 });
  }
  pending.Wait();
  absl::MutexLock lock(&mu_);
  for (auto& call : calls) contexts_.erase(&call.context);
}

void ShardedSampler::Run() {
  while (true) {
    const absl::StatusOr<bool> made = Round();
    absl::MutexLock lock(&mu_);
    if (closed_) return;
    if (!made.ok()) {
      POMPC_LOG(ERROR) << "replay refused to sample status=" << made.status();
      refused_ = made.status();
      return;
    }
    if (*made) continue;
    const bool full = static_cast<int>(ready_.size()) >= options_.prefetch;
    const auto due = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
      return closed_ || (full && static_cast<int>(ready_.size()) < options_.prefetch);
    };
    clock_->AwaitUntil(&mu_, absl::Condition(&due), clock_->Now() + kPoll);
  }
}

void ShardedSampler::Lose(int shard, const absl::Status& status) {
  {
    absl::MutexLock lock(&mu_);
    if (closed_) return;  // It was we who ended the call.
  }
  Shard& s = shards_[shard];
  if (!s.missing) {  // One line, however long it takes.
    reconnects_metric_->Increment();
    POMPC_LOG(WARNING) << "replay server " << s.name << " does not answer status=" << status;
  }
  s.missing = true;
  s.present = false;
  s.next_attempt = clock_->Now() + s.backoff.Next();
  plan_.Lost(shard);
}

absl::Status ShardedSampler::Connect() {
  Calls<v1::ConfigureRequest, v1::ConfigureResponse> calls;
  for (int i = 0; i < static_cast<int>(shards_.size()); ++i) {
    if (shards_[i].present || clock_->Now() < shards_[i].next_attempt) continue;
    auto& call = calls.emplace_back();
    call.shard = i;
    *call.request.mutable_table() = shards_[i].table;
  }
  if (calls.empty()) return absl::OkStatus();
  CallAll(calls, kShortTimeout, &v1::Replay::Stub::async::Configure);
  for (const auto& call : calls) {
    if (IsRefusal(call.status)) return call.status;
    if (!call.status.ok()) {
      Lose(call.shard, call.status);
    } else {
      shards_[call.shard].present = true;
      POMPC_LOG(INFO) << "declared the table to replay server " << shards_[call.shard].name
                      << " run_id=" << options_.table.run_id();
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<bool> ShardedSampler::Round() {
  // (1)
  POMPC_RETURN_IF_ERROR(Connect());
  // (2)
  bool wanted;
  {
    absl::MutexLock lock(&mu_);
    wanted = static_cast<int>(ready_.size()) < options_.prefetch;
  }
  std::vector<int> assignment;
  std::vector<double> shares;
  std::vector<int64_t> grants(shards_.size(), 0);
  if (plan_.Known()) {
    if (wanted && plan_.CanSample()) {
      assignment = plan_.Assign(options_.table.seed(), options_.batch_size);
      for (size_t i = 0; i < shards_.size(); ++i) {
        shares.push_back(plan_.Share(static_cast<int>(i)));
      }
    }
    grants = plan_.Grants();
  }
  DrawCalls calls;
  for (int i = 0; i < static_cast<int>(shards_.size()); ++i) {
    if (!shards_[i].present) continue;
    auto& call = calls.emplace_back();
    call.shard = i;
    call.request.set_batch(plan_.batches());
    call.request.set_windows(
        static_cast<int32_t>(std::count(assignment.begin(), assignment.end(), i)));
    call.request.set_max_decisions(grants[i]);
  }
  CallAll(calls, options_.retry.attempt_timeout, &v1::Replay::Stub::async::Draw);
  bool complete = !assignment.empty();
  for (const auto& call : calls) {
    if (IsRefusal(call.status)) return call.status;
    if (call.status.ok()) {
      shards_[call.shard].backoff.Reset();
      shards_[call.shard].missing = false;
      const v1::SampleResponse& answer = call.response;
      const double weight = options_.table.priority_exponent() > 0
                                ? answer.total_weight()
                                : static_cast<double>(answer.stored_windows());
      plan_.Answered(call.shard, grants[call.shard],
                     {.decisions = answer.inserted_decisions(),
                      .windows = answer.stored_windows(),
                      .weight = weight});
      absl::MutexLock lock(&mu_);
      drawn_decisions_[call.shard] = answer.inserted_decisions();
    } else {
      complete = false;
      Lose(call.shard, call.status);
    }
  }
  // (3)
  if (!complete) return false;
  plan_.Sampled();
  ColumnBatch batch;
  POMPC_RETURN_IF_ERROR(Merge(assignment, shares, calls, &batch));
  absl::MutexLock lock(&mu_);
  ready_.push_back(std::move(batch));
  return true;
}

absl::Status ShardedSampler::Merge(const std::vector<int>& assignment,
                                   const std::vector<double>& shares, const DrawCalls& calls,
                                   ColumnBatch* batch) const {
  const size_t windows = assignment.size(), rows = options_.table.window_rows();
  const std::vector<Schema::Column>& columns = schema_.columns();
  for (const Schema::Column& column : columns) {
    batch->columns.emplace_back().resize(rows * windows * column.row_bytes);
  }
  batch->keys.resize(rows * windows);
  const bool has_priorities = options_.table.priority_exponent() > 0;
  batch->probabilities.resize(has_priorities ? windows : 0);
  batch->stored_windows = plan_.windows();
  batch->inserted_decisions = plan_.decisions();
  batch->sampled_batches = plan_.batches();
  for (const auto& call : calls) {
    const v1::SampleResponse& part = call.response;
    const size_t part_windows = call.request.windows();
    if (part_windows == 0) continue;
    bool fits = part.columns_size() == static_cast<int>(columns.size()) &&
                part.keys_size() == static_cast<int>(rows * part_windows) &&
                part.weights_size() == static_cast<int>(has_priorities ? part_windows : 0);
    for (size_t i = 0; fits && i < columns.size(); ++i) {
      fits = part.columns(i).size() == rows * part_windows * columns[i].row_bytes;
    }
    if (!fits) {
      return absl::InternalError(absl::StrCat("replay server ", shards_[call.shard].name, " sent ",
                                              part.ByteSizeLong(), " bytes that are not ",
                                              part_windows, " windows of the table"));
    }
    size_t from = 0;  // Window of the part.
    for (size_t b = 0; b < windows; ++b) {
      if (assignment[b] != call.shard) continue;
      for (size_t t = 0; t < rows; ++t) {
        for (size_t i = 0; i < columns.size(); ++i) {
          const size_t bytes = columns[i].row_bytes;
          std::memcpy(batch->columns[i].data() + (t * windows + b) * bytes,
                      part.columns(i).data() + (t * part_windows + from) * bytes, bytes);
        }
        batch->keys[t * windows + b] =
            ShardedKey(call.shard, part.keys(static_cast<int>(t * part_windows + from)));
      }
      if (has_priorities) {
        batch->probabilities[b] =
            shares[call.shard] * part.weights(static_cast<int>(from)) / part.total_weight();
      }
      ++from;
    }
  }
  return absl::OkStatus();
}

absl::Status ShardedSampler::Next(absl::Time deadline, ColumnBatch* batch) {
  absl::MutexLock lock(&mu_);
  const auto decided = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    return closed_ || !refused_.ok() || !ready_.empty();
  };
  const bool in_time = clock_->AwaitUntil(&mu_, absl::Condition(&decided), deadline);
  if (closed_) return absl::CancelledError("the sampler is closed");
  if (!in_time) return absl::DeadlineExceededError("no batch in time");
  if (ready_.empty()) return refused_;
  *batch = std::move(ready_.front());
  ready_.pop_front();
  return absl::OkStatus();
}

absl::StatusOr<v1::UpdateResponse> ShardedSampler::Update(absl::Span<const uint64_t> keys,
                                                          absl::Span<const NamedRows> columns) {
  for (const auto& [name, rows] : columns) {
    if (keys.empty() || rows.size() % keys.size() != 0) {
      return absl::InvalidArgumentError(absl::StrCat("column \"", name, "\": ", rows.size(),
                                                     " bytes are not ", keys.size(), " rows"));
    }
  }
  return UpdateShards(keys, [&](size_t i, v1::UpdateRequest& request) {
    for (size_t c = 0; c < columns.size(); ++c) {
      const auto& [name, rows] = columns[c];
      if (request.columns_size() == static_cast<int>(c)) {
        request.add_column_names(name);
        request.add_columns();
      }
      const size_t bytes = rows.size() / keys.size();
      request.mutable_columns(static_cast<int>(c))->append(rows.substr(i * bytes, bytes));
    }
  });
}

absl::StatusOr<v1::UpdateResponse> ShardedSampler::UpdatePriorities(
    absl::Span<const uint64_t> keys, absl::Span<const float> priorities) {
  if (keys.size() != priorities.size()) {
    return absl::InvalidArgumentError(absl::StrCat("priorities: ", priorities.size(), " for ",
                                                   keys.size(), " keys; must be as many"));
  }
  return UpdateShards(
      keys, [&](size_t i, v1::UpdateRequest& request) { request.add_priorities(priorities[i]); });
}

absl::StatusOr<v1::UpdateResponse> ShardedSampler::UpdateShards(
    absl::Span<const uint64_t> keys,
    const std::function<void(size_t, v1::UpdateRequest&)>& add_row) {
  std::vector<v1::UpdateRequest> requests(shards_.size());
  for (size_t i = 0; i < keys.size(); ++i) {
    const size_t shard = ShardOf(keys[i]);
    if (shard >= requests.size()) {
      return absl::InvalidArgumentError(absl::StrCat("keys: ", keys[i], " is of shard ", shard,
                                                     ", but there are ", requests.size()));
    }
    requests[shard].add_keys(KeyInShard(keys[i]));
    add_row(i, requests[shard]);
  }
  Calls<v1::UpdateRequest, v1::UpdateResponse> calls;
  for (size_t shard = 0; shard < requests.size(); ++shard) {
    if (requests[shard].keys().empty()) continue;
    auto& call = calls.emplace_back();
    call.shard = static_cast<int>(shard);
    call.request = std::move(requests[shard]);
  }
  CallAll(calls, options_.retry.attempt_timeout, &v1::Replay::Stub::async::Update);
  v1::UpdateResponse all;
  for (const auto& call : calls) {
    if (IsRefusal(call.status)) return call.status;
    const int64_t lost = call.status.ok() ? 0 : call.request.keys_size();
    all.set_updated_rows(all.updated_rows() + call.response.updated_rows());
    all.set_stale_rows(all.stale_rows() + call.response.stale_rows() + lost);
  }
  return all;
}

absl::StatusOr<v1::InfoResponse> ShardedSampler::Info() {
  Calls<v1::InfoRequest, v1::InfoResponse> calls;
  for (size_t i = 0; i < shards_.size(); ++i) calls.emplace_back().shard = static_cast<int>(i);
  CallAll(calls, kShortTimeout, &v1::Replay::Stub::async::Info);
  std::vector<v1::InfoResponse> infos;
  absl::MutexLock lock(&mu_);
  for (const auto& call : calls) {
    std::optional<v1::InfoResponse>& info = infos_[call.shard];
    if (call.status.ok()) {
      info = call.response;
    } else if (info.has_value()) {
      // What is told of a shard that is away must not fall behind what its draws have told.
      info->set_inserted_decisions(
          std::max<int64_t>(info->inserted_decisions(), drawn_decisions_[call.shard]));
    }
    if (!info.has_value()) {
      return absl::UnavailableError(absl::StrCat("replay server ", shards_[call.shard].name,
                                                 " does not answer: ", call.status.ToString()));
    }
    infos.push_back(*info);
  }
  return MergeInfos(infos);
}

}  // namespace pompc
