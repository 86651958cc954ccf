// A table: rows of named columns in a preallocated ring, and the windows that can be drawn from it.
//
// Memory. One record per row: a link of 4 bytes, then the row's columns. A row has a key, the count
// of rows ever stored (from 1), and lives in the record key % capacity; so keys are never used
// again and a key tells whether its row is still stored. The ring is mapped but not touched in
// advance: a large capacity costs address space, not memory. When it is full the oldest row goes
// first.
//
//   key:      ...  41   42   43   44   45   46   47  ...      writers A and B, W = 3
//   row:           A3   A4   B0   B1   A5   B2   A6
//   next:          42   45   44   46   47   -    -            window starts: A3, A4, B0
//
// Windows. `window_rows` (W) rows of one episode, consecutive in it but not in the ring, because
// segments of several writers interleave: each row links to the next one of its episode. A window
// can be drawn as soon as its last row is stored. The bit of the record where it starts is then
// set; links point to newer rows only, so the eviction of a row ends just the window that starts at
// it. A draw takes rows at random until one starts a window, which is uniform over the windows and
// takes one or two tries whatever the capacity: all rows of an episode but the last W - 1 start
// one.
//
// Priorities. With an exponent > 0 each window has a weight, its priority to that power, in a sum
// tree (sum_tree.h) by the record where it starts, and draws are in proportion to the weights.
//
// Thread-safety: none; Replay (replay.h) guards it. Errors: a refused call changes nothing.
// Determinism: equal calls => bit-equal results.
#ifndef POMPC_REPLAY_SERVER_TABLE_H_
#define POMPC_REPLAY_SERVER_TABLE_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "proto/pompc/v1/journal.pb.h"
#include "proto/pompc/v1/replay.pb.h"
#include "replay/server/mapped_memory.h"
#include "replay/server/schema.h"
#include "replay/server/sum_tree.h"

namespace pompc {

struct TableOptions {
  Schema schema;
  // Whichever of the two is reached first. Bytes include the bookkeeping: 4.1 per row, with
  // priorities 20.1, and up to 3 to align it.
  int64_t capacity_rows = 0;     // >= window_rows, < 2^32.
  int64_t capacity_bytes = 0;    // >= window_rows rows.
  int32_t window_rows = 0;       // W = T + 1, >= 1.
  double priority_exponent = 0;  // 0 to 4; 0: no priorities.
};

// What a table has stored, ever or (rows, bytes, windows) now.
struct TableCounts {
  int64_t rows = 0;
  int64_t bytes = 0;
  int64_t windows = 0;
  int64_t inserted_rows = 0;
  int64_t inserted_decisions = 0;  // Rows but the last of every finished episode.
  int64_t inserted_segments = 0;
  int64_t finished_episodes = 0;
};

// Where SampleWindows() writes, owned by the caller.
struct WindowBuffers {
  std::vector<char*> columns;  // One per column: [W, B, shape...], contiguous.
  char* keys = nullptr;        // [W, B] uint64, little-endian, of any alignment.
  // [B] double, of any alignment: weight of each window. Null for a table without priorities.
  char* weights = nullptr;
};

// New content of one column, for Update().
struct ColumnRows {
  int column;             // Index in the schema.
  std::string_view data;  // One row per key, contiguous.
};

class Table {
 public:
  // INVALID_ARGUMENT, naming the option that is out of range.
  static absl::StatusOr<std::unique_ptr<Table>> Create(TableOptions options);

  // Whether a segment fits the schema and the capacity, whatever is stored. INVALID_ARGUMENT,
  // naming the field: an id or count out of range, wrong number or size of columns, a value that
  // is not finite.
  absl::Status CheckSegment(const v1::Segment& segment) const;

  // Whether a segment of this writer and sequence is stored (or was, before it was evicted).
  bool IsDuplicate(const v1::Segment& segment) const;

  // Whether a segment that CheckSegment() accepts and that is no duplicate can be stored.
  // FAILED_PRECONDITION: the sequence is not the writer's next, or first_row is not the episode's
  // next (say what is). RESOURCE_EXHAUSTED: too many writers or open episodes, were the `pending`
  // segments stored that others have had checked.
  absl::Status CheckOrder(const v1::Segment& segment, size_t pending = 0) const;

  // Stores a segment that CheckSegment() accepts and that is no duplicate. Its windows have the
  // weight segment.max_weight, if set, else max_weight(); or 1 for 0. Errors: those of
  // CheckOrder().
  absl::Status Append(const v1::Segment& segment);

  // The last sequence of this writer that is stored; 0 when there is none.
  uint64_t LastSequence(uint64_t writer_id) const;

  // Draws random.size() (B) windows with replacement, each from one uniform 64-bit word, and copies
  // them. Requires num_windows() > 0.
  void SampleWindows(absl::Span<const uint64_t> random, const WindowBuffers& out) const;

  // Overwrites columns of the rows that are still stored. Returns the number of rows written.
  // INVALID_ARGUMENT: as Schema::CheckRows().
  absl::StatusOr<int64_t> Update(absl::Span<const uint64_t> keys,
                                 absl::Span<const ColumnRows> columns);

  // Sets the priorities (finite, >= 0) of the windows that start at these rows and are still
  // stored. Returns the number of those. Requires has_priorities().
  int64_t SetPriorities(absl::Span<const uint64_t> keys, absl::Span<const float> priorities);

  // Everything but the content of the rows, the links between them and their windows.
  v1::TableState SaveState() const;

  // Puts a table to which nothing was appended into that state: it goes on as the saved one, but
  // its present rows hold zeros and start no windows, so windows may be drawn only when all of them
  // have been evicted.
  // DATA_LOSS: the state does not fit this table.
  absl::Status RestoreState(const v1::TableState& state);

  bool IsStored(uint64_t key) const { return key >= oldest_key_ && key < next_key_; }
  // Those that can be drawn: none while all priorities are 0.
  int64_t num_windows() const { return total_weight() > 0 ? num_starts_ : 0; }
  // Sum of the windows' weights; without priorities each has the weight 1.
  double total_weight() const { return weights_.has_value() ? weights_->total() : num_starts_; }
  bool has_priorities() const { return weights_.has_value(); }
  // Whether a window that is stored starts at this row.
  bool StartsWindow(uint64_t key) const {
    return IsStored(key) && (start_word(key % capacity_) & StartBit(key % capacity_)) != 0;
  }
  // The largest weight that SetPriorities() has set; 0: none yet.
  double max_weight() const { return max_weight_; }
  uint64_t newest_key() const { return next_key_ - 1; }
  int64_t capacity_rows() const { return capacity_; }
  const Schema& schema() const { return options_.schema; }
  int32_t window_rows() const { return options_.window_rows; }
  TableCounts counts() const;

 private:
  // Head of a record, the columns follow: keys to the next row of the episode; 0 while there is
  // none.
  using Link = uint32_t;

  // An episode that its writer has not ended.
  struct OpenEpisode {
    uint64_t rows = 0;
    std::vector<uint64_t> last_keys;  // Of the last W rows: row i is at [i % W].
  };
  struct Writer {
    uint64_t last_sequence = 0;
    absl::flat_hash_map<uint64_t, OpenEpisode> episodes;  // By episode_id.
  };

  Table(TableOptions options, int64_t capacity, MappedMemory records, MappedMemory starts,
        std::optional<SumTree> weights);

  // Bytes that so many rows take, bookkeeping included.
  static int64_t BytesOf(const TableOptions& options, int64_t rows);

  char* Record(uint64_t key) const { return records_.data() + (key % capacity_) * record_bytes_; }
  Link* LinkOf(uint64_t key) const { return reinterpret_cast<Link*>(Record(key)); }
  uint64_t& start_word(uint64_t record) const {
    return reinterpret_cast<uint64_t*>(starts_.data())[record / 64];
  }
  static uint64_t StartBit(uint64_t record) { return uint64_t{1} << (record % 64); }
  // Adds or removes the window that starts at a record.
  void AddWindow(uint64_t record, double weight);
  void RemoveWindow(uint64_t record);
  // The record where a window starts, each equally likely, from a uniform word. num_starts_ > 0.
  uint64_t DrawStart(uint64_t random) const;
  // Of the keys that share this record, the one that is stored now.
  uint64_t KeyOf(uint64_t record) const {
    const uint64_t newest = newest_key() % capacity_;
    return newest_key() - (newest - record + (record > newest ? capacity_ : 0));
  }
  void AppendRow(const v1::Segment& segment, int64_t row, OpenEpisode& episode);
  void EvictOldest();

  const TableOptions options_;
  const uint64_t capacity_;  // In rows.
  const int64_t record_bytes_;
  const MappedMemory records_;  // capacity_ records.
  const MappedMemory starts_;   // A bit for each record: whether a window starts there.
  uint32_t num_starts_ = 0;
  std::optional<SumTree> weights_;  // Of the windows, by the record where they start.
  double max_weight_ = 0;           // The largest that SetPriorities() has set.
  uint64_t oldest_key_ = 1;         // Stored rows are [oldest_key_, next_key_).
  uint64_t next_key_ = 1;
  TableCounts counts_;  // Only what counts since ever.
  size_t num_open_episodes_ = 0;
  absl::flat_hash_map<uint64_t, Writer> writers_;  // By writer_id.
};

}  // namespace pompc

#endif  // POMPC_REPLAY_SERVER_TABLE_H_
