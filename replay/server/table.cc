#include "replay/server/table.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/status_macros.h"

namespace pompc {
namespace {

// Far above what any run needs (a restarted actor is a new writer); they bound what a broken client
// can make the server remember.
constexpr size_t kMaxWriters = 1 << 20;
constexpr size_t kMaxOpenEpisodes = 1 << 22;

constexpr double kMaxPriorityExponent = 4;

// Uniform in [0, n) from a uniform 64-bit word. The bias, below n / 2^64, cannot be observed.
uint32_t Scale(uint64_t word, uint32_t n) {
  return static_cast<uint32_t>((static_cast<unsigned __int128>(word) * n) >> 64);
}

// In [0, 1), a multiple of 2^-53, from a uniform 64-bit word.
double ToUnit(uint64_t word) { return static_cast<double>(word >> 11) * 0x1p-53; }

}  // namespace

absl::StatusOr<std::unique_ptr<Table>> Table::Create(TableOptions options) {
  if (options.window_rows < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("window_rows: ", options.window_rows, "; must be at least 1"));
  }
  constexpr int64_t kMaxRows = kNoWindow;  // Record indices are 32 bits wide.
  if (options.capacity_rows < options.window_rows || options.capacity_rows > kMaxRows) {
    return absl::InvalidArgumentError(absl::StrCat("capacity_rows: ", options.capacity_rows,
                                                   "; must be window_rows = ", options.window_rows,
                                                   " to ", kMaxRows));
  }
  const double exponent = options.priority_exponent;
  if (!(exponent >= 0 && exponent <= kMaxPriorityExponent)) {
    return absl::InvalidArgumentError(
        absl::StrCat("priority_exponent: ", exponent, "; must be 0 to ", kMaxPriorityExponent));
  }
  const int64_t record_bytes = sizeof(RowHeader) + (options.schema.row_bytes() + 7) / 8 * 8;
  const int64_t row_bytes =
      record_bytes + sizeof(uint32_t) + (exponent > 0 ? 2 * sizeof(double) : 0);
  const int64_t capacity = std::min(options.capacity_rows, options.capacity_bytes / row_bytes);
  if (capacity < options.window_rows) {
    return absl::InvalidArgumentError(
        absl::StrCat("capacity_bytes: ", options.capacity_bytes, "; one window of ",
                     options.window_rows, " rows needs ", options.window_rows * row_bytes));
  }
  POMPC_ASSIGN_OR_RETURN(MappedMemory records, MappedMemory::Allocate(capacity * record_bytes));
  POMPC_ASSIGN_OR_RETURN(MappedMemory starts, MappedMemory::Allocate(capacity * sizeof(uint32_t)));
  std::optional<SumTree> weights;
  if (exponent > 0) {
    POMPC_ASSIGN_OR_RETURN(SumTree tree, SumTree::Create(capacity));
    weights.emplace(std::move(tree));
  }
  return std::unique_ptr<Table>(new Table(std::move(options), capacity, std::move(records),
                                          std::move(starts), std::move(weights)));
}

Table::Table(TableOptions options, int64_t capacity, MappedMemory records, MappedMemory starts,
             std::optional<SumTree> weights)
    : options_(std::move(options)),
      capacity_(capacity),
      record_bytes_(sizeof(RowHeader) + (options_.schema.row_bytes() + 7) / 8 * 8),
      records_(std::move(records)),
      starts_(std::move(starts)),
      weights_(std::move(weights)) {}

absl::Status Table::CheckSegment(const v1::Segment& segment) const {
  if (segment.writer_id() == 0) {
    return absl::InvalidArgumentError("segment.writer_id: 0; must be at least 1");
  }
  if (segment.sequence() == 0) {
    return absl::InvalidArgumentError("segment.sequence: 0; a writer's first segment is 1");
  }
  const int64_t rows = segment.num_rows();
  if (rows < 1 || rows > capacity_rows()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "segment.num_rows: ", rows, "; must be 1 to the capacity of ", capacity_rows(), " rows"));
  }
  const int num_columns = static_cast<int>(schema().columns().size());
  if (segment.columns_size() != num_columns) {
    return absl::InvalidArgumentError(absl::StrCat("segment.columns: ", segment.columns_size(),
                                                   " columns; the schema has ", num_columns));
  }
  for (int i = 0; i < num_columns; ++i) {
    const absl::Status status = schema().CheckRows(i, rows, segment.columns(i));
    if (!status.ok()) {
      return absl::InvalidArgumentError(absl::StrCat("segment ", status.message()));
    }
  }
  return absl::OkStatus();
}

uint64_t Table::LastSequence(uint64_t writer_id) const {
  const auto writer = writers_.find(writer_id);
  return writer == writers_.end() ? 0 : writer->second.last_sequence;
}

bool Table::IsDuplicate(const v1::Segment& segment) const {
  return segment.sequence() <= LastSequence(segment.writer_id());
}

absl::Status Table::CheckOrder(const v1::Segment& segment, size_t pending) const {
  const uint64_t last = LastSequence(segment.writer_id());
  if (segment.sequence() != last + 1) {
    return absl::FailedPreconditionError(
        absl::StrCat("segment.sequence: ", segment.sequence(), " of writer ", segment.writer_id(),
                     "; must be ", last + 1, ", the last one stored is ", last));
  }
  uint64_t expected_row = 0;
  bool known_episode = false;
  if (const auto writer = writers_.find(segment.writer_id()); writer != writers_.end()) {
    const auto episode = writer->second.episodes.find(segment.episode_id());
    known_episode = episode != writer->second.episodes.end();
    if (known_episode) expected_row = episode->second.rows;
  } else if (writers_.size() + pending >= kMaxWriters) {
    return absl::ResourceExhaustedError(
        absl::StrCat("segment.writer_id: already ", kMaxWriters, " writers"));
  }
  if (segment.first_row() != expected_row) {
    return absl::FailedPreconditionError(absl::StrCat(
        "segment.first_row: ", segment.first_row(), " of episode ", segment.episode_id(),
        " of writer ", segment.writer_id(), "; must be ", expected_row));
  }
  if (!known_episode && num_open_episodes_ + pending >= kMaxOpenEpisodes) {
    return absl::ResourceExhaustedError(
        absl::StrCat("segment.episode_id: already ", kMaxOpenEpisodes, " open episodes"));
  }
  return absl::OkStatus();
}

absl::Status Table::Append(const v1::Segment& segment) {
  POMPC_RETURN_IF_ERROR(CheckOrder(segment));
  Writer& writer = writers_[segment.writer_id()];
  const auto [episode, opened] = writer.episodes.try_emplace(segment.episode_id());
  if (opened) {
    episode->second.last_keys.resize(options_.window_rows);
    ++num_open_episodes_;
  }
  for (int64_t row = 0; row < segment.num_rows(); ++row) AppendRow(segment, row, episode->second);
  max_weight_ = std::max(max_weight_, segment.max_weight());
  writer.last_sequence = segment.sequence();
  ++counts_.inserted_segments;
  counts_.inserted_rows += segment.num_rows();
  counts_.inserted_decisions += segment.num_rows();
  if (segment.ends_episode()) {
    --counts_.inserted_decisions;
    ++counts_.finished_episodes;
    writer.episodes.erase(episode);
    --num_open_episodes_;
  }
  return absl::OkStatus();
}

void Table::AppendRow(const v1::Segment& segment, int64_t row, OpenEpisode& episode) {
  if (next_key_ - oldest_key_ == capacity_) EvictOldest();
  const uint64_t key = next_key_++;
  const uint64_t window_rows = options_.window_rows;

  char* record = Record(key);
  *Header(key) = {.next = 0, .start_index = kNoWindow};
  const std::vector<Schema::Column>& columns = schema().columns();
  for (size_t i = 0; i < columns.size(); ++i) {
    std::memcpy(record + sizeof(RowHeader) + columns[i].offset,
                segment.columns(i).data() + row * columns[i].row_bytes, columns[i].row_bytes);
  }

  if (episode.rows > 0) {
    const uint64_t previous = episode.last_keys[(episode.rows - 1) % window_rows];
    if (IsStored(previous)) Header(previous)->next = static_cast<uint32_t>(key - previous);
  }
  episode.last_keys[episode.rows % window_rows] = key;
  ++episode.rows;
  if (episode.rows < window_rows) return;
  // The row W - 1 before this one may be gone already, when the ring is small and others are fast.
  const uint64_t start = episode.last_keys[episode.rows % window_rows];
  if (!IsStored(start)) return;
  Header(start)->start_index = num_starts_;
  starts()[num_starts_++] = static_cast<uint32_t>(start % capacity_);
  if (!weights_.has_value()) return;
  const double weight = segment.has_max_weight() ? segment.max_weight() : max_weight_;
  weights_->Set(start % capacity_, weight > 0 ? weight : 1);
}

void Table::EvictOldest() {
  const uint32_t index = Header(oldest_key_)->start_index;
  const uint64_t record = oldest_key_ % capacity_;
  ++oldest_key_;
  if (index == kNoWindow) return;
  if (weights_.has_value()) weights_->Set(record, 0);
  const uint32_t moved = starts()[--num_starts_];
  starts()[index] = moved;
  Header(moved)->start_index = index;  // `moved` is a record, which is a key modulo capacity.
}

void Table::SampleWindows(absl::Span<const uint64_t> random, const WindowBuffers& out) const {
  POMPC_CHECK(num_windows() > 0 && out.columns.size() == schema().columns().size());
  const size_t batch = random.size();
  const size_t window_rows = options_.window_rows;
  const std::vector<Schema::Column>& columns = schema().columns();

  // Rows are random accesses, so each window's first lines are fetched while an earlier one is
  // copied.
  constexpr size_t kAhead = 4;
  std::vector<uint64_t> start(batch);
  for (size_t b = 0; b < batch; ++b) {
    if (!weights_.has_value()) {
      start[b] = starts()[Scale(random[b], num_starts_)];
      continue;
    }
    start[b] = weights_->Find(ToUnit(random[b]));
    const double weight = weights_->Get(start[b]);
    std::memcpy(out.weights + b * sizeof(weight), &weight, sizeof(weight));
  }
  for (size_t b = 0; b < batch; ++b) {
    if (b + kAhead < batch) {
      const char* ahead = Record(start[b + kAhead]);
      for (size_t line = 0; line < 4; ++line) __builtin_prefetch(ahead + 64 * line);
    }
    uint64_t record_index = start[b];
    for (size_t t = 0; t < window_rows; ++t) {
      const char* record = Record(record_index);
      const size_t at = t * batch + b;
      for (size_t i = 0; i < columns.size(); ++i) {
        std::memcpy(out.columns[i] + at * columns[i].row_bytes,
                    record + sizeof(RowHeader) + columns[i].offset, columns[i].row_bytes);
      }
      // Of the keys that share this record, the one that is stored now.
      const uint64_t behind = (newest_key() % capacity_ + capacity_ - record_index) % capacity_;
      const uint64_t key = newest_key() - behind;
      std::memcpy(out.keys + at * sizeof(key), &key, sizeof(key));
      record_index += Header(record_index)->next;
      if (record_index >= capacity_) record_index -= capacity_;
    }
  }
}

absl::StatusOr<int64_t> Table::Update(absl::Span<const uint64_t> keys,
                                      absl::Span<const ColumnRows> columns) {
  for (const ColumnRows& rows : columns) {
    POMPC_RETURN_IF_ERROR(schema().CheckRows(rows.column, keys.size(), rows.data));
  }
  int64_t updated = 0;
  for (size_t i = 0; i < keys.size(); ++i) {
    if (!IsStored(keys[i])) continue;
    for (const ColumnRows& rows : columns) {
      const Schema::Column& column = schema().columns()[rows.column];
      std::memcpy(Record(keys[i]) + sizeof(RowHeader) + column.offset,
                  rows.data.data() + i * column.row_bytes, column.row_bytes);
    }
    ++updated;
  }
  return updated;
}

v1::TableState Table::SaveState() const {
  v1::TableState state;
  state.set_oldest_key(oldest_key_);
  state.set_next_key(next_key_);
  state.set_inserted_decisions(counts_.inserted_decisions);
  state.set_inserted_segments(counts_.inserted_segments);
  state.set_finished_episodes(counts_.finished_episodes);
  for (const auto& [writer_id, writer] : writers_) {
    v1::TableState::Writer& saved = *state.add_writers();
    saved.set_writer_id(writer_id);
    saved.set_last_sequence(writer.last_sequence);
    for (const auto& [episode_id, episode] : writer.episodes) {
      v1::TableState::Episode& open = *saved.add_episodes();
      open.set_episode_id(episode_id);
      open.set_rows(episode.rows);
      open.mutable_last_keys()->Add(episode.last_keys.begin(), episode.last_keys.end());
    }
  }
  state.mutable_window_starts()->Add(starts(), starts() + num_starts_);
  if (weights_.has_value()) {
    for (const uint32_t start : state.window_starts()) {
      state.add_window_weights(weights_->Get(start));
    }
    state.set_max_weight(max_weight_);
  }
  return state;
}

absl::Status Table::RestoreState(const v1::TableState& state) {
  POMPC_CHECK(next_key_ == 1);
  const uint64_t rows = state.next_key() - state.oldest_key();
  if (state.oldest_key() < 1 || state.next_key() < state.oldest_key() || rows > capacity_ ||
      static_cast<uint64_t>(state.window_starts_size()) > rows ||
      state.window_weights_size() != (has_priorities() ? state.window_starts_size() : 0)) {
    return absl::DataLossError(
        absl::StrCat("rows ", state.oldest_key(), " to ", state.next_key(), " with ",
                     state.window_starts_size(), " windows and ", state.window_weights_size(),
                     " weights are no state of a table with a capacity of ", capacity_, " rows"));
  }
  oldest_key_ = state.oldest_key();
  next_key_ = state.next_key();
  counts_.inserted_rows = static_cast<int64_t>(next_key_ - 1);
  counts_.inserted_decisions = state.inserted_decisions();
  counts_.inserted_segments = state.inserted_segments();
  counts_.finished_episodes = state.finished_episodes();
  for (const v1::TableState::Writer& saved : state.writers()) {
    Writer& writer = writers_[saved.writer_id()];
    writer.last_sequence = saved.last_sequence();
    for (const v1::TableState::Episode& open : saved.episodes()) {
      if (open.last_keys_size() != options_.window_rows) {
        return absl::DataLossError(absl::StrCat("an episode with ", open.last_keys_size(),
                                                " last rows; windows have ", options_.window_rows));
      }
      writer.episodes[open.episode_id()] = {
          .rows = open.rows(), .last_keys = {open.last_keys().begin(), open.last_keys().end()}};
      ++num_open_episodes_;
    }
  }
  for (uint64_t key = oldest_key_; key < next_key_; ++key) {
    *Header(key) = {.next = 0, .start_index = kNoWindow};
  }
  for (const uint32_t start : state.window_starts()) {
    if (start >= capacity_) return absl::DataLossError(absl::StrCat("a window at record ", start));
    Header(start)->start_index = num_starts_;
    if (has_priorities()) {
      const double weight = state.window_weights(static_cast<int>(num_starts_));
      if (!std::isfinite(weight) || weight < 0) {
        return absl::DataLossError(absl::StrCat("a window of weight ", weight));
      }
      weights_->Set(start, weight);
    }
    starts()[num_starts_++] = start;
  }
  max_weight_ = state.max_weight();
  return absl::OkStatus();
}

int64_t Table::SetPriorities(absl::Span<const uint64_t> keys, absl::Span<const float> priorities) {
  POMPC_CHECK(weights_.has_value() && keys.size() == priorities.size());
  int64_t set = 0;
  for (size_t i = 0; i < keys.size(); ++i) {
    if (!StartsWindow(keys[i])) continue;
    const double weight = std::pow(static_cast<double>(priorities[i]), options_.priority_exponent);
    weights_->Set(keys[i] % capacity_, weight);
    max_weight_ = std::max(max_weight_, weight);
    ++set;
  }
  return set;
}

TableCounts Table::counts() const {
  TableCounts counts = counts_;
  counts.rows = next_key_ - oldest_key_;
  counts.windows = num_starts_;
  counts.bytes = counts.rows * record_bytes_ + counts.windows * sizeof(uint32_t);
  if (weights_.has_value()) counts.bytes += counts.rows * 2 * sizeof(double);
  return counts;
}

}  // namespace pompc
