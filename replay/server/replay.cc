#include "replay/server/replay.h"

#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "common/base/check.h"
#include "common/base/rng.h"
#include "common/base/status_macros.h"
#include "google/protobuf/util/message_differencer.h"

namespace pompc {
namespace {

using google::protobuf::util::MessageDifferencer;

void Run(std::vector<std::function<void()>>& callbacks) {
  for (std::function<void()>& callback : callbacks) callback();
}

}  // namespace

Replay::Replay(Clock* clock, MetricsRegistry* metrics)
    : clock_(clock),
      rows_(metrics->GetGauge("pompc_replay_items")),
      bytes_(metrics->GetGauge("pompc_replay_stored_bytes")),
      inserts_(metrics->GetCounter("pompc_replay_inserts_total")),
      evictions_(metrics->GetCounter("pompc_replay_evictions_total")),
      windows_(metrics->GetCounter("pompc_replay_samples_total")),
      batches_(metrics->GetCounter("pompc_replay_batches_total")),
      duplicates_(metrics->GetCounter("pompc_replay_duplicate_segments_total")),
      updated_(metrics->GetCounter("pompc_replay_updated_rows_total")),
      stale_(metrics->GetCounter("pompc_replay_stale_updates_total")),
      insert_blocked_{metrics->GetCounter("pompc_replay_blocked_seconds_total", "insert"), {}, {}},
      sample_blocked_{metrics->GetCounter("pompc_replay_blocked_seconds_total", "sample"), {}, {}} {
}

void Replay::BlockedTime::Set(bool blocked, absl::Time now) {
  if (since.has_value()) {
    total += now - *since;
    counter->Increment(absl::ToDoubleSeconds(now - *since));
  }
  since = blocked ? std::optional(now) : std::nullopt;
}

absl::Status Replay::Configure(const v1::ConfigureRequest& request) {
  const v1::TableConfig& config = request.table();
  if (config.writer_credits() < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("writer_credits: ", config.writer_credits(), "; must be at least 1"));
  }
  if (request.updates_done() < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("updates_done: ", request.updates_done(), "; must be at least 0"));
  }
  Callbacks callbacks;
  {
    absl::MutexLock lock(&mu_);
    if (closed_) return absl::UnavailableError("replay is shutting down");
    std::string difference;
    MessageDifferencer differencer;
    differencer.ReportDifferencesToString(&difference);
    if (table_ == nullptr || !differencer.Compare(config_, config)) {
      if (table_ != nullptr && table_->counts().inserted_rows > 0) {
        return absl::FailedPreconditionError(absl::StrCat(
            "replay holds ", table_->counts().rows, " rows of run \"", config_.run_id(),
            "\" with another table; start an empty replay, or use the same table: ",
            absl::StrReplaceAll(absl::StripTrailingAsciiWhitespace(difference), {{"\n", "; "}})));
      }
      POMPC_ASSIGN_OR_RETURN(RateLimiter limiter, RateLimiter::Create(config.limits()));
      POMPC_ASSIGN_OR_RETURN(Schema schema, Schema::Create(config.schema()));
      POMPC_ASSIGN_OR_RETURN(std::unique_ptr<Table> table,
                             Table::Create({.schema = schema,
                                            .capacity_rows = config.capacity_rows(),
                                            .capacity_bytes = config.capacity_bytes(),
                                            .window_rows = config.window_rows()}));
      callbacks = FailWaiting(absl::UnavailableError("the table was configured anew"));
      config_ = config;
      schema_ = std::make_shared<const Schema>(std::move(schema));
      table_ = std::move(table);
      table_id_ = std::max(table_id_ + 1, static_cast<uint64_t>(absl::ToUnixMicros(clock_->Now())));
      limiter_ = limiter;
    }
    if (request.has_updates_done()) {
      limiter_->SetUpdates(request.updates_done());
      for (auto& callback : Dispatch()) callbacks.push_back(std::move(callback));
    }
  }
  Run(callbacks);
  return absl::OkStatus();
}

absl::Status Replay::Ready() const {
  if (closed_) return absl::UnavailableError("replay is shutting down");
  if (table_ == nullptr) {
    return absl::UnavailableError("not configured yet: the learner has to declare the table first");
  }
  return absl::OkStatus();
}

void Replay::Append(Ticket ticket, v1::Segment segment, AppendCallback done) {
  Callbacks callbacks;
  {
    absl::MutexLock lock(&mu_);
    absl::Status status = Ready();
    if (status.ok()) status = table_->CheckSegment(segment);
    if (status.ok() && !table_->IsDuplicate(segment)) {
      waiting_appends_.emplace(ticket, WaitingAppend{std::move(segment), std::move(done)});
      callbacks = Dispatch();
    } else if (status.ok()) {
      callbacks.push_back([done = std::move(done), result = InsertNow(segment)] { done(result); });
    } else {
      callbacks.push_back([done = std::move(done), status] { done(status); });
    }
  }
  Run(callbacks);
}

void Replay::Sample(Ticket ticket, const Layout& layout, int32_t batch_size, WindowBuffers out,
                    SampleCallback done) {
  Callbacks callbacks;
  {
    absl::MutexLock lock(&mu_);
    absl::Status status = Ready();
    if (status.ok() && batch_size < 1) {
      status = absl::InvalidArgumentError(
          absl::StrCat("batch_size: ", batch_size, "; must be at least 1"));
    }
    if (status.ok() && layout.schema != schema_) {
      status = absl::UnavailableError("the table was configured anew");
    }
    if (status.ok()) {
      waiting_samples_.emplace(ticket, WaitingSample{batch_size, std::move(out), std::move(done)});
      callbacks = Dispatch();
    } else {
      callbacks.push_back([done = std::move(done), status] { done(status); });
    }
  }
  Run(callbacks);
}

bool Replay::Cancel(Ticket ticket) {
  absl::MutexLock lock(&mu_);
  const bool found = waiting_appends_.erase(ticket) + waiting_samples_.erase(ticket) > 0;
  if (found) UpdateBlockedTimes();
  return found;
}

Replay::Callbacks Replay::Dispatch() {
  Callbacks callbacks;
  for (bool progress = true; progress;) {
    progress = false;
    if (!waiting_appends_.empty() && limiter_->CanInsert(table_->num_windows() > 0)) {
      WaitingAppend append = std::move(waiting_appends_.extract(waiting_appends_.begin()).mapped());
      callbacks.push_back(
          [done = std::move(append.done), result = InsertNow(append.segment)] { done(result); });
      progress = true;
    }
    if (!waiting_samples_.empty() && limiter_->CanSample(table_->num_windows() > 0)) {
      WaitingSample sample = std::move(waiting_samples_.extract(waiting_samples_.begin()).mapped());
      callbacks.push_back([done = std::move(sample.done),
                           result = DrawNow(sample.batch_size, sample.out)] { done(result); });
      progress = true;
    }
  }
  UpdateBlockedTimes();
  return callbacks;
}

void Replay::UpdateBlockedTimes() {
  const absl::Time now = clock_->Now();
  insert_blocked_.Set(!waiting_appends_.empty(), now);
  sample_blocked_.Set(!waiting_samples_.empty(), now);
}

absl::StatusOr<Replay::Appended> Replay::InsertNow(const v1::Segment& segment) {
  // Once more: the same segment may have waited twice, on a stream that broke and on its successor.
  if (table_->IsDuplicate(segment)) {
    ++duplicate_segments_;
    duplicates_->Increment();
  } else {
    const int64_t rows_before = table_->counts().rows;
    POMPC_RETURN_IF_ERROR(table_->Append(segment));
    limiter_->Inserted(segment.num_rows() - (segment.ends_episode() ? 1 : 0));
    const TableCounts counts = table_->counts();
    inserts_->Increment(segment.num_rows());
    evictions_->Increment(rows_before + segment.num_rows() - counts.rows);
    rows_->Set(counts.rows);
    bytes_->Set(counts.bytes);
  }
  return Appended{.acknowledged_sequence = table_->LastSequence(segment.writer_id()),
                  .credits = config_.writer_credits(),
                  .table_id = table_id_};
}

Replay::Drawn Replay::DrawNow(int32_t batch_size, const WindowBuffers& out) {
  Rng rng(config_.seed(), RngRole::kReplaySampler, 0, limiter_->updates());
  std::vector<uint64_t> random(batch_size);
  for (uint64_t& word : random) word = rng.Uint64();
  table_->SampleWindows(random, out);
  limiter_->Sampled();
  batches_->Increment();
  windows_->Increment(batch_size);
  return {.newest_key = table_->newest_key(),
          .inserted_decisions = limiter_->decisions(),
          .sampled_batches = limiter_->updates()};
}

absl::StatusOr<v1::UpdateResponse> Replay::Update(const v1::UpdateRequest& request) {
  absl::MutexLock lock(&mu_);
  POMPC_RETURN_IF_ERROR(Ready());
  if (request.column_names_size() != request.columns_size() || request.columns().empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("columns: ", request.columns_size(), " for ", request.column_names_size(),
                     " column_names; must be as many, and at least 1"));
  }
  std::vector<ColumnRows> columns;
  for (int i = 0; i < request.columns_size(); ++i) {
    POMPC_ASSIGN_OR_RETURN(const int column, schema_->Find(request.column_names(i)));
    columns.push_back({.column = column, .data = request.columns(i)});
  }
  POMPC_ASSIGN_OR_RETURN(const int64_t updated, table_->Update(request.keys(), columns));
  const int64_t stale = request.keys_size() - updated;
  updated_rows_ += updated;
  stale_rows_ += stale;
  updated_->Increment(updated);
  stale_->Increment(stale);
  v1::UpdateResponse response;
  response.set_updated_rows(updated);
  response.set_stale_rows(stale);
  return response;
}

v1::InfoResponse Replay::Info() {
  absl::MutexLock lock(&mu_);
  v1::InfoResponse info;
  if (table_ == nullptr) return info;
  const TableCounts counts = table_->counts();
  *info.mutable_table() = config_;
  info.set_rows(counts.rows);
  info.set_bytes(counts.bytes);
  info.set_windows(counts.windows);
  info.set_capacity_rows(table_->capacity_rows());
  info.set_inserted_rows(counts.inserted_rows);
  info.set_inserted_decisions(counts.inserted_decisions);
  info.set_inserted_segments(counts.inserted_segments);
  info.set_finished_episodes(counts.finished_episodes);
  info.set_duplicate_segments(duplicate_segments_);
  info.set_sampled_batches(limiter_->updates());
  info.set_updated_rows(updated_rows_);
  info.set_stale_rows(stale_rows_);
  UpdateBlockedTimes();
  info.set_insert_blocked_seconds(absl::ToDoubleSeconds(insert_blocked_.total));
  info.set_sample_blocked_seconds(absl::ToDoubleSeconds(sample_blocked_.total));
  return info;
}

absl::StatusOr<Replay::Layout> Replay::layout() const {
  absl::MutexLock lock(&mu_);
  POMPC_RETURN_IF_ERROR(Ready());
  return Layout{.schema = schema_, .window_rows = table_->window_rows()};
}

absl::StatusOr<Replay::Appended> Replay::Greeting() const {
  absl::MutexLock lock(&mu_);
  POMPC_RETURN_IF_ERROR(Ready());
  return Appended{.credits = config_.writer_credits(), .table_id = table_id_};
}

Replay::Callbacks Replay::FailWaiting(const absl::Status& status) {
  Callbacks callbacks;
  for (auto& [ticket, append] : waiting_appends_) {
    callbacks.push_back([done = std::move(append.done), status] { done(status); });
  }
  for (auto& [ticket, sample] : waiting_samples_) {
    callbacks.push_back([done = std::move(sample.done), status] { done(status); });
  }
  waiting_appends_.clear();
  waiting_samples_.clear();
  UpdateBlockedTimes();
  return callbacks;
}

void Replay::Close() {
  Callbacks callbacks;
  {
    absl::MutexLock lock(&mu_);
    closed_ = true;
    callbacks = FailWaiting(absl::UnavailableError("replay is shutting down"));
  }
  Run(callbacks);
}

}  // namespace pompc
