// The folder of a journal: torn, full, growing, copied, damaged or somebody else's.
#include <signal.h>
#include <sys/resource.h>

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/thread.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "replay/server/journal_testing.h"
#include "rocksdb/db.h"

namespace pompc {
namespace {

namespace fs = std::filesystem;

using ::pompc::testing::Append;
using ::pompc::testing::Counts;
using ::pompc::testing::Draw;
using ::pompc::testing::Journaled;
using ::pompc::testing::NewFolder;
using ::pompc::testing::Overwrite;
using ::pompc::testing::Process;
using ::pompc::testing::TestSegment;
using ::pompc::testing::TestTable;
using ::testing::HasSubstr;

std::string NewestLog(const std::string& folder) {
  std::string newest;
  for (const auto& file : fs::directory_iterator(folder)) {
    if (file.path().extension() == ".log") newest = std::max(newest, file.path().string());
  }
  return newest;
}

TEST(JournalFolderTest, ATornLogRestoresAllBeforeTheTear) {
  const std::string folder = NewFolder();
  constexpr int kSegments = 20;
  {
    Process process(folder, Journaled(TestTable(2, 1000)));
    for (int i = 0; i < kSegments; ++i) {
      ASSERT_TRUE(Append(*process.replay, TestSegment(1, i + 1, 1, 10 * i, 10)).ok());
    }
  }
  int64_t last = kSegments;
  for (const int torn_bytes : {0, 1, 100, 1000, 3000}) {
    const std::string copy = NewFolder();
    fs::create_directories(copy);
    fs::copy(folder, copy);
    const std::string log = NewestLog(copy);
    fs::resize_file(log, fs::file_size(log) - torn_bytes);
    Process process(copy);
    const int64_t segments = process.replay->Info().inserted_segments();
    EXPECT_EQ(process.replay->Info().inserted_rows(), 10 * segments);
    EXPECT_LE(segments, last);
    EXPECT_GE(segments, kSegments - 1 - torn_bytes / 300);  // Each has more than 300 bytes.
    EXPECT_EQ(segments == kSegments, torn_bytes == 0);
    ASSERT_TRUE(Append(*process.replay, TestSegment(1, segments + 1, 1, 10 * segments, 10)).ok());
    last = segments;
  }
}

// A full disk: no file of this process may grow beyond `bytes`.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) {
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &before_);
    const rlimit limit = {bytes, before_.rlim_max};
    setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~FileSizeLimit() { setrlimit(RLIMIT_FSIZE, &before_); }

 private:
  rlimit before_;
};

TEST(JournalFolderTest, AFullDiskIsToldAndGotOver) {
  const std::string folder = NewFolder();
  {
    Process process(folder, Journaled(TestTable(2, 1000)));
    ASSERT_TRUE(Append(*process.replay, TestSegment(1, 1, 1, 0, 10)).ok());
    const std::string before = Counts(*process.replay);
    {
      FileSizeLimit full(fs::file_size(NewestLog(folder)));
      for (int i = 0; i < 3; ++i) {
        const auto refused = Append(*process.replay, TestSegment(1, 2, 1, 10, 10));
        EXPECT_TRUE(absl::IsUnavailable(refused.status())) << refused.status();
        EXPECT_THAT(std::string(refused.status().message()),
                    HasSubstr(absl::StrCat("the journal in ", folder, ": IO error")));
      }
      EXPECT_EQ(Counts(*process.replay), before);
      Draw(*process.replay);  // Samples go on.
    }
    EXPECT_THAT(process.metrics.Text(), HasSubstr("pompc_replay_journal_failures_total 3"));
    ASSERT_TRUE(Append(*process.replay, TestSegment(2, 1, 1, 0, 10)).ok());
    ASSERT_TRUE(Append(*process.replay, TestSegment(1, 2, 1, 10, 10)).ok());
  }
  Process process(folder);
  EXPECT_EQ(process.replay->Info().inserted_segments(), 3);
}

uint64_t FolderBytes(const std::string& folder) {
  uint64_t bytes = 0;
  for (const auto& file : fs::directory_iterator(folder)) {
    std::error_code gone;
    const uint64_t size = file.file_size(gone);
    if (!gone) bytes += size;
  }
  return bytes;
}

TEST(JournalFolderTest, OldRowsLeaveTheDisk) {
  const std::string folder = NewFolder();
  constexpr int64_t kRowBytes = 16 << 10, kCapacity = 1000, kSegmentRows = 50;  // 16 MB.
  v1::TableConfig table = Journaled(TestTable(2, kCapacity));
  table.mutable_schema()->mutable_columns(0)->set_shape(0, kRowBytes / 8);
  const auto segment = [&](uint64_t sequence) {
    v1::Segment result = TestSegment(1, sequence, 1, (sequence - 1) * kSegmentRows, kSegmentRows);
    result.set_columns(0, std::string(kSegmentRows * kRowBytes, 'x'));
    return result;
  };
  uint64_t largest = 0, sequence = 0;
  {
    Process process(folder, table);
    while (process.replay->Info().inserted_rows() < 10 * kCapacity) {
      ASSERT_TRUE(Append(*process.replay, segment(++sequence)).ok());
      std::vector<uint64_t> keys;
      for (uint64_t i = 0; i < 100; ++i) keys.push_back(process.replay->Info().inserted_rows() - i);
      ASSERT_TRUE(Overwrite(*process.replay, keys, 1).ok());
      largest = std::max(largest, FolderBytes(folder));
    }
  }
  // The ring, half as much between marks, and what RocksDB keeps in logs and unsorted files.
  EXPECT_LT(largest, kCapacity * kRowBytes * 3 / 2 + (96 << 20));
  Process process(folder);
  EXPECT_EQ(process.replay->Info().rows(), kCapacity);
  EXPECT_EQ(process.replay->Info().inserted_segments(), sequence);
}

TEST(JournalFolderTest, ACopyHoldsWhatWasAcknowledgedBeforeWhileOthersGoOn) {
  const std::string folder = NewFolder();
  Process process(folder, Journaled(TestTable(4, 200)));
  constexpr int kBefore = 30, kCopies = 3;
  for (int i = 0; i < kBefore; ++i) {
    ASSERT_TRUE(Append(*process.replay, TestSegment(1, i + 1, 1, 10 * i, 10)).ok());
  }
  std::atomic<bool> stop = false;
  std::optional<Thread> writer;
  writer.emplace("writer", [&] {
    for (uint64_t i = 1; !stop; ++i) {
      POMPC_CHECK_OK(Append(*process.replay, TestSegment(2, i, 1, 10 * (i - 1), 10)).status());
    }
  });
  v1::CheckpointRequest request;
  int64_t acknowledged = 0;
  for (int copy = 0; copy < kCopies; ++copy) {
    acknowledged = process.replay->Info().inserted_segments();
    request.set_name(absl::StrCat("copy-", copy));
    const auto copied = process.replay->Checkpoint(request);
    ASSERT_TRUE(copied.ok()) << copied.status();
    EXPECT_EQ(copied->folder(), folder + ".checkpoints/" + request.name());
    Process restored(copied->folder());
    EXPECT_GE(restored.replay->Info().inserted_segments(), acknowledged);
    EXPECT_EQ(restored.replay->Info().rows(), 200);
    EXPECT_EQ(restored.replay->Greeting()->table_id, process.replay->Greeting()->table_id);
  }
  stop = true;
  writer.reset();
  EXPECT_TRUE(absl::IsAlreadyExists(process.replay->Checkpoint(request).status()));
  for (const char* name : {"", "a/b", "..", " "}) {
    request.set_name(name);
    EXPECT_TRUE(absl::IsInvalidArgument(process.replay->Checkpoint(request).status())) << name;
  }
}

// Why the journal in `folder` cannot be had again.
absl::Status Refusal(const std::string& folder) {
  FakeClock clock;
  MetricsRegistry metrics;
  auto journal = Journal::Open(folder, &clock, &metrics);
  if (!journal.ok()) return journal.status();
  return Replay::Restore(*std::move(journal), &clock, &metrics).status();
}

// Opens the database under a journal.
std::unique_ptr<rocksdb::DB> OpenDatabase(const std::string& folder) {
  std::vector<rocksdb::ColumnFamilyHandle*> handles;
  rocksdb::DB* db = nullptr;
  const rocksdb::Status opened = rocksdb::DB::Open(
      {}, folder, {{"default", {}}, {"segments", {}}, {"updates", {}}}, &handles, &db);
  POMPC_CHECK(opened.ok());
  for (rocksdb::ColumnFamilyHandle* handle : handles) db->DestroyColumnFamilyHandle(handle);
  return std::unique_ptr<rocksdb::DB>(db);
}

TEST(JournalFolderTest, SaysWhyItCannotBeReadAndWhatToDo) {
  const std::string folder = NewFolder();
  {
    Process process(folder, Journaled(TestTable(2, 100)));
    ASSERT_TRUE(Append(*process.replay, TestSegment(1, 1, 1, 0, 5)).ok());
    EXPECT_TRUE(absl::IsUnavailable(Refusal(folder))) << "opened twice";
  }
  const auto refusal = [&](const std::string& key, const std::string& value) {
    std::string before;
    POMPC_CHECK(OpenDatabase(folder)->Get({}, key, &before).ok());
    POMPC_CHECK(OpenDatabase(folder)->Put({}, key, value).ok());
    absl::Status refused = Refusal(folder);
    EXPECT_THAT(std::string(refused.message()), HasSubstr(folder));
    POMPC_CHECK(OpenDatabase(folder)->Put({}, key, before).ok());
    return refused;
  };
  v1::JournalHeader header;
  header.set_format(99);
  const absl::Status format = refusal("header", header.SerializeAsString());
  EXPECT_TRUE(absl::IsFailedPrecondition(format));
  EXPECT_THAT(std::string(format.message()), HasSubstr("has format 99; this version reads format"));
  const absl::Status damaged = refusal(std::string("mark\0\0\0\0\0\0\0\1", 12), "\xff");
  EXPECT_TRUE(absl::IsDataLoss(damaged));
  EXPECT_THAT(std::string(damaged.message()), HasSubstr("move the folder away"));
  // A mark after rows that are not there.
  v1::TableState late;
  late.set_oldest_key(3);
  late.set_next_key(9);
  const absl::Status gap =
      refusal(std::string("mark\0\0\0\0\0\0\0\1", 12), late.SerializeAsString());
  EXPECT_TRUE(absl::IsDataLoss(gap)) << gap;
  EXPECT_TRUE(Refusal(folder).ok());

  const std::string other = NewFolder();
  rocksdb::Options options;
  options.create_if_missing = true;
  rocksdb::DB* db = nullptr;
  ASSERT_TRUE(rocksdb::DB::Open(options, other, &db).ok());
  rocksdb::ColumnFamilyHandle* family = nullptr;
  ASSERT_TRUE(db->CreateColumnFamily({}, "something", &family).ok());
  db->DestroyColumnFamilyHandle(family);
  delete db;
  const absl::Status foreign = Refusal(other);
  EXPECT_TRUE(absl::IsFailedPrecondition(foreign)) << foreign;
  EXPECT_THAT(std::string(foreign.message()), HasSubstr("give a folder that holds a journal"));
}

}  // namespace
}  // namespace pompc
