// What comes back from a journal: through Replay, since that is what decides what is written when.
#include "replay/server/journal.h"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <map>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/rng.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "replay/server/replay.h"
#include "replay/server/testing.h"
#include "rocksdb/db.h"

namespace {
std::atomic<int> syncs = 0;
}  // namespace

// RocksDB syncs its log with this; the program's own comes before the C library's.
extern "C" int fdatasync(int descriptor) {
  ++syncs;
  return static_cast<int>(syscall(SYS_fdatasync, descriptor));
}

namespace pompc {
namespace {

namespace fs = std::filesystem;

using ::pompc::testing::TestSegment;
using ::pompc::testing::TestTable;
using ::testing::HasSubstr;

constexpr int kBatch = 16;

// A folder of its own for a journal; removed when the program ends.
std::string NewFolder() {
  static struct Created {
    ~Created() {
      std::error_code ignored;
      for (const std::string& name : names) fs::remove_all(name, ignored);
    }
    std::vector<std::string> names;
  } created;
  std::string name = ::testing::TempDir() + "/journal-XXXXXX";
  POMPC_CHECK(mkdtemp(name.data()) != nullptr);
  created.names.push_back(name);
  return name + "/journal";
}

v1::TableConfig Journaled(v1::TableConfig table,
                          v1::TableConfig::Journal journal = v1::TableConfig::PROCESS) {
  table.set_journal(journal);
  return table;
}

absl::Status Configure(Replay& replay, const v1::TableConfig& table,
                       std::optional<int64_t> updates_done = std::nullopt) {
  v1::ConfigureRequest request;
  *request.mutable_table() = table;
  if (updates_done.has_value()) request.set_updates_done(*updates_done);
  return replay.Configure(request);
}

// A replay over the journal in a folder, as one process would have it.
struct Process {
  explicit Process(const std::string& folder) {
    auto journal = Journal::Open(folder, &clock, &metrics);
    POMPC_CHECK_OK(journal.status());
    auto restored = Replay::Restore(*std::move(journal), &clock, &metrics);
    POMPC_CHECK_OK(restored.status());
    replay = *std::move(restored);
  }
  Process(const std::string& folder, const v1::TableConfig& table) : Process(folder) {
    POMPC_CHECK_OK(Configure(*replay, table));
  }

  FakeClock clock;
  MetricsRegistry metrics;
  std::unique_ptr<Replay> replay;
};

// Why the journal in `folder` cannot be had again.
absl::Status Refusal(const std::string& folder) {
  FakeClock clock;
  MetricsRegistry metrics;
  auto journal = Journal::Open(folder, &clock, &metrics);
  if (!journal.ok()) return journal.status();
  return Replay::Restore(*std::move(journal), &clock, &metrics).status();
}

absl::StatusOr<Replay::Appended> Append(Replay& replay, v1::Segment segment) {
  Event done;
  absl::StatusOr<Replay::Appended> answer = absl::UnknownError("pending");
  replay.Append(replay.NewTicket(), std::move(segment),
                [&](absl::StatusOr<Replay::Appended> appended) {
                  answer = std::move(appended);
                  done.Notify();
                });
  done.Wait();
  return answer;
}

struct Batch {
  explicit Batch(const Replay::Layout& layout) {
    const size_t rows = layout.window_rows * kBatch;
    ids.resize(rows * layout.schema->columns()[0].row_bytes);
    priors.resize(rows * layout.schema->columns()[1].row_bytes);
    keys.resize(rows * sizeof(uint64_t));
    weights.resize(kBatch * sizeof(double));
  }
  WindowBuffers buffers() {
    return {.columns = {ids.data(), priors.data()}, .keys = keys.data(), .weights = weights.data()};
  }
  bool operator==(const Batch&) const = default;

  std::string ids, priors, keys, weights;
};

Batch Draw(Replay& replay) {
  const Replay::Layout layout = *replay.layout();
  Batch batch(layout);
  absl::Status status = absl::UnknownError("waits");
  replay.Sample(replay.NewTicket(), layout, kBatch, batch.buffers(),
                [&](const absl::StatusOr<Replay::Drawn>& drawn) { status = drawn.status(); });
  POMPC_CHECK_OK(status);
  return batch;
}

absl::Status Overwrite(Replay& replay, const std::vector<uint64_t>& keys, float value) {
  v1::UpdateRequest request;
  request.mutable_keys()->Add(keys.begin(), keys.end());
  request.add_column_names("prior");
  std::string& data = *request.add_columns();
  for (size_t i = 0; i < keys.size() * testing::kPriorFloats; ++i) {
    data.append(reinterpret_cast<const char*>(&value), sizeof(value));
  }
  return replay.Update(request).status();
}

absl::Status Prioritise(Replay& replay, const std::vector<uint64_t>& keys, float priority) {
  v1::UpdateRequest request;
  request.mutable_keys()->Add(keys.begin(), keys.end());
  for (size_t i = 0; i < keys.size(); ++i) {
    request.add_priorities(priority * static_cast<float>(i + 1));
  }
  return replay.Update(request).status();
}

// What a restart must not change.
std::string Counts(Replay& replay) {
  v1::InfoResponse info = replay.Info();
  info.clear_table();
  info.clear_insert_blocked_seconds();
  info.clear_sample_blocked_seconds();
  return info.ShortDebugString();
}

class JournalModeTest : public ::testing::TestWithParam<v1::TableConfig::Journal> {};

// Writers with two episodes each interleave through a small ring, many times round, while rows are
// drawn and overwritten. One replay is restarted now and then, the other one never.
void ExpectRestartsChangeNeitherCountsNorDraws(const v1::TableConfig& table,
                                               v1::TableConfig::Journal journal) {
  const std::string folder = NewFolder();
  const v1::TableConfig journaled = Journaled(table, journal);
  FakeClock clock;
  MetricsRegistry metrics;
  Replay steady(&clock, &metrics);
  ASSERT_TRUE(Configure(steady, table).ok());
  auto process = std::make_unique<Process>(folder, journaled);
  const uint64_t table_id = process->replay->Greeting()->table_id;

  Rng rng(7, RngRole::kTest, 0, 0);
  struct Source {
    uint64_t writer, episode, rows;
  };
  std::vector<Source> sources = {{1, 1, 0}, {1, 2, 0}, {2, 1, 0}, {2, 2, 0}, {3, 1, 0}};
  std::map<uint64_t, v1::Segment> last;  // By writer.
  int64_t updates = 0;
  for (int step = 0; step < 300; ++step) {
    Source& source = sources[rng.UniformInt(sources.size())];
    v1::Segment& segment = last[source.writer];
    const bool ends = rng.UniformInt(6) == 0;
    segment = TestSegment(source.writer, segment.sequence() + 1, source.episode, source.rows,
                          1 + static_cast<int64_t>(rng.UniformInt(7)), ends);
    source.rows += segment.num_rows();
    if (ends) source = {source.writer, source.episode + 10, 0};
    ASSERT_TRUE(Append(steady, segment).ok());
    ASSERT_TRUE(Append(*process->replay, segment).ok());
    if (steady.Info().windows() > 0 && rng.UniformInt(3) == 0) {
      ASSERT_EQ(Draw(steady), Draw(*process->replay)) << "step " << step;
      ++updates;
    }
    if (rng.UniformInt(3) == 0) {
      std::vector<uint64_t> keys;
      for (int i = 0; i < 5; ++i) {
        keys.push_back(1 + rng.UniformInt(static_cast<uint64_t>(steady.Info().inserted_rows())));
      }
      ASSERT_TRUE(Overwrite(steady, keys, static_cast<float>(step)).ok());
      ASSERT_TRUE(Overwrite(*process->replay, keys, static_cast<float>(step)).ok());
      if (table.priority_exponent() > 0) {
        const auto priority = static_cast<float>(rng.UniformInt(1 + step));
        ASSERT_TRUE(Prioritise(steady, keys, priority).ok());
        ASSERT_TRUE(Prioritise(*process->replay, keys, priority).ok());
      }
    }
    if (rng.UniformInt(20) != 0) continue;
    // What was not followed by a segment is not in the journal: counters, and no priors by chance.
    const v1::Segment& repeated = last.begin()->second;
    ASSERT_TRUE(Append(steady, repeated).ok());
    process.reset();
    process = std::make_unique<Process>(folder);
    ASSERT_EQ(process->replay->Greeting()->table_id, table_id);
    ASSERT_TRUE(Configure(*process->replay, journaled, updates).ok());
    const auto again = Append(*process->replay, repeated);
    ASSERT_TRUE(again.ok()) << again.status();
    EXPECT_EQ(again->acknowledged_sequence, repeated.sequence());
    v1::InfoResponse before = steady.Info(), after = process->replay->Info();
    EXPECT_EQ(after.rows(), before.rows());
    EXPECT_EQ(after.bytes(), before.bytes());
    EXPECT_EQ(after.windows(), before.windows());
    EXPECT_EQ(after.inserted_rows(), before.inserted_rows());
    EXPECT_EQ(after.inserted_decisions(), before.inserted_decisions());
    EXPECT_EQ(after.inserted_segments(), before.inserted_segments());
    EXPECT_EQ(after.finished_episodes(), before.finished_episodes());
    EXPECT_EQ(after.sampled_batches(), before.sampled_batches());
    if (before.windows() > 0) {
      ASSERT_EQ(Draw(steady), Draw(*process->replay)) << "after a restart at step " << step;
      ++updates;
    }
  }
  EXPECT_GT(steady.Info().inserted_rows(), 10 * 61);
}

TEST_P(JournalModeTest, ChangesNeitherCountsNorDraws) {
  ExpectRestartsChangeNeitherCountsNorDraws(TestTable(4, 61), GetParam());
}

TEST_P(JournalModeTest, ChangesNeitherCountsNorDrawsByPriority) {
  v1::TableConfig table = TestTable(4, 61);
  table.set_priority_exponent(0.6);
  ExpectRestartsChangeNeitherCountsNorDraws(table, GetParam());
}

INSTANTIATE_TEST_SUITE_P(Modes, JournalModeTest,
                         ::testing::Values(v1::TableConfig::PROCESS, v1::TableConfig::MACHINE),
                         [](const auto& info) {
                           return v1::TableConfig::Journal_Name(info.param);
                         });

TEST(JournalTest, RestoresCountsThatDoNotFollowFromRows) {
  const std::string folder = NewFolder();
  std::string before;
  {
    Process process(folder, Journaled(TestTable(2, 100)));
    const v1::Segment first = TestSegment(1, 1, 1, 0, 5);
    ASSERT_TRUE(Append(*process.replay, first).ok());
    ASSERT_TRUE(Append(*process.replay, first).ok());
    Draw(*process.replay);
    ASSERT_TRUE(Overwrite(*process.replay, {1, 2, 99}, 7).ok());
    ASSERT_TRUE(Append(*process.replay, TestSegment(1, 2, 1, 5, 5, true)).ok());
    before = Counts(*process.replay);
    EXPECT_THAT(before, HasSubstr("duplicate_segments: 1"));
  }
  Process process(folder);
  EXPECT_EQ(Counts(*process.replay), before);
}

TEST(JournalTest, ATableWithoutRowsIsRestoredToo) {
  const std::string folder = NewFolder();
  { Process process(folder, Journaled(TestTable(2, 100))); }
  Process process(folder);
  EXPECT_EQ(process.replay->Info().table().window_rows(), 2);
  ASSERT_TRUE(Configure(*process.replay, Journaled(TestTable(3, 100))).ok());
  ASSERT_TRUE(Append(*process.replay, TestSegment(1, 1, 1, 0, 5)).ok());
  EXPECT_EQ(process.replay->Info().windows(), 3);
}

TEST_P(JournalModeTest, WhatHasToSurviveTheMachineIsSyncedBeforeItIsAcknowledged) {
  Process process(NewFolder(), Journaled(TestTable(2, 100), GetParam()));
  for (int i = 0; i < 3; ++i) {
    const int before = syncs;
    ASSERT_TRUE(Append(*process.replay, TestSegment(1, i + 1, 1, i, 1)).ok());
    EXPECT_EQ(syncs - before, GetParam() == v1::TableConfig::MACHINE ? 1 : 0);
  }
}

TEST(JournalTest, TellsOfItsDiskBeforeTheFirstRow) {
  Process process(NewFolder());
  const double left = process.metrics.GetGauge("pompc_replay_journal_disk_free_bytes")->Value();
  EXPECT_GT(left, 0);
  EXPECT_LE(left, process.metrics.GetGauge("pompc_replay_journal_disk_size_bytes")->Value());
}

TEST(JournalTest, WritersThatWaitAtTheSameTimeShareAWrite) {
  Process process(NewFolder(), Journaled(TestTable(2, 100), v1::TableConfig::MACHINE));
  constexpr int kWriters = 8;
  const Gauge& queued = *process.metrics.GetGauge("pompc_replay_journal_queue_rows");
  std::atomic<int> stored = 0;
  Event all_stored;
  // The first answer comes in the journal's thread: what is asked for there waits for its return.
  process.replay->Append(
      process.replay->NewTicket(), TestSegment(1, 1, 1, 0, 1), [&](const auto& first) {
        POMPC_CHECK_OK(first.status());
        for (uint64_t writer = 2; writer < 2 + kWriters; ++writer) {
          process.replay->Append(process.replay->NewTicket(), TestSegment(writer, 1, 1, 0, 1),
                                 [&](const auto& answer) {
                                   POMPC_CHECK_OK(answer.status());
                                   if (++stored == kWriters) all_stored.Notify();
                                 });
        }
        EXPECT_EQ(queued.Value(), kWriters);
      });
  all_stored.Wait();
  process.replay.reset();
  EXPECT_EQ(queued.Value(), 0);
  EXPECT_THAT(process.metrics.Text(),
              HasSubstr("pompc_replay_journal_write_duration_seconds_count 2"));
}

// In lock-step a segment calls for one update: none may be drawn before it is stored, and no other
// segment may come.
TEST(JournalTest, WhileASegmentIsWrittenInsertsCountItAndDrawsDoNot) {
  v1::TableConfig table = Journaled(TestTable(2, 100));
  table.mutable_limits()->set_seed_decisions(2);
  table.mutable_limits()->set_max_updates_ahead(0);
  table.mutable_limits()->set_max_updates_behind(1);
  Process process(NewFolder(), table);
  Replay& replay = *process.replay;
  Batch batch(*replay.layout());
  const Replay::Ticket written = replay.NewTicket(), next = replay.NewTicket(),
                       draw = replay.NewTicket();
  Event drawn;
  // In the journal's thread nothing is written until the callback returns.
  replay.Append(replay.NewTicket(), TestSegment(1, 1, 1, 0, 2), [&](const auto&) {
    replay.Append(written, TestSegment(1, 2, 1, 2, 1), [](const auto&) {});
    EXPECT_FALSE(replay.Cancel(written)) << "the limiter lets it wait";
    replay.Append(next, TestSegment(2, 1, 1, 0, 1), [](const auto&) {});
    EXPECT_TRUE(replay.Cancel(next)) << "the limiter does not count what is being written";
    replay.Sample(draw, *replay.layout(), kBatch, batch.buffers(),
                  [&](const auto&) { drawn.Notify(); });
    EXPECT_FALSE(drawn.HasBeenNotified()) << "drawn before the segment is stored";
  });
  drawn.Wait();
  EXPECT_EQ(replay.Info().inserted_rows(), 3);
}

TEST(JournalTest, ASegmentThatIsSentAgainWhileItIsWrittenIsStoredOnce) {
  Process process(NewFolder(), Journaled(TestTable(2, 100)));
  Replay& replay = *process.replay;
  std::atomic<int> acknowledged = 0;
  Event both;
  const auto count = [&](const absl::StatusOr<Replay::Appended>& answer) {
    EXPECT_TRUE(answer.ok() && answer->acknowledged_sequence == 1);
    if (++acknowledged == 2) both.Notify();
  };
  replay.Append(replay.NewTicket(), TestSegment(1, 1, 1, 0, 2), [&](const auto&) {
    for (int i = 0; i < 2; ++i) {
      replay.Append(replay.NewTicket(), TestSegment(2, 1, 1, 0, 2), count);
    }
  });
  both.Wait();
  EXPECT_EQ(replay.Info().inserted_segments(), 2);
  EXPECT_EQ(replay.Info().duplicate_segments(), 1);
}

TEST(JournalTest, WhatIsStoredWhileItEndsDoesNotStayInTheGauges) {
  Process process(NewFolder(), Journaled(TestTable(2, 100)));
  Replay& replay = *process.replay;
  Event begun;
  std::atomic<bool> stored = false;
  replay.Append(replay.NewTicket(), TestSegment(1, 1, 1, 0, 2), [&](const auto&) {
    // The journal has this segment when the end begins, and writes it when this returns.
    replay.Append(replay.NewTicket(), TestSegment(2, 1, 1, 0, 3),
                  [&](const auto& answer) { stored = answer.ok(); });
    begun.Notify();
    while (replay.layout().ok()) std::this_thread::yield();
  });
  begun.Wait();
  process.replay.reset();
  EXPECT_TRUE(stored);
  EXPECT_EQ(process.metrics.GetGauge("pompc_replay_items")->Value(), 0);
  EXPECT_EQ(process.metrics.GetGauge("pompc_replay_stored_bytes")->Value(), 0);
}

// The segments that a process has been told of when it is killed, one "writer sequence" a line.
constexpr const char* kAcknowledged = "/acknowledged";

// Never returns: three writers append until it is killed, right after an answer.
void AppendUntilKilled(const std::string& folder, int kill_after) {
  const int acknowledged = open((folder + kAcknowledged).c_str(), O_WRONLY | O_CREAT, 0644);
  POMPC_CHECK(acknowledged >= 0);
  Process process(folder + "/journal", Journaled(TestTable(4, 500)));
  std::atomic<int> answers = 0;
  std::function<void(uint64_t, uint64_t)> append = [&](uint64_t writer, uint64_t sequence) {
    process.replay->Append(process.replay->NewTicket(),
                           TestSegment(writer, sequence, 1, (sequence - 1) * 10, 10),
                           [&, writer, sequence](const auto& answer) {
                             POMPC_CHECK_OK(answer.status());
                             const std::string line = absl::StrCat(writer, " ", sequence, "\n");
                             POMPC_CHECK(write(acknowledged, line.data(), line.size()) > 0);
                             if (++answers == kill_after) kill(getpid(), SIGKILL);
                             append(writer, sequence + 1);
                           });
  };
  for (const uint64_t writer : {1, 2, 3}) append(writer, 1);
  Event().Wait();
}

TEST(JournalDeathTest, AKilledProcessLosesNothingThatItAcknowledged) {
  ::testing::FLAGS_gtest_death_test_style = "threadsafe";
  for (const int kill_after : {1, 2, 50, 333}) {
    // The process that is killed runs this test anew up to here.
    const std::string variable = absl::StrCat("JOURNAL_TEST_FOLDER_", kill_after);
    if (getenv(variable.c_str()) == nullptr) {
      setenv(variable.c_str(), fs::path(NewFolder()).parent_path().c_str(), 1);
    }
    const std::string folder = getenv(variable.c_str());
    EXPECT_EXIT(AppendUntilKilled(folder, kill_after), ::testing::KilledBySignal(SIGKILL), "");

    std::map<uint64_t, uint64_t> acknowledged;
    std::ifstream lines(folder + kAcknowledged);
    int count = 0;
    for (uint64_t writer, sequence; lines >> writer >> sequence; ++count) {
      acknowledged[writer] = sequence;
    }
    EXPECT_EQ(count, kill_after);
    Process process(folder + "/journal");
    EXPECT_GE(process.replay->Info().inserted_segments(), kill_after);
    for (const auto& [writer, sequence] : acknowledged) {
      const auto again = Append(*process.replay, TestSegment(writer, sequence, 1, 0, 10));
      ASSERT_TRUE(again.ok()) << again.status();
      // ... and the writer goes on inside its episode.
      const uint64_t next = again->acknowledged_sequence + 1;
      const auto further =
          Append(*process.replay, TestSegment(writer, next, 1, (next - 1) * 10, 10));
      EXPECT_TRUE(further.ok()) << further.status();
    }
  }
}

std::string NewestLog(const std::string& folder) {
  std::string newest;
  for (const auto& file : fs::directory_iterator(folder)) {
    if (file.path().extension() == ".log") newest = std::max(newest, file.path().string());
  }
  return newest;
}

TEST(JournalTest, ATornLogRestoresAllBeforeTheTear) {
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

TEST(JournalTest, AFullDiskIsToldAndGotOver) {
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

TEST(JournalTest, OldRowsLeaveTheDisk) {
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

TEST(JournalTest, ACopyHoldsWhatWasAcknowledgedBeforeWhileOthersGoOn) {
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

TEST(JournalTest, ATableThatWantsAJournalNeedsAFolder) {
  FakeClock clock;
  MetricsRegistry metrics;
  Replay replay(&clock, &metrics);
  const absl::Status refused = Configure(replay, Journaled(TestTable(2, 100)));
  EXPECT_TRUE(absl::IsFailedPrecondition(refused));
  EXPECT_THAT(std::string(refused.message()), HasSubstr("journal: PROCESS"));
  EXPECT_THAT(std::string(refused.message()), HasSubstr("--journal DIR"));
  ASSERT_TRUE(Configure(replay, TestTable(2, 100)).ok());
  v1::CheckpointRequest request;
  request.set_name("copy");
  EXPECT_TRUE(absl::IsFailedPrecondition(replay.Checkpoint(request).status()));
}

TEST(JournalTest, RowsOfAnotherRunAreKept) {
  const std::string folder = NewFolder();
  {
    Process process(folder, Journaled(TestTable(2, 100)));
    ASSERT_TRUE(Append(*process.replay, TestSegment(1, 1, 1, 0, 5)).ok());
  }
  Process process(folder);
  v1::TableConfig other = Journaled(TestTable(2, 100));
  other.set_run_id("other");
  const absl::Status refused = Configure(*process.replay, other);
  EXPECT_TRUE(absl::IsFailedPrecondition(refused));
  EXPECT_THAT(std::string(refused.message()), HasSubstr("replay holds 5 rows of run \"test\""));
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

TEST(JournalTest, SaysWhyItCannotBeReadAndWhatToDo) {
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
