// Writers and a sampler over several servers on Unix sockets, which go and come back.
#include <algorithm>
#include <map>
#include <memory>
#include <thread>

#include "common/base/check.h"
#include "common/base/thread.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "replay/client/sharded_sampler.h"
#include "replay/client/sharded_writer.h"
#include "replay/client/shards.h"
#include "replay/client/test_server.h"
#include "replay/server/testing.h"

namespace pompc {
namespace {

using ::pompc::testing::IdAt;
using ::pompc::testing::RowId;
using ::pompc::testing::TestSegment;
using ::pompc::testing::TestServer;
using ::pompc::testing::TestTable;
using ::testing::HasSubstr;

constexpr absl::Time kNever = absl::InfiniteFuture();
constexpr int kBatch = 16, kWindow = 3;
const RetryPolicy kFastRetry = {.initial_backoff = absl::Milliseconds(1),
                                .max_backoff = absl::Milliseconds(10)};

class ShardedE2eTest : public ::testing::Test {
 protected:
  ShardedE2eTest() {
    for (int i = 0; i < 2; ++i) {
      servers_.push_back(std::make_unique<TestServer>("", i));
      channels_.push_back(servers_.back()->channel());
    }
  }
  std::unique_ptr<ShardedWriter> MakeWriter(uint64_t id) { return MakeWriter(id, &metrics_); }
  std::unique_ptr<ShardedWriter> MakeWriter(uint64_t id, MetricsRegistry* metrics) {
    return std::make_unique<ShardedWriter>(
        RemoteWriterOptions{.writer_id = id, .reconnect = kFastRetry}, channels_, RealClock(),
        metrics);
  }
  std::unique_ptr<ShardedSampler> MakeSampler(const v1::TableConfig& table) {
    auto sampler = ShardedSampler::Create(
        {.table = table, .batch_size = kBatch, .prefetch = 2, .retry = kFastRetry}, channels_,
        RealClock(), &metrics_);
    POMPC_CHECK_OK(sampler.status());
    return *std::move(sampler);
  }
  v1::InfoResponse InfoOf(int shard) { return servers_[shard]->replay().Info(); }

  MetricsRegistry metrics_;
  std::vector<std::unique_ptr<TestServer>> servers_;
  std::vector<std::shared_ptr<grpc::Channel>> channels_;
};

// Every window is of one episode, its rows follow each other, and its keys are those of its shard.
void ExpectWhole(const ColumnBatch& batch) {
  ASSERT_EQ(batch.keys.size(), static_cast<size_t>(kWindow * kBatch));
  for (int b = 0; b < kBatch; ++b) {
    const RowId first = IdAt(batch.columns[0], b);
    for (int t = 0; t < kWindow; ++t) {
      EXPECT_EQ(IdAt(batch.columns[0], t * kBatch + b),
                (RowId{first.writer, first.episode, first.row + t}));
      EXPECT_EQ(ShardOf(batch.keys[t * kBatch + b]), ShardOf(batch.keys[b]));
    }
  }
}

TEST_F(ShardedE2eTest, EveryRowCountsOnceAndTheRateLimitsHoldForTheSum) {
  constexpr int kWriters = 3, kEpisodes = 20, kSegments = 6, kRows = 5;
  constexpr int64_t kSeed = 100, kPretrain = 50;
  constexpr double kTolerance = 20;
  v1::TableConfig table = TestTable(kWindow, 10'000);
  table.mutable_limits()->set_seed_decisions(kSeed);
  table.mutable_limits()->set_pretrain_updates(kPretrain);
  table.mutable_limits()->set_max_updates_ahead(kTolerance);
  table.mutable_limits()->set_max_updates_behind(kTolerance);
  table.set_writer_credits(10);
  auto sampler = MakeSampler(table);
  const auto lead = [&](int64_t batches, int64_t decisions) {
    return static_cast<double>((batches - kPretrain) - (decisions - kSeed));
  };

  std::vector<std::unique_ptr<ShardedWriter>> writers;
  std::vector<Thread> threads;
  std::atomic<int> flushed = 0;
  for (int w = 1; w <= kWriters; ++w) {
    writers.push_back(MakeWriter(w));
    threads.emplace_back("writer", [&flushed, writer = writers.back().get(), w] {
      for (int e = 0; e < kEpisodes; ++e) {
        for (int s = 0; s < kSegments; ++s) {
          v1::Segment segment = TestSegment(w, 0, e, s * kRows, kRows, s == kSegments - 1);
          ASSERT_TRUE(writer->Append(std::move(segment), kNever).ok());
        }
      }
      ASSERT_TRUE(writer->Flush(kNever).ok());
      ++flushed;
    });
  }
  int64_t batches = 0;
  ColumnBatch batch;
  while (flushed < kWriters) {
    const absl::Status next = sampler->Next(RealClock()->Now() + absl::Milliseconds(50), &batch);
    if (absl::IsDeadlineExceeded(next)) continue;
    ASSERT_TRUE(next.ok()) << next;
    ASSERT_EQ(batch.sampled_batches, ++batches);
    ExpectWhole(batch);
    if (batches < kPretrain) continue;
    EXPECT_LE(lead(batches, batch.inserted_decisions), kTolerance);
    // Beyond the band: a decision and a segment for each server.
    EXPECT_GE(lead(batches, batch.inserted_decisions), -kTolerance - 2 * (1 + kRows));
  }

  const auto info = sampler->Info();
  ASSERT_TRUE(info.ok()) << info.status();
  constexpr int kAll = kWriters * kEpisodes * kSegments * kRows;
  EXPECT_EQ(info->inserted_rows(), kAll);
  EXPECT_EQ(info->rows(), kAll);
  EXPECT_EQ(info->inserted_decisions(), kAll - kWriters * kEpisodes);
  EXPECT_EQ(info->finished_episodes(), kWriters * kEpisodes);
  EXPECT_EQ(info->windows(), kWriters * kEpisodes * (kSegments * kRows - kWindow + 1));
  EXPECT_EQ(info->duplicate_segments(), 0);
  EXPECT_EQ(info->table().capacity_rows(), 10'000);
  EXPECT_EQ(InfoOf(0).rows(), InfoOf(1).rows()) << "episodes take turns";
  EXPECT_GE(batches, kPretrain + kAll - kWriters * kEpisodes - kSeed - kTolerance - 12);
}

TEST_F(ShardedE2eTest, UpdatesReachTheRowsOfTheirShard) {
  auto sampler = MakeSampler(TestTable(kWindow, 1000));
  auto writer = MakeWriter(1);
  for (int e = 0; e < 4; ++e) {
    ASSERT_TRUE(writer->Append(TestSegment(1, 0, e, 0, 5, true), kNever).ok());
  }
  ASSERT_TRUE(writer->Flush(kNever).ok());
  ColumnBatch batch;
  ASSERT_TRUE(sampler->Next(kNever, &batch).ok());
  std::map<uint64_t, float> written;  // A prior that no row has, by key.
  std::vector<uint64_t> keys;
  std::string priors;
  for (const uint64_t key : batch.keys) {
    if (!written.emplace(key, -1.f - static_cast<float>(written.size())).second) continue;
    keys.push_back(key);
    const float prior[2] = {written[key], written[key]};
    priors.append(reinterpret_cast<const char*>(prior), sizeof(prior));
  }
  const auto updated = sampler->Update(keys, {{"prior", priors}});
  ASSERT_TRUE(updated.ok()) << updated.status();
  EXPECT_EQ(updated->updated_rows(), static_cast<int64_t>(keys.size()));
  EXPECT_EQ(updated->stale_rows(), 0);
  for (int n = 0; n < 10; ++n) {
    ASSERT_TRUE(sampler->Next(kNever, &batch).ok());
    if (n < 3) continue;  // May have been drawn before the update.
    ExpectWhole(batch);
    for (size_t i = 0; i < batch.keys.size(); ++i) {
      float prior;
      std::memcpy(&prior, batch.columns[1].data() + i * 8, sizeof(prior));
      const auto expected = written.find(batch.keys[i]);
      EXPECT_EQ(prior, expected == written.end() ? static_cast<float>(IdAt(batch.columns[0], i).row)
                                                 : expected->second);
    }
  }
  EXPECT_THAT(sampler->Update({ShardedKey(2, 1)}, {{"prior", "12345678"}}).status().message(),
              HasSubstr("is of shard 2, but there are 2"));
}

TEST_F(ShardedE2eTest, PrioritiesDecideOverAllShards) {
  v1::TableConfig table = TestTable(kWindow, 1000);
  table.set_priority_exponent(1);
  auto sampler = MakeSampler(table);
  auto writer = MakeWriter(1);
  for (int e = 0; e < 2; ++e) {
    ASSERT_TRUE(writer->Append(TestSegment(1, 0, e, 0, 4, true), kNever).ok());
  }
  ASSERT_TRUE(writer->Flush(kNever).ok());
  // Two windows each, which start at keys 1 and 2.
  const auto updated = sampler->UpdatePriorities(
      {ShardedKey(0, 1), ShardedKey(0, 2), ShardedKey(1, 1), ShardedKey(1, 2)}, {1, 0, 2, 5});
  ASSERT_TRUE(updated.ok()) << updated.status();
  EXPECT_EQ(updated->updated_rows(), 4);
  const std::map<uint64_t, double> expected = {
      {ShardedKey(0, 1), 0.125}, {ShardedKey(1, 1), 0.25}, {ShardedKey(1, 2), 0.625}};
  std::map<uint64_t, int> drawn;
  ColumnBatch batch;
  for (int n = 0; n < 205; ++n) {
    ASSERT_TRUE(sampler->Next(kNever, &batch).ok());
    if (n < 5) continue;  // May have been drawn before.
    EXPECT_EQ(batch.stored_windows, 4);
    for (int b = 0; b < kBatch; ++b) {
      ASSERT_TRUE(expected.contains(batch.keys[b]));
      EXPECT_DOUBLE_EQ(batch.probabilities[b], expected.at(batch.keys[b]));
      ++drawn[batch.keys[b]];
    }
  }
  for (const auto& [key, probability] : expected) {
    EXPECT_NEAR(drawn[key] / (200.0 * kBatch), probability, 0.04);
  }
}

TEST_F(ShardedE2eTest, WithoutAServerTheOthersGoOnAndNothingIsLost) {
  v1::TableConfig table = TestTable(kWindow, 10'000);
  table.set_writer_credits(20);
  auto sampler = MakeSampler(table);
  auto writer = MakeWriter(1);
  int64_t rows = 0;
  const auto append = [&](uint64_t episode, uint64_t first_row, bool ends) {
    ASSERT_TRUE(writer->Append(TestSegment(1, 0, episode, first_row, 5, ends), kNever).ok());
    rows += 5;
  };
  append(1, 0, true);  // Writer 1 begins with server 1.
  append(2, 0, false);
  append(3, 0, false);
  ASSERT_TRUE(writer->Flush(kNever).ok());
  ASSERT_EQ(InfoOf(1).rows(), 10);
  ColumnBatch batch;
  for (int n = 0; n < 5; ++n) ASSERT_TRUE(sampler->Next(kNever, &batch).ok());

  servers_[1]->Stop();
  // Episode 3 is with server 1: it moves as soon as no more of its rows may wait for that one.
  for (int s = 1; s < 40; ++s) append(3, 5 * s, s == 39);
  for (int e = 4; e < 10; ++e) append(e, 0, true);
  append(2, 5, true);
  bool server_1_is_left_out = false;
  while (!server_1_is_left_out) {
    ASSERT_TRUE(sampler->Next(kNever, &batch).ok());
    ExpectWhole(batch);
    server_1_is_left_out = std::all_of(batch.keys.begin(), batch.keys.end(),
                                       [](uint64_t key) { return ShardOf(key) == 0; });
  }

  servers_[1]->Start();
  ASSERT_TRUE(writer->Flush(kNever).ok());
  bool server_1_is_back = false;
  while (!server_1_is_back) {
    ASSERT_TRUE(sampler->Next(kNever, &batch).ok());
    ExpectWhole(batch);
    server_1_is_back = std::any_of(batch.keys.begin(), batch.keys.end(),
                                   [](uint64_t key) { return ShardOf(key) == 1; });
  }
  const auto info = sampler->Info();
  ASSERT_TRUE(info.ok()) << info.status();
  EXPECT_EQ(info->inserted_rows(), rows);
  EXPECT_EQ(info->duplicate_segments(), 0);
}

TEST_F(ShardedE2eTest, AServerThatWasAwayWhenNothingWaitedForItIsUsedAgain) {
  auto sampler = MakeSampler(TestTable(kWindow, 1000));
  MetricsRegistry metrics;
  auto writer = MakeWriter(1, &metrics);
  for (int e = 1; e < 3; ++e) {
    ASSERT_TRUE(writer->Append(TestSegment(1, 0, e, 0, 5, true), kNever).ok());
  }
  ASSERT_TRUE(writer->Flush(kNever).ok());
  ASSERT_EQ(InfoOf(1).rows(), 5);

  servers_[1]->Stop();
  Counter* const reconnects = metrics.GetCounter("pompc_rpc_reconnects_total");
  while (reconnects->Value() == 0) std::this_thread::yield();  // Until the writer knows.
  servers_[1]->Start();
  for (int e = 3; InfoOf(1).rows() == 5; ++e) {
    ASSERT_TRUE(writer->Append(TestSegment(1, 0, e, 0, 5, true), kNever).ok());
    ASSERT_TRUE(writer->Flush(kNever).ok());
  }
}

TEST_F(ShardedE2eTest, AServerThatLostItsRowsIsNamed) {
  {
    auto sampler = MakeSampler(TestTable(kWindow, 1000));
    auto writer = MakeWriter(1);
    for (int e = 0; e < 2; ++e) {
      ASSERT_TRUE(writer->Append(TestSegment(1, 0, e, 0, 5, true), kNever).ok());
    }
    ASSERT_TRUE(writer->Flush(kNever).ok());
  }
  servers_[1]->ReplaceReplay();
  const auto info = MergeInfos({InfoOf(0), InfoOf(1)});
  EXPECT_EQ(info.status().code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(info.status().message(), HasSubstr("replay server 2 of 2 has no table"));
}

TEST_F(ShardedE2eTest, RefusalsReachTheSampler) {
  auto first = MakeSampler(TestTable(kWindow, 1000));
  auto writer = MakeWriter(1);
  ASSERT_TRUE(writer->Append(TestSegment(1, 0, 1, 0, 5, true), kNever).ok());
  ASSERT_TRUE(writer->Flush(kNever).ok());
  auto other = MakeSampler(TestTable(kWindow + 1, 1000));
  ColumnBatch batch;
  const absl::Status status = other->Next(kNever, &batch);
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(status.message(), HasSubstr("window_rows: 3 -> 4"));
}

TEST_F(ShardedE2eTest, SamplerThatWaitsCanBeClosed) {
  servers_[1]->Stop();
  auto sampler = MakeSampler(TestTable(kWindow, 1000));
  ColumnBatch batch;
  Thread next("next", [&] { EXPECT_TRUE(absl::IsCancelled(sampler->Next(kNever, &batch))); });
  sampler->Close();
  next.Join();
}

}  // namespace
}  // namespace pompc
