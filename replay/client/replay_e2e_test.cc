// Writers and samplers against a server on a Unix socket: connections that break, peers that
// vanish, limits that make peers wait.
#include <memory>
#include <set>
#include <thread>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/thread.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "replay/client/local_sampler.h"
#include "replay/client/remote_sampler.h"
#include "replay/client/remote_stored_windows.h"
#include "replay/client/remote_writer.h"
#include "replay/client/test_server.h"
#include "replay/server/testing.h"

namespace pompc {
namespace {

using ::pompc::testing::IdAt;
using ::pompc::testing::kPriorFloats;
using ::pompc::testing::RowId;
using ::pompc::testing::TestSchema;
using ::pompc::testing::TestSegment;
using ::pompc::testing::TestServer;
using ::pompc::testing::TestTable;
using ::testing::HasSubstr;

constexpr absl::Time kNever = absl::InfiniteFuture();
const RetryPolicy kFastRetry = {.initial_backoff = absl::Milliseconds(1),
                                .max_backoff = absl::Milliseconds(10)};

std::unique_ptr<RemoteWriter> MakeWriter(TestServer& server, uint64_t id) {
  return std::make_unique<RemoteWriter>(
      RemoteWriterOptions{.writer_id = id, .reconnect = kFastRetry}, server.channel(), RealClock(),
      server.metrics());
}

std::unique_ptr<RemoteSampler> MakeSampler(TestServer& server, const v1::TableConfig& table,
                                           int32_t prefetch = 1) {
  return std::make_unique<RemoteSampler>(
      RemoteSamplerOptions{
          .table = table, .batch_size = 8, .prefetch = prefetch, .retry = kFastRetry},
      server.channel(), RealClock(), server.metrics());
}

// Rows of the same episode; writer and sequence are the writer's business.
v1::Segment Rows(uint64_t writer, uint64_t first_row, int64_t rows) {
  return TestSegment(writer, 0, 1, first_row, rows);
}

TEST(ReplayE2eTest, WhatWritersAppendIsWhatSamplersGet) {
  TestServer server;
  const v1::TableConfig table = TestTable(4, 1000);
  auto sampler = MakeSampler(server, table);
  auto writer = MakeWriter(server, 7);
  for (int i = 0; i < 10; ++i) ASSERT_TRUE(writer->Append(Rows(7, 5 * i, 5), kNever).ok());
  ASSERT_TRUE(writer->Flush(kNever).ok());

  ColumnBatch batch;
  std::set<int64_t> starts;
  for (int n = 1; n <= 50; ++n) {
    ASSERT_TRUE(sampler->Next(kNever, &batch).ok());
    EXPECT_EQ(batch.sampled_batches, n);
    ASSERT_EQ(batch.keys.size(), 4 * 8u);
    for (int b = 0; b < 8; ++b) {
      for (int t = 0; t < 4; ++t) {
        const RowId id = IdAt(batch.columns[0], t * 8 + b);
        EXPECT_EQ(id, (RowId{7, 1, IdAt(batch.columns[0], b).row + t}));
        EXPECT_EQ(batch.keys[t * 8 + b], static_cast<uint64_t>(id.row + 1));
      }
      starts.insert(IdAt(batch.columns[0], b).row);
    }
  }
  EXPECT_EQ(batch.newest_key, 50u);
  EXPECT_EQ(batch.inserted_decisions, 50);
  EXPECT_GT(starts.size(), 40u);
}

TEST(ReplayE2eTest, TablesOfOneServerShareNothing) {
  TestServer server;
  v1::Replay::Stub early(server.channel("second"));
  grpc::ClientContext context;
  v1::UpdateResponse response;
  const grpc::Status unknown = early.Update(&context, v1::UpdateRequest(), &response);
  EXPECT_EQ(unknown.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_THAT(unknown.error_message(),
              HasSubstr("\"second\" is not configured yet; this server has"));

  // The same writer and sequence numbers, windows of different lengths.
  const std::string names[] = {"", "first", "second"};
  ColumnBatch batch;
  for (int i = 0; i < 3; ++i) {
    RemoteSampler sampler(
        {.table = TestTable(2 + i, 1000), .batch_size = 8, .prefetch = 1, .retry = kFastRetry},
        server.channel(names[i]), RealClock(), server.metrics());
    RemoteWriter writer({.writer_id = 7, .reconnect = kFastRetry}, server.channel(names[i]),
                        RealClock(), server.metrics());
    ASSERT_TRUE(writer.Append(Rows(7, 0, 10 + i), kNever).ok());
    ASSERT_TRUE(writer.Flush(kNever).ok());
    ASSERT_TRUE(sampler.Next(kNever, &batch).ok());
    EXPECT_EQ(batch.keys.size(), 8u * (2 + i));
    EXPECT_EQ(batch.newest_key, 10u + i);
    const auto info = sampler.Info();
    ASSERT_TRUE(info.ok()) << info.status();
    EXPECT_EQ(info->rows(), 10 + i);
    EXPECT_EQ(info->tables_size(), i);
  }
  EXPECT_THAT(server.metrics()->Text(), HasSubstr("pompc_replay_items 33\n"));

  v1::ConfigureRequest request;
  *request.mutable_table() = TestTable(2, 100);
  v1::ConfigureResponse configured;
  grpc::ClientContext bad;
  const grpc::Status refused =
      v1::Replay::Stub(server.channel("a/b")).Configure(&bad, request, &configured);
  EXPECT_EQ(refused.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(refused.error_message(), HasSubstr("table: \"a/b\"; must be 1 to 64"));
}

TEST(ReplayE2eTest, LocalAndRemoteSamplersDrawTheSameBatches) {
  std::vector<ColumnBatch> batches;
  for (const bool remote : {false, true}) {
    TestServer server;
    const v1::TableConfig table = TestTable(3, 1000);
    ASSERT_TRUE(server.Configure(table).ok());
    auto writer = MakeWriter(server, 7);
    ASSERT_TRUE(writer->Append(Rows(7, 0, 100), kNever).ok());
    ASSERT_TRUE(writer->Flush(kNever).ok());
    std::unique_ptr<ReplaySampler> sampler;
    if (remote) {
      sampler = MakeSampler(server, table);
    } else {
      sampler = std::make_unique<LocalSampler>(8, &server.replay(), RealClock());
    }
    for (int i = 0; i < 5; ++i) ASSERT_TRUE(sampler->Next(kNever, &batches.emplace_back()).ok());
  }
  for (int i = 0; i < 5; ++i) {
    EXPECT_EQ(batches[i].columns, batches[i + 5].columns);
    EXPECT_EQ(batches[i].keys, batches[i + 5].keys);
    EXPECT_EQ(batches[i].sampled_batches, batches[i + 5].sampled_batches);
  }
}

// Two servers that share a table, and what is seen of it beside the learner.
class StoredWindowsTest : public ::testing::Test {
 protected:
  void Configure(double priority_exponent = 0) {
    for (int shard = 0; shard < 2; ++shard) {
      v1::TableConfig table = TestTable(3, 1000);
      table.set_shard(shard);
      table.set_shards(2);
      table.set_priority_exponent(priority_exponent);
      ASSERT_TRUE(servers_[shard].Configure(table).ok());
      v1::DrawRequest grant;
      grant.set_max_decisions(1000);
      Replay& replay = servers_[shard].replay();
      ASSERT_TRUE(replay.Draw(grant, *replay.layout(), {}).ok());
    }
  }
  // An episode; the number of its writer is odd on the second server.
  void Store(int shard, int64_t rows) {
    const uint64_t id = 2 * ++stored_episodes_ + shard;
    auto writer = MakeWriter(servers_[shard], id);
    ASSERT_TRUE(writer->Append(Rows(id, 0, rows), kNever).ok());
    ASSERT_TRUE(writer->Flush(kNever).ok());
  }
  static int ServerOf(const v1::SampleResponse& windows) {
    return static_cast<int>(IdAt(windows.columns(0), 0).writer % 2);
  }
  // How many of so many draws are from the second server, once all have told what they store.
  int FromSecond(int draws) {
    int from_second = 0;
    for (int i = -2; i < draws; ++i) {
      const auto windows = stored_.Peek(2, ++seed_);
      POMPC_CHECK_OK(windows.status());
      if (i >= 0) from_second += ServerOf(*windows);
    }
    return from_second;
  }

  TestServer servers_[2] = {TestServer("", 1), TestServer("", 2)};
  Event stop_;
  MetricsRegistry metrics_;
  RemoteStoredWindows stored_{
      {servers_[0].channel(), servers_[1].channel()}, 1, RealClock(), &stop_, &metrics_};
  uint64_t stored_episodes_ = 0, seed_ = 0;
};

TEST_F(StoredWindowsTest, AreSeenAndWrittenOnWithoutCounting) {
  Configure();
  EXPECT_EQ(stored_.Peek(4, 1).status().code(), absl::StatusCode::kUnavailable) << "empty";
  for (const int shard : {0, 1}) Store(shard, 100);
  const int from_second = FromSecond(16);
  EXPECT_GT(from_second, 0);
  EXPECT_LT(from_second, 16);

  std::vector<v1::SampleResponse> seen;
  for (const uint64_t seed : {1, 1, 2}) {
    auto windows = stored_.Peek(4, seed);
    ASSERT_TRUE(windows.ok()) << windows.status();
    ASSERT_EQ(windows->keys_size(), 3 * 4);
    for (int b = 0; b < 4; ++b) {
      const RowId id = IdAt(windows->columns(0), b);
      for (int t = 1; t < 3; ++t) {
        EXPECT_EQ(IdAt(windows->columns(0), t * 4 + b).row, id.row + t);
      }
    }
    seen.push_back(*std::move(windows));
  }
  EXPECT_EQ(seen[0].SerializeAsString(), seen[1].SerializeAsString()) << "one seed";
  EXPECT_NE(seen[1].SerializeAsString(), seen[2].SerializeAsString());
  EXPECT_EQ(seen[2].sampled_batches(), 0);
  for (TestServer& server : servers_) EXPECT_EQ(server.replay().Info().sampled_batches(), 0);

  // Written on where it was seen, and nowhere else.
  const std::string prior(size_t{3} * 4 * kPriorFloats * sizeof(float), '\x01');
  const NamedRows columns[] = {{TestSchema().columns(1).name(), prior}};
  const auto written = stored_.Update(seen[2].keys(), columns);
  ASSERT_TRUE(written.ok()) << written.status();
  EXPECT_EQ(written->updated_rows(), 12);
  EXPECT_EQ(servers_[ServerOf(seen[2])].replay().Info().updated_rows(), 12);
  EXPECT_EQ(servers_[1 - ServerOf(seen[2])].replay().Info().updated_rows(), 0);
  const auto changed = stored_.Peek(4, 2);
  ASSERT_TRUE(changed.ok());
  EXPECT_EQ(changed->columns(1), prior);

  EXPECT_THAT(stored_.Peek(0, 1).status().message(), HasSubstr("batch_size: 0; must be 1 to"));
  stop_.Notify();
  EXPECT_EQ(stored_.Peek(4, 1).status().code(), absl::StatusCode::kCancelled);
}

TEST_F(StoredWindowsTest, ComeFromEachServerInProportionToWhatItStores) {
  Configure();
  Store(0, 302);
  Store(1, 102);
  EXPECT_NEAR(FromSecond(400), 100, 35);
  Store(1, 502);
  EXPECT_NEAR(FromSecond(300), 200, 35);
}

TEST_F(StoredWindowsTest, ComeFromEachServerInProportionToItsPriorities) {
  Configure(/*priority_exponent=*/1);
  for (const int shard : {0, 1}) Store(shard, 102);
  v1::UpdateRequest request;
  for (uint64_t key = 1; key <= 100; ++key) {
    request.add_keys(key);
    request.add_priorities(3);
  }
  ASSERT_TRUE(servers_[1].replay().Update(request).ok());
  EXPECT_NEAR(FromSecond(400), 300, 35);
}

TEST_F(StoredWindowsTest, ComeFromTheServersThatAreThere) {
  Configure();
  for (const int shard : {0, 1}) Store(shard, 100);
  FromSecond(2);
  servers_[1].Stop();
  int refused = 0;
  for (int i = 0; i < 20; ++i) {
    const auto windows = stored_.Peek(2, ++seed_);
    if (windows.ok()) {
      EXPECT_EQ(ServerOf(*windows), 0);
    } else {
      EXPECT_TRUE(absl::IsUnavailable(windows.status())) << windows.status();
      ++refused;
    }
  }
  EXPECT_LE(refused, 1) << "when it was not known to be away yet";
  servers_[1].Start();
  while (FromSecond(1) == 0) std::this_thread::yield();
}

// Local and remote alike.
TEST(ReplayE2eTest, PrioritiesDecideWhatIsDrawn) {
  for (const bool remote : {false, true}) {
    TestServer server;
    v1::TableConfig table = TestTable(2, 100);
    table.set_priority_exponent(2);
    ASSERT_TRUE(server.Configure(table).ok());
    auto writer = MakeWriter(server, 1);
    ASSERT_TRUE(writer->Append(Rows(1, 0, 4), kNever).ok());
    ASSERT_TRUE(writer->Flush(kNever).ok());
    std::unique_ptr<ReplaySampler> sampler;
    if (remote) {
      sampler = MakeSampler(server, table);
    } else {
      sampler = std::make_unique<LocalSampler>(8, &server.replay(), RealClock());
    }
    ColumnBatch batch;
    ASSERT_TRUE(sampler->Next(kNever, &batch).ok());
    EXPECT_EQ(batch.stored_windows, 3);
    EXPECT_THAT(batch.probabilities, ::testing::Each(::testing::DoubleEq(1.0 / 3)));
    const auto updated = sampler->UpdatePriorities({1, 2, 3, 4}, {0, 1, 3, 5});
    ASSERT_TRUE(updated.ok()) << updated.status();
    EXPECT_EQ(updated->updated_rows(), 3);
    EXPECT_EQ(updated->stale_rows(), 1) << "no window starts at the last row";
    for (int n = 0; n < 6; ++n) {
      ASSERT_TRUE(sampler->Next(kNever, &batch).ok());
      if (n < 4) continue;  // May have been drawn before.
      for (int b = 0; b < 8; ++b) {
        ASSERT_THAT(batch.keys[b], ::testing::AnyOf(2, 3));
        EXPECT_DOUBLE_EQ(batch.probabilities[b], batch.keys[b] == 2 ? 0.1 : 0.9);
      }
    }
  }
}

// What was acknowledged is stored, and each row once, however often the server goes.
TEST(ReplayE2eTest, RowsCountOnceAcrossReconnects) {
  TestServer server;
  ASSERT_TRUE(server.Configure(TestTable(4, 1'000'000)).ok());
  constexpr int kWriters = 4, kSegments = 300, kRows = 3;
  {
    std::vector<std::unique_ptr<RemoteWriter>> writers;
    std::vector<Thread> threads;
    for (int w = 1; w <= kWriters; ++w) {
      writers.push_back(MakeWriter(server, w));
      threads.emplace_back("writer", [writer = writers.back().get(), w] {
        for (int i = 0; i < kSegments; ++i) {
          ASSERT_TRUE(writer->Append(Rows(w, kRows * i, kRows), kNever).ok());
        }
        ASSERT_TRUE(writer->Flush(kNever).ok());
      });
    }
    for (int restarts = 0; restarts < 5; ++restarts) {
      const int64_t before = server.replay().Info().inserted_segments();
      const int64_t target = std::min<int64_t>(before + 50, kWriters * kSegments);
      while (server.replay().Info().inserted_segments() < target) std::this_thread::yield();
      server.Restart();
    }
  }
  const v1::InfoResponse info = server.replay().Info();
  EXPECT_EQ(info.inserted_segments(), kWriters * kSegments);
  EXPECT_EQ(info.inserted_rows(), kWriters * kSegments * kRows);
  EXPECT_EQ(info.windows(), kWriters * (kSegments * kRows - 3));
  EXPECT_THAT(server.metrics()->Text(), HasSubstr("pompc_replay_inserts_total 3600\n"));
}

TEST(ReplayE2eTest, SamplerContinuesItsCountAcrossReconnects) {
  TestServer server;
  v1::TableConfig table = TestTable(2, 1000);
  auto sampler = MakeSampler(server, table, /*prefetch=*/4);
  auto writer = MakeWriter(server, 1);
  ASSERT_TRUE(writer->Append(Rows(1, 0, 50), kNever).ok());
  ColumnBatch batch;
  for (int n = 1; n <= 40; ++n) {
    ASSERT_TRUE(sampler->Next(kNever, &batch).ok());
    EXPECT_EQ(batch.sampled_batches, n) << "a batch was lost or counted twice";
    if (n % 10 == 0) server.Restart();
  }
}

TEST(ReplayE2eTest, WriterWaitsUntilTheTableIsConfigured) {
  TestServer server;
  auto writer = MakeWriter(server, 1);
  ASSERT_TRUE(writer->Append(Rows(1, 0, 5), kNever).ok());
  EXPECT_TRUE(absl::IsDeadlineExceeded(writer->Flush(RealClock()->Now() + absl::Milliseconds(50))));
  ASSERT_TRUE(server.Configure(TestTable(2, 100)).ok());
  EXPECT_TRUE(writer->Flush(kNever).ok());
  EXPECT_EQ(server.replay().Info().rows(), 5);
}

// A server that comes back empty, as a learner that hosts the table does.
TEST(ReplayE2eTest, WriterStartsOverInANewTableWithWhatIsNotAcknowledged) {
  TestServer server;
  v1::TableConfig table = TestTable(2, 1000);
  table.mutable_limits()->set_seed_decisions(15);
  table.mutable_limits()->set_pretrain_updates(1'000'000);
  ASSERT_TRUE(server.Configure(table).ok());
  auto writer = MakeWriter(server, 3);
  const auto append = [&](uint64_t episode, uint64_t first_row, int64_t rows, bool ends) {
    ASSERT_TRUE(writer->Append(TestSegment(3, 0, episode, first_row, rows, ends), kNever).ok());
  };
  append(1, 0, 5, false);
  append(2, 0, 4, false);
  append(1, 5, 5, false);
  append(1, 10, 1, true);
  append(2, 4, 2, false);
  ASSERT_TRUE(writer->Flush(kNever).ok());
  append(3, 0, 6, false);  // Waits for updates: not acknowledged.
  append(2, 6, 3, false);

  server.ReplaceReplay();
  table.mutable_limits()->set_seed_decisions(1000);
  ASSERT_TRUE(server.Configure(table).ok());
  ASSERT_TRUE(writer->Flush(kNever).ok());
  append(2, 9, 3, true);
  append(4, 0, 2, false);
  append(3, 6, 1, true);
  ASSERT_TRUE(writer->Flush(kNever).ok());
  const v1::InfoResponse info = server.replay().Info();
  EXPECT_EQ(info.inserted_rows(), 6 + 3 + 3 + 2 + 1);
  EXPECT_EQ(info.finished_episodes(), 2);
  EXPECT_EQ(info.duplicate_segments(), 0);
  EXPECT_EQ(info.windows(), (6 + 1 - 1) + (3 + 3 - 1) + (2 - 1)) << "an episode was torn";
}

TEST(ReplayE2eTest, AJournaledReplayThatDiesIsNoEventForItsPeers) {
  std::string folder = ::testing::TempDir() + "/replay-XXXXXX";
  ASSERT_NE(mkdtemp(folder.data()), nullptr);
  TestServer server(folder);
  v1::TableConfig table = TestTable(2, 10'000);
  table.set_journal(v1::TableConfig::PROCESS);
  auto sampler = MakeSampler(server, table);
  auto writer = MakeWriter(server, 7);
  ColumnBatch batch;
  constexpr int kSegments = 40;
  for (int i = 0; i < kSegments; ++i) {
    ASSERT_TRUE(writer->Append(Rows(7, 5 * i, 5), kNever).ok());
    if (i % 10 == 5) server.ReplaceReplay();
    if (i % 10 == 7) {
      ASSERT_TRUE(sampler->Next(kNever, &batch).ok());
    }
  }
  ASSERT_TRUE(writer->Flush(kNever).ok());
  const v1::InfoResponse info = server.replay().Info();
  EXPECT_EQ(info.inserted_rows(), 5 * kSegments);
  EXPECT_EQ(info.inserted_segments(), kSegments);
  EXPECT_EQ(info.windows(), 5 * kSegments - 1) << "the episode was torn";
}

TEST(ReplayE2eTest, WriterRunsAheadOfTheLimiterByItsCreditsOnly) {
  TestServer server;
  v1::TableConfig table = TestTable(2, 1000);
  table.set_writer_credits(10);
  table.mutable_limits()->set_seed_decisions(20);
  table.mutable_limits()->set_pretrain_updates(3);
  ASSERT_TRUE(server.Configure(table).ok());
  auto writer = MakeWriter(server, 1);
  ASSERT_TRUE(writer->Append(Rows(1, 0, 5), kNever).ok());
  ASSERT_TRUE(writer->Flush(kNever).ok());
  int64_t rows = 5;
  absl::Status status;
  while (status.ok() && rows < 100) {
    status = writer->Append(Rows(1, rows, 5), RealClock()->Now() + absl::Milliseconds(100));
    if (status.ok()) rows += 5;
  }
  EXPECT_TRUE(absl::IsDeadlineExceeded(status));
  EXPECT_EQ(rows, 20 + 10);
  EXPECT_EQ(server.replay().Info().rows(), 20);

  LocalSampler sampler(8, &server.replay(), RealClock());
  ColumnBatch batch;
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(sampler.Next(kNever, &batch).ok());
  EXPECT_TRUE(writer->Append(Rows(1, rows, 5), kNever).ok());
  EXPECT_TRUE(writer->Flush(kNever).ok());
  EXPECT_EQ(server.replay().Info().rows(), 35);
}

TEST(ReplayE2eTest, UpdatesReachStoredRowsAndStaleOnesAreCounted) {
  TestServer server;
  const v1::TableConfig table = TestTable(1, 10);
  auto sampler = MakeSampler(server, table);
  auto writer = MakeWriter(server, 1);
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(writer->Append(Rows(1, 5 * i, 5), kNever).ok());
  ASSERT_TRUE(writer->Flush(kNever).ok());

  const std::vector<uint64_t> keys = {1, 8, 15};
  const std::vector<float> priors = {-1, -1, -8, -8, -15, -15};
  const std::string_view rows(reinterpret_cast<const char*>(priors.data()), 24);
  const auto updated = sampler->Update(keys, {{"prior", rows}});
  ASSERT_TRUE(updated.ok()) << updated.status();
  EXPECT_EQ(updated->updated_rows(), 2);
  EXPECT_EQ(updated->stale_rows(), 1);
  EXPECT_THAT(sampler->Update(keys, {{"piror", rows}}).status().message(),
              HasSubstr("no column \"piror\"; there are id, prior"));
  EXPECT_THAT(sampler->Update(keys, {{"prior", rows.substr(1)}}).status().message(),
              HasSubstr("column \"prior\": 23 bytes"));
  EXPECT_EQ(sampler->Info()->updated_rows(), 2);
  EXPECT_EQ(sampler->Info()->stale_rows(), 1);
}

TEST(ReplayE2eTest, UpdatesDoNotWaitForAReplayThatStaysAway) {
  TestServer server;
  RemoteSampler sampler({.table = TestTable(2, 1000),
                         .batch_size = 8,
                         .retry = kFastRetry,
                         .patience = absl::Milliseconds(50)},
                        server.channel(), RealClock(), server.metrics());
  server.Stop();
  EXPECT_TRUE(absl::IsUnavailable(sampler.Update({}, {}).status()));
  EXPECT_TRUE(absl::IsUnavailable(sampler.UpdatePriorities({}, {}).status()));
  EXPECT_TRUE(absl::IsUnavailable(sampler.Info().status()));
}

TEST(ReplayE2eTest, RefusalsReachTheirCaller) {
  TestServer server;
  ASSERT_TRUE(server.Configure(TestTable(4, 100)).ok());
  auto writer = MakeWriter(server, 3);
  ASSERT_TRUE(writer->Append(Rows(3, 7, 5), kNever).ok());
  const absl::Status flushed = writer->Flush(kNever);
  EXPECT_EQ(flushed.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(flushed.message(), HasSubstr("segment.first_row: 7"));
  EXPECT_EQ(writer->Append(Rows(3, 0, 5), kNever), flushed);

  auto good_writer = MakeWriter(server, 4);
  ASSERT_TRUE(good_writer->Append(Rows(4, 0, 5), kNever).ok());
  ASSERT_TRUE(good_writer->Flush(kNever).ok());
  auto sampler = MakeSampler(server, TestTable(3, 100));
  ColumnBatch batch;
  const absl::Status status = sampler->Next(kNever, &batch);
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(status.message(), HasSubstr("window_rows: 4 -> 3"));
}

TEST(ReplayE2eTest, ClosingEndsEveryWait) {
  TestServer server;
  v1::TableConfig table = TestTable(2, 1000);
  table.mutable_limits()->set_seed_decisions(5);
  table.mutable_limits()->set_pretrain_updates(1'000'000);
  table.set_writer_credits(1);
  ASSERT_TRUE(server.Configure(table).ok());
  auto writer = MakeWriter(server, 1);
  ASSERT_TRUE(writer->Append(Rows(1, 0, 5), kNever).ok());
  ASSERT_TRUE(writer->Flush(kNever).ok());
  ASSERT_TRUE(writer->Append(Rows(1, 5, 5), kNever).ok());  // Will not be stored.
  Thread append("append",
                [&] { EXPECT_TRUE(absl::IsCancelled(writer->Append(Rows(1, 10, 5), kNever))); });
  Thread flush("flush", [&] { EXPECT_TRUE(absl::IsCancelled(writer->Flush(kNever))); });
  writer->Close();
  append.Join();
  flush.Join();
}

TEST(ReplayE2eTest, SamplerThatWaitsCanBeClosed) {
  TestServer server;
  auto sampler = MakeSampler(server, TestTable(2, 1000));
  ColumnBatch batch;
  EXPECT_TRUE(
      absl::IsDeadlineExceeded(sampler->Next(RealClock()->Now() + absl::Milliseconds(20), &batch)));
  Thread next("next", [&] { EXPECT_TRUE(absl::IsCancelled(sampler->Next(kNever, &batch))); });
  sampler->Close();
  next.Join();
}

TEST(ReplayE2eTest, LocalSamplerGivesUpInTimeWithoutLosingABatch) {
  FakeClock clock;
  MetricsRegistry metrics;
  Replay replay(&clock, &metrics);
  LocalSampler sampler(8, &replay, &clock);
  ColumnBatch batch;
  EXPECT_TRUE(absl::IsUnavailable(sampler.Next(kNever, &batch)));
  v1::ConfigureRequest configure;
  *configure.mutable_table() = TestTable(2, 100);
  ASSERT_TRUE(replay.Configure(configure).ok());
  EXPECT_TRUE(absl::IsDeadlineExceeded(sampler.Next(clock.Now(), &batch)));
  replay.Append(replay.NewTicket(), TestSegment(1, 1, 1, 0, 10),
                [](const auto& result) { EXPECT_TRUE(result.ok()); });
  EXPECT_EQ(replay.Info().sampled_batches(), 0);
  ASSERT_TRUE(sampler.Next(kNever, &batch).ok());
  EXPECT_EQ(batch.sampled_batches, 1);
  replay.Close();
  EXPECT_TRUE(absl::IsUnavailable(sampler.Next(kNever, &batch)));
}

}  // namespace
}  // namespace pompc
