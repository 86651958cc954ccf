#include "replay/server/replay.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "common/base/rng.h"
#include "common/base/status_macros.h"
#include "google/protobuf/util/message_differencer.h"

namespace pompc {
namespace {

using google::protobuf::util::MessageDifferencer;

constexpr size_t kLongestName = 64;

}  // namespace

absl::Status CheckName(absl::string_view field, absl::string_view name) {
  if (!name.empty() && name.size() <= kLongestName &&
      std::all_of(name.begin(), name.end(),
                  [](char c) { return absl::ascii_isalnum(c) || c == '-' || c == '_'; })) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat(field, ": \"", absl::CHexEscape(name),
                                                 "\"; must be 1 to ", kLongestName,
                                                 " letters, digits, \"-\" and \"_\""));
}

void Replay::Run(Callbacks& callbacks) {
  for (std::function<void()>& callback : callbacks) callback();
}

int64_t Replay::Decisions(const v1::Segment& segment) {
  return segment.num_rows() - (segment.ends_episode() ? 1 : 0);
}

Replay::Replay(Clock* clock, MetricsRegistry* metrics)
    : clock_(clock),
      inserts_(metrics->GetCounter("pompc_replay_inserts_total")),
      evictions_(metrics->GetCounter("pompc_replay_evictions_total")),
      windows_(metrics->GetCounter("pompc_replay_samples_total")),
      batches_(metrics->GetCounter("pompc_replay_batches_total")),
      duplicates_(metrics->GetCounter("pompc_replay_duplicate_segments_total")),
      updated_(metrics->GetCounter("pompc_replay_updated_rows_total")),
      stale_(metrics->GetCounter("pompc_replay_stale_updates_total")),
      shown_{.rows_gauge = metrics->GetGauge("pompc_replay_items"),
             .bytes_gauge = metrics->GetGauge("pompc_replay_stored_bytes")},
      insert_blocked_{metrics->GetCounter("pompc_replay_blocked_seconds_total", "insert"), {}, {}},
      sample_blocked_{metrics->GetCounter("pompc_replay_blocked_seconds_total", "sample"), {}, {}} {
}

Replay::~Replay() { Close(); }

void Replay::ShownSize::Set(int64_t new_rows, int64_t new_bytes) {
  rows_gauge->Increment(static_cast<double>(new_rows - rows));
  bytes_gauge->Increment(static_cast<double>(new_bytes - bytes));
  rows = new_rows;
  bytes = new_bytes;
}

void Replay::BlockedTime::Set(bool blocked, absl::Time now) {
  if (since.has_value()) {
    total += now - *since;
    counter->Increment(absl::ToDoubleSeconds(now - *since));
  }
  since = blocked ? std::optional(now) : std::nullopt;
}

absl::StatusOr<Replay::Parts> Replay::MakeParts(const v1::TableConfig& config) {
  POMPC_ASSIGN_OR_RETURN(RateLimiter limiter, RateLimiter::Create(config.limits()));
  POMPC_ASSIGN_OR_RETURN(Schema schema, Schema::Create(config.schema()));
  POMPC_ASSIGN_OR_RETURN(std::unique_ptr<Table> table,
                         Table::Create({.schema = schema,
                                        .capacity_rows = config.capacity_rows(),
                                        .capacity_bytes = config.capacity_bytes(),
                                        .window_rows = config.window_rows(),
                                        .priority_exponent = config.priority_exponent()}));
  return Parts{std::make_shared<const Schema>(std::move(schema)), std::move(table), limiter};
}

void Replay::UseTable(const v1::TableConfig& config, uint64_t table_id, Parts parts) {
  config_ = config;
  table_id_ = table_id;
  schema_ = std::move(parts.schema);
  table_ = std::move(parts.table);
  limiter_ = parts.limiter;
  if (config.shards() > 0) limiter_->Grant(0);
  ShowSize();
}

void Replay::ShowSize() {
  const TableCounts counts = table_->counts();
  shown_.Set(counts.rows, counts.bytes);
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
  if (config.journal() != v1::TableConfig::NONE && journal_ == nullptr) {
    return absl::FailedPreconditionError(
        absl::StrCat("journal: ", v1::TableConfig::Journal_Name(config.journal()),
                     ", but this replay has no folder for a journal; start it with --journal DIR, "
                     "or set replay.journal=NONE"));
  }
  if (config.shards() < 0 || config.shards() > kMaxShards || config.shard() < 0 ||
      config.shard() >= std::max(1, config.shards())) {
    return absl::InvalidArgumentError(
        absl::StrCat("shard, shards: ", config.shard(), " of ", config.shards(),
                     "; must be below shards, which is at most ", kMaxShards));
  }
  Callbacks callbacks;
  {
    absl::MutexLock lock(&mu_);
    if (closed_) return absl::UnavailableError("replay is shutting down");
    std::string difference;
    MessageDifferencer differencer;
    differencer.ReportDifferencesToString(&difference);
    if (table_ == nullptr || !differencer.Compare(config_, config)) {
      if (table_ != nullptr &&
          (table_->counts().inserted_rows > 0 || !journaling_writers_.empty())) {
        return absl::FailedPreconditionError(absl::StrCat(
            "replay holds ", table_->counts().rows, " rows of run \"", config_.run_id(),
            "\" with another table; start an empty replay",
            journal_ == nullptr ? ""
                                : absl::StrCat(", without the journal in ", journal_->folder()),
            ", or use the same table: ",
            absl::StrReplaceAll(absl::StripTrailingAsciiWhitespace(difference), {{"\n", "; "}})));
      }
      POMPC_ASSIGN_OR_RETURN(Parts parts, MakeParts(config));
      const uint64_t table_id =
          std::max(table_id_ + 1, static_cast<uint64_t>(absl::ToUnixMicros(clock_->Now())));
      if (config.journal() != v1::TableConfig::NONE) {
        v1::JournalHeader header;
        *header.mutable_table() = config;
        header.set_table_id(table_id);
        POMPC_RETURN_IF_ERROR(journal_->Begin(header));
      }
      callbacks = FailWaiting(absl::UnavailableError("the table was configured anew"));
      UseTable(config, table_id, std::move(parts));
      next_mark_ = 1 + MarkDistance();  // The journal has put the first.
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
  segment.clear_max_weight();
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
    if (status.ok() && config_.shards() > 0) {
      status = absl::FailedPreconditionError(absl::StrCat("this table is one of ", config_.shards(),
                                                          " shards; draw from all of them"));
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
    if (CanInsert()) {
      WaitingAppend append = std::move(waiting_appends_.extract(waiting_appends_.begin()).mapped());
      if (UsesJournal() && !table_->IsDuplicate(append.segment)) {
        const absl::Status status = table_->CheckOrder(append.segment, journaling_writers_.size());
        if (status.ok()) {
          StartJournaling(std::move(append));
        } else {
          callbacks.push_back([done = std::move(append.done), status] { done(status); });
        }
      } else {
        callbacks.push_back(
            [done = std::move(append.done), result = InsertNow(append.segment)] { done(result); });
      }
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

bool Replay::CanInsert() const {
  if (waiting_appends_.empty()) return false;
  RateLimiter limiter = *limiter_;
  limiter.Inserted(journaling_decisions_);
  // Whether a writer's next segment is right is known when the one before is stored.
  return limiter.CanInsert(table_->num_windows() > 0) &&
         !journaling_writers_.contains(waiting_appends_.begin()->second.segment.writer_id());
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
    limiter_->Inserted(Decisions(segment));
    const TableCounts counts = table_->counts();
    inserts_->Increment(segment.num_rows());
    evictions_->Increment(rows_before + segment.num_rows() - counts.rows);
    ShowSize();
  }
  return Appended{.acknowledged_sequence = table_->LastSequence(segment.writer_id()),
                  .credits = config_.writer_credits(),
                  .table_id = table_id_};
}

Replay::Drawn Replay::CountsNow() const {
  return {.newest_key = table_->newest_key(),
          .inserted_decisions = limiter_->decisions(),
          .sampled_batches = limiter_->updates(),
          .stored_windows = table_->counts().windows,
          .total_weight = table_->has_priorities() ? table_->total_weight() : 0};
}

Replay::Drawn Replay::DrawNow(int32_t batch_size, const WindowBuffers& out) {
  Rng rng(config_.seed(), RngRole::kReplaySampler, config_.shard(), limiter_->updates());
  std::vector<uint64_t> random(batch_size);
  for (uint64_t& word : random) word = rng.Uint64();
  table_->SampleWindows(random, out);
  limiter_->Sampled();
  batches_->Increment();
  windows_->Increment(batch_size);
  return CountsNow();
}

absl::StatusOr<Replay::Drawn> Replay::Draw(const v1::DrawRequest& request, const Layout& layout,
                                           const WindowBuffers& out) {
  if (request.batch() < 0 || request.windows() < 0 || request.max_decisions() < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("batch, windows, max_decisions: ", request.batch(), ", ", request.windows(),
                     ", ", request.max_decisions(), "; each must be at least 0"));
  }
  absl::StatusOr<Drawn> drawn = absl::UnavailableError("no window is stored");
  Callbacks callbacks;
  {
    absl::MutexLock lock(&mu_);
    POMPC_RETURN_IF_ERROR(Ready());
    if (config_.shards() == 0) {
      return absl::FailedPreconditionError("this table is no shard; use Sample");
    }
    if (layout.schema != schema_) return absl::UnavailableError("the table was configured anew");
    limiter_->Grant(request.max_decisions());
    callbacks = Dispatch();
    limiter_->SetUpdates(request.batch());
    if (request.windows() == 0) {
      drawn = CountsNow();
    } else if (table_->num_windows() > 0) {
      drawn = DrawNow(request.windows(), out);
    }
  }
  Run(callbacks);
  return drawn;
}

absl::StatusOr<Replay::Drawn> Replay::Peek(const v1::PeekRequest& request, const Layout& layout,
                                           const WindowBuffers& out) {
  if (request.windows() < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("windows: ", request.windows(), "; must be at least 1"));
  }
  Rng rng(request.seed(), RngRole::kReplaySampler, 0, 0);
  std::vector<uint64_t> random(request.windows());
  for (uint64_t& word : random) word = rng.Uint64();
  absl::MutexLock lock(&mu_);
  POMPC_RETURN_IF_ERROR(Ready());
  if (layout.schema != schema_) return absl::UnavailableError("the table was configured anew");
  if (table_->num_windows() == 0) return absl::UnavailableError("no window is stored");
  table_->SampleWindows(random, out);
  return CountsNow();
}

absl::StatusOr<v1::UpdateResponse> Replay::Update(const v1::UpdateRequest& request) {
  absl::MutexLock lock(&mu_);
  POMPC_RETURN_IF_ERROR(Ready());
  int64_t updated = 0;
  if (request.priorities().empty()) {
    POMPC_ASSIGN_OR_RETURN(updated, UpdateColumns(request));
  } else {
    POMPC_ASSIGN_OR_RETURN(updated, UpdatePriorities(request));
  }
  v1::UpdateResponse response;
  response.set_updated_rows(updated);
  response.set_stale_rows(request.keys_size() - updated);
  return response;
}

absl::StatusOr<int64_t> Replay::UpdateColumns(const v1::UpdateRequest& request) {
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
  if (UsesJournal()) JournalColumns(request.keys(), columns);
  const int64_t stale = request.keys_size() - updated;
  updated_rows_ += updated;
  stale_rows_ += stale;
  updated_->Increment(updated);
  stale_->Increment(stale);
  return updated;
}

absl::StatusOr<int64_t> Replay::UpdatePriorities(const v1::UpdateRequest& request) {
  if (!table_->has_priorities()) {
    return absl::FailedPreconditionError("priorities: this table has none");
  }
  if (request.priorities_size() != request.keys_size() || !request.columns().empty()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "priorities: ", request.priorities_size(), " for ", request.keys_size(), " keys and ",
        request.columns_size(), " columns; must be as many as keys, without columns"));
  }
  for (int i = 0; i < request.priorities_size(); ++i) {
    const float priority = request.priorities(i);
    if (!std::isfinite(priority) || priority < 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("priorities[", i, "]: ", priority, "; must be finite and at least 0"));
    }
  }
  const int64_t updated = table_->SetPriorities(request.keys(), request.priorities());
  if (UsesJournal()) JournalPriorities(request);
  return updated;
}

v1::InfoResponse Replay::Info() {
  absl::MutexLock lock(&mu_);
  v1::InfoResponse info;
  if (table_ == nullptr) return info;
  const TableCounts counts = table_->counts();
  *info.mutable_table() = config_;
  info.set_table_id(table_id_);
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
  return Layout{.schema = schema_,
                .window_rows = table_->window_rows(),
                .has_priorities = table_->has_priorities()};
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
