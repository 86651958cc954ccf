// The journal: what a table has stored, on disk, so that it can be had again after the process or
// the machine has died.
//
// A RocksDB database in a folder of its own, with three column families; keys are big-endian, so
// that they sort by number, and values are messages of journal.proto or replay.proto:
//
//   family     key                       value
//   default    "header"                  JournalHeader: format, TableConfig, table_id
//              "counters"                JournalCounters, as of the last segment
//              "mark" + key of a row     TableState before that row was stored
//   segments   key of its first row      Segment, as it was sent
//   updates    key of a row + column     the column's newest content, if it was overwritten
//
// A table comes back by appending to the oldest mark's state the segments from there on, in order,
// and applying the updates. The first mark is the empty table. Later ones are what lets go of old
// rows: a mark is kept as long as a stored row is older than the next one, and the segments before
// the oldest mark are deleted, mostly as whole files. So the folder holds the ring, and up to two
// distances between marks beside it.
//
// Writing. One thread takes everything that is queued and writes it as one batch, atomically, with
// one sync if the table wants its rows to survive the machine (TableConfig.journal); then it calls
// back. So writers that wait at the same time share a sync. When a batch cannot be written all its
// writers are told, nothing of it stays, and the next one is tried again; hence rows have no gaps.
//
// Crashes. A log whose end is torn is read up to there, which is beyond everything that a writer
// was told of.
//
// Thread-safety: thread-safe, but for Read(). Errors: UNAVAILABLE: the disk is full, the folder
// cannot be written...; DATA_LOSS: what is on disk is damaged or incomplete; both name the folder.
#ifndef POMPC_REPLAY_SERVER_JOURNAL_H_
#define POMPC_REPLAY_SERVER_JOURNAL_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/base/clock.h"
#include "common/base/thread.h"
#include "common/metrics/metrics.h"
#include "proto/pompc/v1/journal.pb.h"
#include "proto/pompc/v1/replay.pb.h"

namespace rocksdb {
class WriteBatch;
}  // namespace rocksdb

namespace pompc {

class Journal {
 public:
  // Opens the journal in `folder`, which is created if missing. UNAVAILABLE: also when another
  // process has it open. FAILED_PRECONDITION: something else is there, or another format. `clock`
  // measures writes. Both must outlive this.
  static absl::StatusOr<std::unique_ptr<Journal>> Open(const std::string& folder, Clock* clock,
                                                       MetricsRegistry* metrics);
  // Writes what is queued and calls back, then closes.
  ~Journal();

  // ---- What is there. Before anything is written.

  // Of the table begun last; unset when there is none.
  const std::optional<v1::JournalHeader>& header() const { return header_; }
  const v1::JournalCounters& counters() const { return counters_; }

  // Takes the table, in this order.
  struct Reader {
    std::function<absl::Status(const v1::TableState&)> state;  // Once.
    std::function<absl::Status(const v1::Segment&)> segment;   // In order.
    std::function<absl::Status(uint64_t key, uint64_t column, std::string_view)> update;
  };
  // Requires a header. Blocks. Errors: the reader's as well. Returns the key of the newest mark.
  absl::StatusOr<uint64_t> Read(const Reader& reader);

  // ---- Writing.

  // Begins a table, whose first row has key 1, in place of one without rows. Blocks for a sync.
  absl::Status Begin(const v1::JournalHeader& header) ABSL_LOCKS_EXCLUDED(write_mu_);

  // Hands the segment back when it is written, or with the reason why it is not. Called in the
  // journal's thread, in the order of the Append() calls; must not block.
  using Done = std::function<void(absl::Status, v1::Segment)>;
  // Gives the segment's rows the next keys.
  void Append(v1::Segment segment, const v1::JournalCounters& counters, Done done);

  // New content of a column: one row per key, contiguous. Written soon; nobody is told. When too
  // much is queued already it is dropped: a restored row then has the content before.
  void Update(std::vector<uint64_t> keys, uint64_t column, std::string data);

  // Puts a mark, soon, and deletes what `state` says is no longer stored. All rows before
  // state.next_key must have been handed back.
  void Mark(v1::TableState state);

  // Makes a copy at `folder`, which must not exist but whose parent is created; files are linked
  // where they can be. Blocks until memory is flushed; others go on writing. ALREADY_EXISTS.
  absl::Status Checkpoint(const std::string& folder) ABSL_LOCKS_EXCLUDED(write_mu_);

  const std::string& folder() const { return folder_; }

 private:
  struct QueuedSegment {
    v1::Segment segment;
    v1::JournalCounters counters;
    Done done;
  };
  struct QueuedUpdate {
    std::vector<uint64_t> keys;
    uint64_t column;
    std::string data;
  };
  using Queued = std::variant<QueuedSegment, QueuedUpdate, v1::TableState>;
  struct Database;  // RocksDB's.

  Journal(std::string folder, std::unique_ptr<Database> database, Clock* clock,
          MetricsRegistry* metrics);

  absl::Status ReadHeader() ABSL_LOCKS_EXCLUDED(write_mu_);
  absl::Status ReadMarks() ABSL_EXCLUSIVE_LOCKS_REQUIRED(write_mu_);
  absl::Status ReadSegments(const Reader& reader) ABSL_EXCLUSIVE_LOCKS_REQUIRED(write_mu_);
  absl::Status ReadUpdates(const Reader& reader) ABSL_EXCLUSIVE_LOCKS_REQUIRED(write_mu_);

  // The thread: writes what is queued until closed.
  void Run();
  // One batch, with the callbacks.
  void Write(std::vector<Queued> queued) ABSL_LOCKS_EXCLUDED(mu_, write_mu_);
  absl::Status WriteBatch(const std::vector<Queued>& queued) ABSL_LOCKS_EXCLUDED(write_mu_);
  // After a failure opens the database anew, which RocksDB wants after most of them, and removes
  // what the failed batch may have left.
  absl::Status Recover() ABSL_EXCLUSIVE_LOCKS_REQUIRED(write_mu_);
  absl::Status Commit(rocksdb::WriteBatch* batch, bool sync)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(write_mu_);
  void MeasureDisk();

  const std::string folder_;
  Clock* const clock_;
  Gauge* const bytes_;
  Gauge* const disk_free_bytes_;
  Gauge* const disk_size_bytes_;
  Gauge* const queue_rows_;
  Histogram* const write_duration_;
  Counter* const failures_;
  std::optional<v1::JournalHeader> header_;
  v1::JournalCounters counters_;
  absl::Time next_measure_ = absl::InfinitePast();  // The thread's.
  double shown_bytes_ = 0;                          // The thread's: this journal's part of bytes_.

  // Guards the database's content; held while it is written and synced. Before mu_.
  absl::Mutex write_mu_;
  std::unique_ptr<Database> database_
      ABSL_GUARDED_BY(write_mu_);  // Null: could not be opened anew.
  bool sync_segments_ ABSL_GUARDED_BY(write_mu_) = false;
  uint64_t next_key_ ABSL_GUARDED_BY(write_mu_) = 1;
  std::deque<uint64_t> marks_ ABSL_GUARDED_BY(write_mu_);  // Oldest first.
  bool failed_ ABSL_GUARDED_BY(write_mu_) = false;         // The last batch.
  int copies_ ABSL_GUARDED_BY(write_mu_) = 0;  // Being made; no row is deleted meanwhile.

  // Guards the queue.
  absl::Mutex mu_;
  bool closed_ ABSL_GUARDED_BY(mu_) = false;
  std::vector<Queued> queue_ ABSL_GUARDED_BY(mu_);
  size_t queued_update_bytes_ ABSL_GUARDED_BY(mu_) = 0;

  std::optional<Thread> thread_;  // Last, so that it starts when all else is there.
};

}  // namespace pompc

#endif  // POMPC_REPLAY_SERVER_JOURNAL_H_
