// Replay: a table behind a rate limiter, shared by all the writers and samplers of a run.
//
// The same object serves remote peers through ReplayService (service.h) and, embedded in the
// learner's process, local ones (replay/client/local_sampler.h).
//
// A request that the rate limiter does not allow yet waits here, without a thread: its callback
// runs later, in the thread whose request changed the state. Requests of one side go in the order
// of their tickets. Each batch is drawn at the moment the limiter allows it, under the lock; so
// with limits that allow one side at a time the order of inserts and draws, and hence every batch,
// is reproducible.
//
// Journal. With one (journal.h), a segment that the limiter allows is written there first and
// stored when it is written; so all that is stored, drawn or acknowledged comes back after a crash,
// with the same keys, and draws go on as if nothing had happened. Written columns (Update) follow
// when they can. While a segment is being written, inserts are allowed or not as if it were stored,
// draws as if it were not.
//
// Thread-safety: thread-safe; one mutex guards table, limiter and waiting requests. It is held
// while a segment or a batch is copied (less than a millisecond), never while a callback runs, and
// while the journal writes only by a Configure() that begins a table.
// Errors: UNAVAILABLE before Configure() and after Close(); others per method. A refused request
// changes nothing.
// Determinism: batch n is drawn with the random stream (seed, kReplaySampler, shard, n).
#ifndef POMPC_REPLAY_SERVER_REPLAY_H_
#define POMPC_REPLAY_SERVER_REPLAY_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/base/clock.h"
#include "common/metrics/metrics.h"
#include "proto/pompc/v1/replay.pb.h"
#include "replay/server/journal.h"
#include "replay/server/rate_limiter.h"
#include "replay/server/table.h"

namespace pompc {

// Servers that may share a run's rows; client/shards.h finds room for so many in a key.
inline constexpr int kMaxShards = 256;

// What tables and copies of journals may be called: 1 to 64 letters, digits, "-" and "_".
// INVALID_ARGUMENT, beginning with `field`.
absl::Status CheckName(absl::string_view field, absl::string_view name);

class Replay {
 public:
  // Names one request, for Cancel().
  using Ticket = uint64_t;

  // Of a stored segment, or of one that was stored before.
  struct Appended {
    uint64_t acknowledged_sequence = 0;  // The writer's last stored segment.
    int64_t credits = 0;                 // TableConfig.writer_credits.
    uint64_t table_id = 0;               // AppendResponse.table_id.
  };
  // The state a batch was drawn from.
  struct Drawn {
    uint64_t newest_key = 0;
    int64_t inserted_decisions = 0;
    int64_t sampled_batches = 0;  // This one included.
    int64_t stored_windows = 0;
    double total_weight = 0;  // Of the stored windows; 0 without priorities.
  };
  // What a batch looks like.
  struct Layout {
    std::shared_ptr<const Schema> schema;
    int32_t window_rows = 0;
    bool has_priorities = false;  // WindowBuffers.weights is set.
  };
  using AppendCallback = std::function<void(absl::StatusOr<Appended>)>;
  using SampleCallback = std::function<void(absl::StatusOr<Drawn>)>;

  // Without a journal. `clock` measures blocked time. Both must outlive this.
  Replay(Clock* clock, MetricsRegistry* metrics);
  // With a journal, which it restores the table from, if there is one. Errors: those of
  // Journal::Read().
  static absl::StatusOr<std::unique_ptr<Replay>> Restore(std::unique_ptr<Journal> journal,
                                                         Clock* clock, MetricsRegistry* metrics);
  ~Replay();

  // Creates the table. The same config again keeps what is stored; a different one replaces an
  // empty table. INVALID_ARGUMENT, naming the field. FAILED_PRECONDITION: rows of a different
  // config are stored (says what differs), or it wants a journal and there is none. UNAVAILABLE:
  // the journal cannot be written.
  absl::Status Configure(const v1::ConfigureRequest& request);

  // ---- Requests that may wait. `done` runs exactly once, possibly before the call returns, unless
  // Cancel() returned true. It must not block; it may make further requests.

  Ticket NewTicket() { return next_ticket_.fetch_add(1, std::memory_order_relaxed); }

  // Stores `segment` as soon as the limiter allows it. A duplicate is answered at once. Errors: as
  // Table::CheckSegment() and Table::Append(); UNAVAILABLE: the journal cannot be written.
  void Append(Ticket ticket, v1::Segment segment, AppendCallback done);

  // Draws `batch_size` windows into `out`, whose memory must stay valid until `done` runs or
  // Cancel() returned true and must be laid out for `layout`. INVALID_ARGUMENT: batch_size < 1.
  // UNAVAILABLE: the table has another layout by now. FAILED_PRECONDITION: the table is a shard.
  void Sample(Ticket ticket, const Layout& layout, int32_t batch_size, WindowBuffers out,
              SampleCallback done);

  // Forgets a waiting request. False when there is none: its `done` has run, runs now, will run
  // when the journal has the segment, or the request has not been made.
  bool Cancel(Ticket ticket);

  // ---- Requests that do not wait.

  // Draws this server's part of a batch into `out`, as in Sample(), and grants it inserts.
  // INVALID_ARGUMENT: a field out of range. FAILED_PRECONDITION: the table is no shard. UNAVAILABLE
  // as well: no window is stored, or the table has another layout by now.
  absl::StatusOr<Drawn> Draw(const v1::DrawRequest& request, const Layout& layout,
                             const WindowBuffers& out);
  // Draws windows into `out`, as in Sample(), that count nowhere; from a shard, too.
  // INVALID_ARGUMENT: windows < 1. UNAVAILABLE: as Draw().
  absl::StatusOr<Drawn> Peek(const v1::PeekRequest& request, const Layout& layout,
                             const WindowBuffers& out);
  // Overwrites columns of stored rows, or sets priorities. INVALID_ARGUMENT, naming the field.
  // FAILED_PRECONDITION: the table has no priorities.
  absl::StatusOr<v1::UpdateResponse> Update(const v1::UpdateRequest& request);
  // Zero counts and no table before Configure().
  v1::InfoResponse Info();
  // Copies the journal to FOLDER.checkpoints/`name`, FOLDER being its own. Blocks for a part of a
  // second; requests go on. Errors: those of the Checkpoint RPC.
  absl::StatusOr<v1::CheckpointResponse> Checkpoint(const v1::CheckpointRequest& request);

  absl::StatusOr<Layout> layout() const;
  // What a writer is told before its first segment: acknowledged_sequence is 0.
  absl::StatusOr<Appended> Greeting() const;

  // Ends waiting requests with UNAVAILABLE and refuses new ones. What the journal has already is
  // still stored and answered. May be repeated.
  void Close();

 private:
  struct WaitingAppend {
    v1::Segment segment;
    AppendCallback done;
  };
  struct WaitingSample {
    int32_t batch_size;
    WindowBuffers out;
    SampleCallback done;
  };
  // Time during which a side has been waiting.
  struct BlockedTime {
    Counter* counter;  // Of seconds; what `total` says.
    absl::Duration total;
    std::optional<absl::Time> since;  // Up to which it is counted; unset while nobody waits.
    void Set(bool blocked, absl::Time now);
  };
  // What the gauges have of this table. They are shared with the other tables of the server, so it
  // takes its part back in the end.
  struct ShownSize {
    Gauge* rows_gauge;
    Gauge* bytes_gauge;
    int64_t rows = 0, bytes = 0;
    void Set(int64_t new_rows, int64_t new_bytes);
    ~ShownSize() { Set(0, 0); }
  };
  // What follows from a TableConfig.
  struct Parts {
    std::shared_ptr<const Schema> schema;
    std::unique_ptr<Table> table;
    std::optional<RateLimiter> limiter;
  };
  using Callbacks = std::vector<std::function<void()>>;

  static absl::StatusOr<Parts> MakeParts(const v1::TableConfig& config);
  static void Run(Callbacks& callbacks);
  static int64_t Decisions(const v1::Segment& segment);

  absl::Status Ready() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void ShowSize() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void UseTable(const v1::TableConfig& config, uint64_t table_id, Parts parts)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Serves waiting requests as far as the limiter allows. Returns what to call after unlocking.
  Callbacks Dispatch() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  bool CanInsert() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::StatusOr<Appended> InsertNow(const v1::Segment& segment) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  Drawn DrawNow(int32_t batch_size, const WindowBuffers& out) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // -> rows or windows that are still stored.
  absl::StatusOr<int64_t> UpdateColumns(const v1::UpdateRequest& request)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::StatusOr<int64_t> UpdatePriorities(const v1::UpdateRequest& request)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  Drawn CountsNow() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Ends all waiting requests with `status`. Returns what to call after unlocking.
  Callbacks FailWaiting(const absl::Status& status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void UpdateBlockedTimes() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  // ---- The journal (replay_journal.cc).

  absl::Status RestoreTable() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  bool UsesJournal() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Has a segment written, and then stored.
  void StartJournaling(WaitingAppend append) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void OnJournaled(const absl::Status& written, const v1::Segment& segment,
                   const AppendCallback& done);
  // Have what was written on stored rows written too.
  void JournalColumns(absl::Span<const uint64_t> keys, absl::Span<const ColumnRows> columns)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void JournalPriorities(const v1::UpdateRequest& request) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  uint64_t MarkDistance() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void MarkIfDue() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  Clock* const clock_;
  Counter* const inserts_;
  Counter* const evictions_;
  Counter* const windows_;
  Counter* const batches_;
  Counter* const duplicates_;
  Counter* const updated_;
  Counter* const stale_;
  std::atomic<Ticket> next_ticket_{1};

  mutable absl::Mutex mu_;
  bool closed_ ABSL_GUARDED_BY(mu_) = false;
  v1::TableConfig config_ ABSL_GUARDED_BY(mu_);
  std::shared_ptr<const Schema> schema_ ABSL_GUARDED_BY(mu_);
  std::unique_ptr<Table> table_ ABSL_GUARDED_BY(mu_);  // Null before Configure().
  // The time of its creation in microseconds, so that tables of different processes differ too.
  uint64_t table_id_ ABSL_GUARDED_BY(mu_) = 0;
  std::optional<RateLimiter> limiter_ ABSL_GUARDED_BY(mu_);
  ShownSize shown_ ABSL_GUARDED_BY(mu_);
  std::map<Ticket, WaitingAppend> waiting_appends_ ABSL_GUARDED_BY(mu_);
  std::map<Ticket, WaitingSample> waiting_samples_ ABSL_GUARDED_BY(mu_);
  int64_t duplicate_segments_ ABSL_GUARDED_BY(mu_) = 0;
  int64_t updated_rows_ ABSL_GUARDED_BY(mu_) = 0;
  int64_t stale_rows_ ABSL_GUARDED_BY(mu_) = 0;
  BlockedTime insert_blocked_ ABSL_GUARDED_BY(mu_);
  BlockedTime sample_blocked_ ABSL_GUARDED_BY(mu_);

  // Whose segments are with the journal, one of each writer, and the decisions in them.
  absl::flat_hash_set<uint64_t> journaling_writers_ ABSL_GUARDED_BY(mu_);
  int64_t journaling_decisions_ ABSL_GUARDED_BY(mu_) = 0;
  uint64_t next_mark_ ABSL_GUARDED_BY(mu_) = 0;  // Journal::Mark() is due at this key.
  // May be null. Constant after Restore(). Last, because it calls back, to store what it has
  // written, until it is destroyed.
  std::unique_ptr<Journal> journal_;
};

}  // namespace pompc

#endif  // POMPC_REPLAY_SERVER_REPLAY_H_
