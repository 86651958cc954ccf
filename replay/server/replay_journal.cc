// What a Replay has its journal write, and has back from it.
#include <algorithm>
#include <cstring>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/log.h"
#include "common/base/status_macros.h"
#include "replay/server/replay.h"

namespace pompc {
namespace {

// Marks of the journal while the ring turns once. More of them let go of old rows earlier, but each
// lists all writers and open episodes.
constexpr int64_t kMarksPerRing = 4;

// What stands for the priorities where the journal has a column's number.
constexpr int kPriorityColumn = std::numeric_limits<int>::max();

}  // namespace

absl::StatusOr<std::unique_ptr<Replay>> Replay::Restore(std::unique_ptr<Journal> journal,
                                                        Clock* clock, MetricsRegistry* metrics) {
  auto replay = std::make_unique<Replay>(clock, metrics);
  replay->journal_ = std::move(journal);
  if (replay->journal_->header().has_value()) {
    absl::MutexLock lock(&replay->mu_);
    POMPC_RETURN_IF_ERROR(replay->RestoreTable());
  }
  return replay;
}

absl::Status Replay::RestoreTable() {
  const absl::Time start = clock_->Now();
  const v1::JournalHeader& header = *journal_->header();
  POMPC_ASSIGN_OR_RETURN(Parts parts, MakeParts(header.table()));
  UseTable(header.table(), header.table_id(), std::move(parts));
  Table* const table = table_.get();
  uint64_t missing_until = 0;  // Key after the rows of which the journal has no content.
  Journal::Reader reader;
  reader.state = [&](const v1::TableState& state) {
    missing_until = state.next_key();
    return table->RestoreState(state);
  };
  reader.segment = [&](const v1::Segment& segment) {
    POMPC_RETURN_IF_ERROR(table->CheckSegment(segment));
    return table->Append(segment);
  };
  reader.update = [&](uint64_t key, uint64_t column, std::string_view data) {
    if (column == kPriorityColumn && table->has_priorities()) {
      float priority;
      if (data.size() != sizeof(priority)) {
        return absl::DataLossError(absl::StrCat("a priority of ", data.size(), " bytes"));
      }
      std::memcpy(&priority, data.data(), sizeof(priority));
      table->SetPriorities({key}, {priority});
      return absl::OkStatus();
    }
    if (column >= table->schema().columns().size()) {
      return absl::DataLossError(absl::StrCat("an update of column ", column));
    }
    const ColumnRows rows = {.column = static_cast<int>(column), .data = data};
    return table->Update({key}, {rows}).status();
  };
  absl::StatusOr<uint64_t> newest_mark = journal_->Read(reader);
  if (newest_mark.ok() && missing_until > 1 && table_->IsStored(missing_until - 1)) {
    newest_mark = absl::DataLossError("the newest rows are missing");
  }
  if (!newest_mark.ok()) {
    return absl::Status(newest_mark.status().code(),
                        absl::StrCat("cannot restore the journal in ", journal_->folder(), ": ",
                                     newest_mark.status().message()));
  }
  limiter_->Inserted(table_->counts().inserted_decisions);
  limiter_->SetUpdates(journal_->counters().sampled_batches());
  duplicate_segments_ = journal_->counters().duplicate_segments();
  updated_rows_ = journal_->counters().updated_rows();
  stale_rows_ = journal_->counters().stale_rows();
  next_mark_ = *newest_mark + MarkDistance();
  ShowSize();
  POMPC_LOG(INFO) << "restored from the journal folder=" << journal_->folder()
                  << " run_id=" << config_.run_id() << " rows=" << table_->counts().rows
                  << " inserted_rows=" << table_->counts().inserted_rows
                  << " seconds=" << absl::ToDoubleSeconds(clock_->Now() - start);
  return absl::OkStatus();
}

bool Replay::UsesJournal() const { return config_.journal() != v1::TableConfig::NONE; }

void Replay::StartJournaling(WaitingAppend append) {
  journaling_writers_.insert(append.segment.writer_id());
  journaling_decisions_ += Decisions(append.segment);
  v1::JournalCounters counters;
  counters.set_sampled_batches(limiter_->updates());
  counters.set_duplicate_segments(duplicate_segments_);
  counters.set_updated_rows(updated_rows_);
  counters.set_stale_rows(stale_rows_);
  if (table_->has_priorities()) append.segment.set_max_weight(table_->max_weight());
  journal_->Append(std::move(append.segment), counters,
                   [this, done = std::move(append.done)](const absl::Status& written,
                                                         const v1::Segment& segment) {
                     OnJournaled(written, segment, done);
                   });
}

void Replay::OnJournaled(const absl::Status& written, const v1::Segment& segment,
                         const AppendCallback& done) {
  Callbacks callbacks;
  {
    absl::MutexLock lock(&mu_);
    journaling_writers_.erase(segment.writer_id());
    journaling_decisions_ -= Decisions(segment);
    callbacks.push_back(
        [&done, result = written.ok() ? InsertNow(segment) : written] { done(result); });
    MarkIfDue();
    for (auto& callback : Dispatch()) callbacks.push_back(std::move(callback));
  }
  Run(callbacks);
}

uint64_t Replay::MarkDistance() const {
  return std::max<int64_t>(1, table_->capacity_rows() / kMarksPerRing);
}

void Replay::MarkIfDue() {
  if (table_->newest_key() + 1 < next_mark_) return;
  journal_->Mark(table_->SaveState());
  next_mark_ = table_->newest_key() + 1 + MarkDistance();
}

void Replay::JournalColumns(absl::Span<const uint64_t> keys, absl::Span<const ColumnRows> columns) {
  if (keys.empty()) return;
  for (const ColumnRows& rows : columns) {
    const size_t row_bytes = rows.data.size() / keys.size();
    std::vector<uint64_t> stored;
    std::string data;
    for (size_t i = 0; i < keys.size(); ++i) {
      if (!table_->IsStored(keys[i])) continue;
      stored.push_back(keys[i]);
      data.append(rows.data.substr(i * row_bytes, row_bytes));
    }
    journal_->Update(std::move(stored), static_cast<uint64_t>(rows.column), std::move(data));
  }
}

void Replay::JournalPriorities(const v1::UpdateRequest& request) {
  // A row without a window must have no priority when its window is there.
  std::vector<uint64_t> keys;
  std::string priorities;
  for (int i = 0; i < request.keys_size(); ++i) {
    if (!table_->StartsWindow(request.keys(i))) continue;
    keys.push_back(request.keys(i));
    const float priority = request.priorities(i);
    priorities.append(reinterpret_cast<const char*>(&priority), sizeof(priority));
  }
  journal_->Update(std::move(keys), kPriorityColumn, std::move(priorities));
}

absl::StatusOr<v1::CheckpointResponse> Replay::Checkpoint(const v1::CheckpointRequest& request) {
  POMPC_RETURN_IF_ERROR(CheckName("name", request.name()));
  {
    absl::MutexLock lock(&mu_);
    POMPC_RETURN_IF_ERROR(Ready());
    if (!UsesJournal()) {
      return absl::FailedPreconditionError(
          "journal: NONE; there is nothing to copy, set replay.journal to PROCESS or MACHINE");
    }
  }
  v1::CheckpointResponse response;
  response.set_folder(absl::StrCat(journal_->folder(), ".checkpoints/", request.name()));
  POMPC_RETURN_IF_ERROR(journal_->Checkpoint(response.folder()));
  return response;
}

}  // namespace pompc
