#include "replay/server/journal.h"

#include <algorithm>
#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/log.h"
#include "common/base/status_macros.h"
#include "rocksdb/cache.h"
#include "rocksdb/convenience.h"
#include "rocksdb/db.h"
#include "rocksdb/options.h"
#include "rocksdb/table.h"
#include "rocksdb/utilities/checkpoint.h"
#include "rocksdb/write_batch.h"

namespace pompc {
namespace {

namespace fs = std::filesystem;

constexpr uint32_t kFormat = 1;
constexpr const char* kFamilyNames[] = {"default", "segments", "updates"};
constexpr std::string_view kHeaderKey = "header", kCountersKey = "counters", kMarkPrefix = "mark";

// What RocksDB keeps in memory before it writes a file, per family, and the length that its log may
// reach before it does.
constexpr size_t kWriteBufferBytes = 8 << 20;
constexpr uint64_t kMaxLogBytes = 32 << 20;
// Rows are read once, in order.
constexpr size_t kCacheBytes = 1 << 20;
// Beyond this the disk cannot follow, and new priors are less urgent than new rows.
constexpr size_t kMaxQueuedUpdateBytes = 64 << 20;
constexpr absl::Duration kMeasureEvery = absl::Seconds(1);

std::string BigEndian(uint64_t number) {
  std::string bytes(sizeof(number), '\0');
  for (size_t i = bytes.size(); i-- > 0; number >>= 8) bytes[i] = static_cast<char>(number);
  return bytes;
}

uint64_t ParseBigEndian(std::string_view bytes) {
  uint64_t number = 0;
  for (const char byte : bytes) number = number << 8 | static_cast<unsigned char>(byte);
  return number;
}

std::string MarkKey(uint64_t key) { return std::string(kMarkPrefix) + BigEndian(key); }

// Of a row and a column.
constexpr size_t kUpdateKeyBytes = 2 * sizeof(uint64_t);
std::string UpdateKey(uint64_t key, uint64_t column) { return BigEndian(key) + BigEndian(column); }

std::string_view View(const rocksdb::Slice& slice) { return {slice.data(), slice.size()}; }
rocksdb::Slice AsSlice(std::string_view view) { return {view.data(), view.size()}; }

absl::Status Damaged(const std::string& folder, const std::string& what) {
  return absl::DataLossError(
      absl::StrCat("the journal in ", folder, " is damaged: ", what,
                   "; put a copy of it (Checkpoint) in its place, or move the folder away to go on "
                   "without its rows"));
}

absl::Status Translate(const rocksdb::Status& status, const std::string& folder,
                       const char* doing) {
  if (status.ok()) return absl::OkStatus();
  if (status.IsCorruption()) return Damaged(folder, status.ToString());
  const std::string message =
      absl::StrCat("cannot ", doing, " the journal in ", folder, ": ", status.ToString());
  if (status.IsInvalidArgument()) {
    return absl::FailedPreconditionError(
        absl::StrCat(message, "; give a folder that holds a journal or nothing"));
  }
  return absl::UnavailableError(message);
}

rocksdb::DBOptions MakeDbOptions() {
  rocksdb::DBOptions options;
  options.create_if_missing = true;
  options.create_missing_column_families = true;
  options.wal_recovery_mode = rocksdb::WALRecoveryMode::kPointInTimeRecovery;
  options.max_total_wal_size = kMaxLogBytes;
  options.max_open_files = 256;
  options.max_background_jobs = 2;
  options.info_log_level = rocksdb::WARN_LEVEL;
  options.keep_log_file_num = 2;
  options.stats_dump_period_sec = 0;
  return options;
}

std::vector<rocksdb::ColumnFamilyDescriptor> MakeFamilies() {
  rocksdb::BlockBasedTableOptions table;
  table.block_cache = rocksdb::NewLRUCache(kCacheBytes);
  rocksdb::ColumnFamilyOptions options;
  options.write_buffer_size = kWriteBufferBytes;
  options.compression = rocksdb::kNoCompression;  // Floats that look like noise.
  options.table_factory.reset(rocksdb::NewBlockBasedTableFactory(table));
  std::vector<rocksdb::ColumnFamilyDescriptor> families;
  for (const char* name : kFamilyNames) families.emplace_back(name, options);
  return families;
}

}  // namespace

struct Journal::Database {
  static absl::StatusOr<std::unique_ptr<Database>> Open(const std::string& folder) {
    auto database = std::make_unique<Database>();
    rocksdb::DB* db = nullptr;
    std::vector<rocksdb::ColumnFamilyHandle*> families;
    POMPC_RETURN_IF_ERROR(
        Translate(rocksdb::DB::Open(MakeDbOptions(), folder, MakeFamilies(), &families, &db),
                  folder, "open"));
    database->db.reset(db);
    database->segments.reset(families[1]);
    database->updates.reset(families[2]);
    delete families[0];  // The default family needs no handle.
    return database;
  }

  std::unique_ptr<rocksdb::DB> db;
  std::unique_ptr<rocksdb::ColumnFamilyHandle> segments, updates;  // Go before db.
};

absl::StatusOr<std::unique_ptr<Journal>> Journal::Open(const std::string& folder, Clock* clock,
                                                       MetricsRegistry* metrics) {
  std::error_code error;
  fs::create_directories(folder, error);
  if (error) {
    return absl::UnavailableError(
        absl::StrCat("cannot create the journal's folder ", folder, ": ", error.message()));
  }
  POMPC_ASSIGN_OR_RETURN(std::unique_ptr<Database> database, Database::Open(folder));
  std::unique_ptr<Journal> journal(new Journal(folder, std::move(database), clock, metrics));
  POMPC_RETURN_IF_ERROR(journal->ReadHeader());
  return journal;
}

Journal::Journal(std::string folder, std::unique_ptr<Database> database, Clock* clock,
                 MetricsRegistry* metrics)
    : folder_(std::move(folder)),
      clock_(clock),
      bytes_(metrics->GetGauge("pompc_replay_journal_bytes")),
      disk_free_bytes_(metrics->GetGauge("pompc_replay_journal_disk_free_bytes")),
      disk_size_bytes_(metrics->GetGauge("pompc_replay_journal_disk_size_bytes")),
      queue_rows_(metrics->GetGauge("pompc_replay_journal_queue_rows")),
      write_duration_(metrics->GetHistogram("pompc_replay_journal_write_duration_seconds")),
      failures_(metrics->GetCounter("pompc_replay_journal_failures_total")),
      database_(std::move(database)) {
  MeasureDisk();
  thread_.emplace("replay-journal", [this] { Run(); });
}

Journal::~Journal() {
  absl::MutexLock lock(&mu_);
  closed_ = true;
}

absl::Status Journal::ReadHeader() {
  absl::MutexLock lock(&write_mu_);
  std::string value;
  const rocksdb::Status found = database_->db->Get({}, AsSlice(kHeaderKey), &value);
  if (found.IsNotFound()) return absl::OkStatus();
  POMPC_RETURN_IF_ERROR(Translate(found, folder_, "read"));
  v1::JournalHeader header;
  if (!header.ParseFromString(value)) return Damaged(folder_, "its header cannot be parsed");
  if (header.format() != kFormat) {
    return absl::FailedPreconditionError(absl::StrCat(
        "the journal in ", folder_, " has format ", header.format(), "; this version reads format ",
        kFormat, ": use the version that wrote it, or give another folder"));
  }
  const rocksdb::Status counted = database_->db->Get({}, AsSlice(kCountersKey), &value);
  if (!counted.IsNotFound()) {
    POMPC_RETURN_IF_ERROR(Translate(counted, folder_, "read"));
    if (!counters_.ParseFromString(value)) return Damaged(folder_, "its counters cannot be parsed");
  }
  header_ = std::move(header);
  return absl::OkStatus();
}

absl::StatusOr<uint64_t> Journal::Read(const Reader& reader) {
  POMPC_CHECK(header_.has_value());
  absl::MutexLock lock(&write_mu_);
  POMPC_RETURN_IF_ERROR(ReadMarks());
  if (marks_.empty()) return Damaged(folder_, "it has no mark");
  std::string value;
  POMPC_RETURN_IF_ERROR(
      Translate(database_->db->Get({}, MarkKey(marks_.front()), &value), folder_, "read"));
  v1::TableState state;
  if (!state.ParseFromString(value) || state.next_key() != marks_.front()) {
    return Damaged(folder_, "its oldest mark is none");
  }
  POMPC_RETURN_IF_ERROR(reader.state(state));
  POMPC_RETURN_IF_ERROR(ReadSegments(reader));
  POMPC_RETURN_IF_ERROR(ReadUpdates(reader));
  sync_segments_ = header_->table().journal() == v1::TableConfig::MACHINE;
  return marks_.back();
}

absl::Status Journal::ReadMarks() {
  const std::unique_ptr<rocksdb::Iterator> it(database_->db->NewIterator({}));
  for (it->Seek(AsSlice(kMarkPrefix)); it->Valid() && it->key().starts_with(AsSlice(kMarkPrefix));
       it->Next()) {
    marks_.push_back(ParseBigEndian(View(it->key()).substr(kMarkPrefix.size())));
  }
  return Translate(it->status(), folder_, "read");
}

absl::Status Journal::ReadSegments(const Reader& reader) {
  next_key_ = marks_.front();
  const std::unique_ptr<rocksdb::Iterator> it(
      database_->db->NewIterator({}, database_->segments.get()));
  v1::Segment segment;
  for (it->Seek(BigEndian(next_key_)); it->Valid(); it->Next()) {
    const uint64_t key = ParseBigEndian(View(it->key()));
    if (key != next_key_) {
      return Damaged(folder_, absl::StrCat("rows ", next_key_, " to ", key - 1, " are missing"));
    }
    if (!segment.ParseFromArray(it->value().data(), static_cast<int>(it->value().size()))) {
      return Damaged(folder_, absl::StrCat("the segment of row ", key, " cannot be parsed"));
    }
    POMPC_RETURN_IF_ERROR(reader.segment(segment));
    next_key_ += segment.num_rows();
  }
  POMPC_RETURN_IF_ERROR(Translate(it->status(), folder_, "read"));
  if (next_key_ < marks_.back()) {
    return Damaged(folder_,
                   absl::StrCat("rows ", next_key_, " to ", marks_.back() - 1, " are missing"));
  }
  return absl::OkStatus();
}

absl::Status Journal::ReadUpdates(const Reader& reader) {
  const std::string end = BigEndian(next_key_);
  const std::unique_ptr<rocksdb::Iterator> it(
      database_->db->NewIterator({}, database_->updates.get()));
  it->Seek(BigEndian(marks_.front()));
  for (; it->Valid() && View(it->key()) < end; it->Next()) {
    const std::string_view key = View(it->key());
    if (key.size() != kUpdateKeyBytes) return Damaged(folder_, "an update has no valid key");
    POMPC_RETURN_IF_ERROR(reader.update(ParseBigEndian(key.substr(0, sizeof(uint64_t))),
                                        ParseBigEndian(key.substr(sizeof(uint64_t))),
                                        View(it->value())));
  }
  POMPC_RETURN_IF_ERROR(Translate(it->status(), folder_, "read"));
  if (!it->Valid()) return absl::OkStatus();
  // Updates of rows that a torn log has lost: other rows will get their keys.
  return Translate(database_->db->DeleteRange({}, database_->updates.get(), end,
                                              std::string(kUpdateKeyBytes + 1, '\xff')),
                   folder_, "write");
}

absl::Status Journal::Begin(const v1::JournalHeader& header) {
  absl::MutexLock lock(&write_mu_);
  POMPC_CHECK(next_key_ == 1);
  POMPC_RETURN_IF_ERROR(Recover());
  v1::JournalHeader written = header;
  written.set_format(kFormat);
  v1::TableState empty;
  empty.set_oldest_key(1);
  empty.set_next_key(1);
  rocksdb::WriteBatch batch;
  batch.Put(AsSlice(kHeaderKey), written.SerializeAsString());
  batch.Put(MarkKey(1), empty.SerializeAsString());
  batch.Delete(AsSlice(kCountersKey));
  POMPC_RETURN_IF_ERROR(Commit(&batch, /*sync=*/true));
  marks_ = {1};
  sync_segments_ = header.table().journal() == v1::TableConfig::MACHINE;
  return absl::OkStatus();
}

void Journal::Append(v1::Segment segment, const v1::JournalCounters& counters, Done done) {
  queue_rows_->Increment(segment.num_rows());
  absl::MutexLock lock(&mu_);
  queue_.push_back(QueuedSegment{std::move(segment), counters, std::move(done)});
}

void Journal::Update(std::vector<uint64_t> keys, uint64_t column, std::string data) {
  if (keys.empty()) return;
  absl::MutexLock lock(&mu_);
  if (queued_update_bytes_ + data.size() > kMaxQueuedUpdateBytes) {
    failures_->Increment();
    return;
  }
  queued_update_bytes_ += data.size();
  queue_.push_back(QueuedUpdate{std::move(keys), column, std::move(data)});
}

void Journal::Mark(v1::TableState state) {
  absl::MutexLock lock(&mu_);
  queue_.push_back(std::move(state));
}

void Journal::Run() {
  while (true) {
    std::vector<Queued> queued;
    {
      absl::MutexLock lock(&mu_);
      const auto due = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
        return closed_ || !queue_.empty();
      };
      mu_.Await(absl::Condition(&due));
      if (queue_.empty()) return;
      queued.swap(queue_);
      queued_update_bytes_ = 0;
    }
    Write(std::move(queued));
  }
}

void Journal::Write(std::vector<Queued> queued) {
  const absl::Time start = clock_->Now();
  const absl::Status written = WriteBatch(queued);
  write_duration_->Observe(absl::ToDoubleSeconds(clock_->Now() - start));
  if (!written.ok()) {
    failures_->Increment();
    POMPC_LOG(ERROR) << "rows are not journaled status=" << written;
  }
  for (Queued& item : queued) {
    auto* const segment = std::get_if<QueuedSegment>(&item);
    if (segment == nullptr) continue;
    queue_rows_->Decrement(segment->segment.num_rows());
    segment->done(written, std::move(segment->segment));
  }
  MeasureDisk();
}

absl::Status Journal::WriteBatch(const std::vector<Queued>& queued) {
  absl::MutexLock lock(&write_mu_);
  POMPC_RETURN_IF_ERROR(Recover());
  rocksdb::WriteBatch batch;
  bool sync = false;
  uint64_t next_key = next_key_;
  std::deque<uint64_t> marks = marks_;
  const v1::JournalCounters* counters = nullptr;
  for (const Queued& item : queued) {
    if (const auto* segment = std::get_if<QueuedSegment>(&item)) {
      batch.Put(database_->segments.get(), BigEndian(next_key),
                segment->segment.SerializeAsString());
      next_key += segment->segment.num_rows();
      counters = &segment->counters;
      sync = sync || sync_segments_;
    } else if (const auto* update = std::get_if<QueuedUpdate>(&item)) {
      const size_t row_bytes = update->data.size() / update->keys.size();
      for (size_t i = 0; i < update->keys.size(); ++i) {
        batch.Put(database_->updates.get(), UpdateKey(update->keys[i], update->column),
                  rocksdb::Slice(update->data.data() + i * row_bytes, row_bytes));
      }
    } else {
      const auto& state = std::get<v1::TableState>(item);
      batch.Put(MarkKey(state.next_key()), state.SerializeAsString());
      marks.push_back(state.next_key());
      while (copies_ == 0 && marks.size() > 1 && marks[1] <= state.oldest_key()) {
        batch.Delete(MarkKey(marks.front()));
        marks.pop_front();
      }
    }
  }
  if (counters != nullptr) batch.Put(AsSlice(kCountersKey), counters->SerializeAsString());
  const std::string first = BigEndian(0), kept = BigEndian(marks.front());
  const bool drop = marks.front() != marks_.front();
  if (drop) {
    batch.DeleteRange(database_->updates.get(), first, kept);
    sync = true;  // Files are gone at once; their marks must be so too.
  }
  POMPC_RETURN_IF_ERROR(Commit(&batch, sync));
  next_key_ = next_key;
  marks_ = std::move(marks);
  if (!drop) return absl::OkStatus();
  // Keys grow, so whole files get old. What shares a file with a newer row goes with the next mark.
  const rocksdb::Slice begin = first, end = kept;
  const rocksdb::Status dropped = rocksdb::DeleteFilesInRange(
      database_->db.get(), database_->segments.get(), &begin, &end, /*include_end=*/false);
  if (!dropped.ok()) {
    failures_->Increment();
    POMPC_LOG(ERROR) << "old rows stay in the journal status=" << dropped.ToString();
  }
  return absl::OkStatus();
}

absl::Status Journal::Recover() {
  if (!failed_) return absl::OkStatus();
  if (copies_ > 0) {
    return absl::UnavailableError(
        absl::StrCat("the journal in ", folder_, " has failed and is being copied"));
  }
  database_.reset();
  POMPC_ASSIGN_OR_RETURN(database_, Database::Open(folder_));
  marks_.clear();
  POMPC_RETURN_IF_ERROR(ReadMarks());
  const std::unique_ptr<rocksdb::Iterator> it(
      database_->db->NewIterator({}, database_->segments.get()));
  rocksdb::WriteBatch left;
  for (it->Seek(BigEndian(next_key_)); it->Valid(); it->Next()) {
    left.Delete(database_->segments.get(), it->key());
  }
  POMPC_RETURN_IF_ERROR(Translate(it->status(), folder_, "read"));
  return Commit(&left, /*sync=*/true);
}

absl::Status Journal::Commit(rocksdb::WriteBatch* batch, bool sync) {
  rocksdb::WriteOptions options;
  options.sync = sync;
  const rocksdb::Status status = database_->db->Write(options, batch);
  failed_ = !status.ok();
  return Translate(status, folder_, "write");
}

absl::Status Journal::Checkpoint(const std::string& folder) {
  std::error_code error;
  if (fs::exists(folder, error)) return absl::AlreadyExistsError(absl::StrCat(folder, " exists"));
  fs::create_directories(fs::path(folder).parent_path(), error);
  rocksdb::DB* db;  // Stays while there is a copy being made.
  {
    absl::MutexLock lock(&write_mu_);
    POMPC_RETURN_IF_ERROR(Recover());
    db = database_->db.get();
    ++copies_;
  }
  rocksdb::Checkpoint* created = nullptr;
  rocksdb::Status status = rocksdb::Checkpoint::Create(db, &created);
  const std::unique_ptr<rocksdb::Checkpoint> checkpoint(created);
  if (status.ok()) status = checkpoint->CreateCheckpoint(folder);
  absl::MutexLock lock(&write_mu_);
  --copies_;
  return Translate(status, folder_, "copy");
}

void Journal::MeasureDisk() {
  if (clock_->Now() < next_measure_) return;
  next_measure_ = clock_->Now() + kMeasureEvery;
  uint64_t bytes = 0;
  std::error_code error;
  // RocksDB deletes files of its own accord: one may be gone before it is asked for its size.
  for (fs::directory_iterator file(folder_, error), end; !error && file != end;
       file.increment(error)) {
    std::error_code gone;
    const uint64_t size = file->file_size(gone);
    if (!gone) bytes += size;
  }
  const double measured = static_cast<double>(bytes);
  bytes_->Increment(measured - shown_bytes_);  // The gauge is the server's, of all its tables.
  shown_bytes_ = measured;
  const fs::space_info disk = fs::space(folder_, error);
  disk_free_bytes_->Set(static_cast<double>(disk.available));
  disk_size_bytes_->Set(static_cast<double>(disk.capacity));
}

}  // namespace pompc
