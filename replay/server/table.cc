#include "replay/server/table.h"

#include <algorithm>
#include <bit>
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

// Rows that are tried for a window before the bits are searched through for one: enough unless few
// rows start one, so episodes are hardly longer than windows.
constexpr int kTries = 64;

int64_t RecordBytes(const Schema& schema) {
  constexpr int64_t kLinkBytes = sizeof(uint32_t);
  return (kLinkBytes + schema.row_bytes() + kLinkBytes - 1) / kLinkBytes * kLinkBytes;
}

// Of the bits, one for each row.
int64_t StartBytes(int64_t rows) { return (rows + 63) / 64 * 8; }

// Uniform in [0, n) from a uniform 64-bit word. The bias, below n / 2^64, cannot be observed.
uint32_t Scale(uint64_t word, uint32_t n) {
  return static_cast<uint32_t>((static_cast<unsigned __int128>(word) * n) >> 64);
}

// Another uniform word, from one: the finaliser of SplitMix64 (Steele, Lea, Flood, "Fast splittable
// pseudorandom number generators", OOPSLA 2014).
uint64_t NextWord(uint64_t word) {
  word += 0x9e3779b97f4a7c15;
  word = (word ^ (word >> 30)) * 0xbf58476d1ce4e5b9;
  word = (word ^ (word >> 27)) * 0x94d049bb133111eb;
  return word ^ (word >> 31);
}

// In [0, 1), a multiple of 2^-53, from a uniform 64-bit word.
double ToUnit(uint64_t word) { return static_cast<double>(word >> 11) * 0x1p-53; }

}  // namespace

absl::StatusOr<std::unique_ptr<Table>> Table::Create(TableOptions options) {
  if (options.window_rows < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("window_rows: ", options.window_rows, "; must be at least 1"));
  }
  constexpr int64_t kMaxRows = 0xffffffff;  // Links are 32 bits wide.
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
  constexpr int64_t kMany = 64;  // Rows, to have the bytes of one with its bits.
  int64_t capacity = std::min(options.capacity_rows,
                              static_cast<int64_t>(static_cast<__int128>(options.capacity_bytes) *
                                                   kMany / BytesOf(options, kMany)));
  while (capacity > 0 && BytesOf(options, capacity) > options.capacity_bytes) --capacity;
  if (capacity < options.window_rows) {
    return absl::InvalidArgumentError(
        absl::StrCat("capacity_bytes: ", options.capacity_bytes, "; one window of ",
                     options.window_rows, " rows needs ", BytesOf(options, options.window_rows)));
  }
  POMPC_ASSIGN_OR_RETURN(MappedMemory records,
                         MappedMemory::Allocate(capacity * RecordBytes(options.schema)));
  POMPC_ASSIGN_OR_RETURN(MappedMemory starts, MappedMemory::Allocate(StartBytes(capacity)));
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
      record_bytes_(RecordBytes(options_.schema)),
      records_(std::move(records)),
      starts_(std::move(starts)),
      weights_(std::move(weights)) {}

int64_t Table::BytesOf(const TableOptions& options, int64_t rows) {
  const int64_t row_bytes =
      RecordBytes(options.schema) + (options.priority_exponent > 0 ? SumTree::kLeafBytes : 0);
  return rows * row_bytes + StartBytes(rows);
}

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
  *LinkOf(key) = 0;
  const std::vector<Schema::Column>& columns = schema().columns();
  for (size_t i = 0; i < columns.size(); ++i) {
    std::memcpy(record + sizeof(Link) + columns[i].offset,
                segment.columns(i).data() + row * columns[i].row_bytes, columns[i].row_bytes);
  }

  if (episode.rows > 0) {
    const uint64_t previous = episode.last_keys[(episode.rows - 1) % window_rows];
    if (IsStored(previous)) *LinkOf(previous) = static_cast<Link>(key - previous);
  }
  episode.last_keys[episode.rows % window_rows] = key;
  ++episode.rows;
  if (episode.rows < window_rows) return;
  // The row W - 1 before this one may be gone already, when the ring is small and others are fast.
  const uint64_t start = episode.last_keys[episode.rows % window_rows];
  if (!IsStored(start)) return;
  const double weight = segment.has_max_weight() ? segment.max_weight() : max_weight_;
  AddWindow(start % capacity_, weight > 0 ? weight : 1);
}

void Table::AddWindow(uint64_t record, double weight) {
  start_word(record) |= StartBit(record);
  ++num_starts_;
  if (weights_.has_value()) weights_->Set(record, weight);
}

void Table::RemoveWindow(uint64_t record) {
  start_word(record) &= ~StartBit(record);
  --num_starts_;
  if (weights_.has_value()) weights_->Set(record, 0);
}

uint64_t Table::DrawStart(uint64_t random) const {
  const auto rows = static_cast<uint32_t>(next_key_ - oldest_key_);
  const uint64_t oldest_record = oldest_key_ % capacity_;
  for (int i = 0; i < kTries; ++i, random = NextWord(random)) {
    uint64_t record = oldest_record + Scale(random, rows);
    if (record >= capacity_) record -= capacity_;
    if ((start_word(record) & StartBit(record)) != 0) return record;
  }
  uint32_t rank = Scale(random, num_starts_);
  uint64_t record = 0;
  for (uint32_t count; rank >= (count = static_cast<uint32_t>(std::popcount(start_word(record))));
       record += 64) {
    rank -= count;
  }
  uint64_t word = start_word(record);
  for (; rank > 0; --rank) word &= word - 1;  // Clears the lowest bit that is set.
  return record + std::countr_zero(word);
}

void Table::EvictOldest() {
  if (StartsWindow(oldest_key_)) RemoveWindow(oldest_key_ % capacity_);
  ++oldest_key_;
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
      start[b] = DrawStart(random[b]);
      continue;
    }
    start[b] = weights_->Find(ToUnit(random[b]) * weights_->total());
    const double weight = weights_->Get(start[b]);
    std::memcpy(out.weights + b * sizeof(weight), &weight, sizeof(weight));
  }
  for (size_t b = 0; b < batch; ++b) {
    if (b + kAhead < batch) {
      const char* ahead = Record(start[b + kAhead]);
      for (size_t line = 0; line < 4; ++line) __builtin_prefetch(ahead + 64 * line);
    }
    uint64_t record_index = start[b];
    uint64_t key = KeyOf(record_index);
    for (size_t t = 0; t < window_rows; ++t) {
      const char* record = Record(record_index);
      const size_t at = t * batch + b;
      for (size_t i = 0; i < columns.size(); ++i) {
        std::memcpy(out.columns[i] + at * columns[i].row_bytes,
                    record + sizeof(Link) + columns[i].offset, columns[i].row_bytes);
      }
      std::memcpy(out.keys + at * sizeof(key), &key, sizeof(key));
      const Link next = *LinkOf(record_index);
      key += next;
      record_index += next;
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
      std::memcpy(Record(keys[i]) + sizeof(Link) + column.offset,
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
  state.set_max_weight(max_weight_);
  return state;
}

absl::Status Table::RestoreState(const v1::TableState& state) {
  POMPC_CHECK(next_key_ == 1);
  const uint64_t rows = state.next_key() - state.oldest_key();
  if (state.oldest_key() < 1 || state.next_key() < state.oldest_key() || rows > capacity_) {
    return absl::DataLossError(absl::StrCat("rows ", state.oldest_key(), " to ", state.next_key(),
                                            " are no state of a table with a capacity of ",
                                            capacity_, " rows"));
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
  for (uint64_t key = oldest_key_; key < next_key_; ++key) *LinkOf(key) = 0;
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
  counts.bytes = BytesOf(options_, counts.rows);
  return counts;
}

}  // namespace pompc
