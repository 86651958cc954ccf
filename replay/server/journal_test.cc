// What comes back from a journal, and what waits for it.
#include "replay/server/journal.h"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
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
#include "replay/server/journal_testing.h"

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

using ::pompc::testing::Append;
using ::pompc::testing::Batch;
using ::pompc::testing::Configure;
using ::pompc::testing::Counts;
using ::pompc::testing::Draw;
using ::pompc::testing::Journaled;
using ::pompc::testing::kBatch;
using ::pompc::testing::NewFolder;
using ::pompc::testing::Overwrite;
using ::pompc::testing::Process;
using ::pompc::testing::TestSegment;
using ::pompc::testing::TestTable;
using ::testing::HasSubstr;

absl::Status Prioritise(Replay& replay, const std::vector<uint64_t>& keys, float priority) {
  v1::UpdateRequest request;
  request.mutable_keys()->Add(keys.begin(), keys.end());
  for (size_t i = 0; i < keys.size(); ++i) {
    request.add_priorities(priority * static_cast<float>(i + 1));
  }
  return replay.Update(request).status();
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

}  // namespace
}  // namespace pompc
