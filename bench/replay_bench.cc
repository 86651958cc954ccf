// Speed of replay: draws by table size, batches embedded and over loopback, rows appended by 1, 4
// and 16 writers, without a journal and with those that survive the process (1) and the machine
// (2), and how long a restart takes. Rows have the sizes of three tasks (0 cartpole, 1 walker, 2
// dog); batches are 256 windows of 4 rows. items_per_second: windows or rows; bytes_per_second:
// their content.
#include <stdlib.h>

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "benchmark/benchmark.h"
#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/base/rng.h"
#include "common/base/thread.h"
#include "common/metrics/metrics.h"
#include "common/rpc/channel.h"
#include "common/rpc/server.h"
#include "replay/client/local_sampler.h"
#include "replay/client/remote_sampler.h"
#include "replay/client/remote_writer.h"
#include "replay/server/journal.h"
#include "replay/server/replay.h"
#include "replay/server/service.h"
#include "replay/server/table.h"

namespace pompc {
namespace {

constexpr int32_t kBatch = 256, kWindow = 4;
constexpr int64_t kSegmentRows = 50;
constexpr absl::Time kNever = absl::InfiniteFuture();

struct Task {
  int64_t observation, action;
};
constexpr Task kTasks[] = {{5, 1}, {24, 6}, {223, 38}};

v1::TableConfig MakeTable(const Task& task, int64_t capacity_rows) {
  v1::TableConfig table;
  const auto add = [&](const char* name, v1::DataType type, int64_t size) {
    v1::Column* column = table.mutable_schema()->add_columns();
    column->set_name(name);
    column->set_type(type);
    column->add_shape(size);
  };
  add("observation", v1::FLOAT32, task.observation);
  add("action", v1::FLOAT32, task.action);
  add("reward", v1::FLOAT32, 1);
  add("prior_mean", v1::FLOAT32, task.action);
  add("prior_std", v1::FLOAT32, task.action);
  add("discount", v1::FLOAT32, 1);
  add("version", v1::INT64, 1);
  table.set_capacity_rows(capacity_rows);
  table.set_capacity_bytes(int64_t{1} << 40);
  table.set_window_rows(kWindow);
  table.mutable_limits()->set_updates_per_decision(1);
  table.mutable_limits()->set_max_updates_ahead(1e15);
  table.mutable_limits()->set_max_updates_behind(1e15);
  table.set_writer_credits(20 * kSegmentRows);
  return table;
}

v1::Segment MakeSegment(const Schema& schema, uint64_t sequence) {
  v1::Segment segment;
  segment.set_writer_id(1);
  segment.set_sequence(sequence);
  segment.set_episode_id(1);
  segment.set_first_row((sequence - 1) * kSegmentRows);
  segment.set_num_rows(kSegmentRows);
  for (const Schema::Column& column : schema.columns()) {
    segment.add_columns(std::string(kSegmentRows * column.row_bytes, '\0'));
  }
  return segment;
}

// A folder for a journal, removed with the object. $TMPDIR says on which disk.
struct Folder {
  Folder() {
    path = std::filesystem::temp_directory_path() / "replay_bench-XXXXXX";
    POMPC_CHECK(mkdtemp(path.data()) != nullptr);
  }
  ~Folder() { std::filesystem::remove_all(path); }
  std::string path;
};

std::unique_ptr<Replay> OpenReplay(const std::string& folder, MetricsRegistry* metrics) {
  auto journal = Journal::Open(folder, RealClock(), metrics);
  POMPC_CHECK_OK(journal.status());
  auto replay = Replay::Restore(*std::move(journal), RealClock(), metrics);
  POMPC_CHECK_OK(replay.status());
  return *std::move(replay);
}

// A replay with a server on loopback.
struct Served {
  explicit Served(const v1::TableConfig& table) {
    v1::ConfigureRequest request;
    *request.mutable_table() = table;
    POMPC_CHECK_OK(replay->Configure(request));
    auto started = RpcServer::Start("127.0.0.1:0", {&service});
    POMPC_CHECK_OK(started.status());
    server = *std::move(started);
  }

  Folder folder;
  MetricsRegistry metrics;
  std::unique_ptr<Replay> replay = OpenReplay(folder.path, &metrics);
  ReplayService service{replay.get(), &metrics};
  std::unique_ptr<RpcServer> server;
};

// Appends from row `first` to row `last`, for a table without limits.
void Fill(Replay& replay, const Schema& schema, int64_t first, int64_t last) {
  for (int64_t i = first / kSegmentRows + 1; i <= last / kSegmentRows; ++i) {
    Event stored;
    replay.Append(replay.NewTicket(), MakeSegment(schema, i), [&](const auto& result) {
      POMPC_CHECK_OK(result.status());
      stored.Notify();
    });
    stored.Wait();
  }
}

// Drawing alone, cartpole rows, from a full table of range(0) rows.
void DrawFromTable(benchmark::State& state) {
  const v1::TableConfig config = MakeTable(kTasks[0], state.range(0));
  const Schema schema = *Schema::Create(config.schema());
  auto table = Table::Create({.schema = schema,
                              .capacity_rows = config.capacity_rows(),
                              .capacity_bytes = config.capacity_bytes(),
                              .window_rows = kWindow});
  POMPC_CHECK_OK(table.status());
  for (int64_t i = 1; i <= state.range(0) / kSegmentRows; ++i) {
    POMPC_CHECK_OK((*table)->Append(MakeSegment(schema, i)));
  }
  std::vector<std::string> columns;
  WindowBuffers out;
  for (const Schema::Column& column : schema.columns()) {
    columns.emplace_back(kBatch * kWindow * column.row_bytes, '\0');
  }
  for (std::string& column : columns) out.columns.push_back(column.data());
  std::vector<uint64_t> keys(kBatch * kWindow), random(kBatch);
  out.keys = reinterpret_cast<char*>(keys.data());
  Rng rng(1, RngRole::kTest, 0, 0);
  for (auto _ : state) {
    for (uint64_t& word : random) word = rng.Uint64();
    (*table)->SampleWindows(random, out);
    benchmark::DoNotOptimize(keys.data());
  }
  state.SetItemsProcessed(state.iterations() * kBatch);
}
BENCHMARK(DrawFromTable)->Arg(10'000)->Arg(100'000)->Arg(1'000'000)->Arg(10'000'000);

void Sample(benchmark::State& state, ReplaySampler& sampler, int64_t row_bytes) {
  ColumnBatch batch;
  for (auto _ : state) POMPC_CHECK_OK(sampler.Next(kNever, &batch));
  state.SetItemsProcessed(state.iterations() * kBatch);
  state.SetBytesProcessed(state.iterations() * kBatch * kWindow * row_bytes);
}

void SampleEmbedded(benchmark::State& state) {
  const v1::TableConfig table = MakeTable(kTasks[state.range(0)], 100'000);
  const Schema schema = *Schema::Create(table.schema());
  Served served(table);
  Fill(*served.replay, schema, 0, 100'000);
  LocalSampler sampler(kBatch, served.replay.get(), RealClock());
  Sample(state, sampler, schema.row_bytes());
}
BENCHMARK(SampleEmbedded)->DenseRange(0, 2)->UseRealTime();

void SampleOverLoopback(benchmark::State& state) {
  const v1::TableConfig table = MakeTable(kTasks[state.range(0)], 100'000);
  const Schema schema = *Schema::Create(table.schema());
  Served served(table);
  Fill(*served.replay, schema, 0, 100'000);
  RemoteSampler sampler({.table = table, .batch_size = kBatch, .prefetch = 4, .retry = {}},
                        CreateChannel(served.server->address()), RealClock(), &served.metrics);
  Sample(state, sampler, schema.row_bytes());
}
BENCHMARK(SampleOverLoopback)->DenseRange(0, 2)->UseRealTime();

// range(1) writers in this process, each with a connection of its own, upload 100 segments each;
// range(2) is the TableConfig::Journal.
void AppendOverLoopback(benchmark::State& state) {
  v1::TableConfig table = MakeTable(kTasks[state.range(0)], 100'000);
  table.set_journal(static_cast<v1::TableConfig::Journal>(state.range(2)));
  const Schema schema = *Schema::Create(table.schema());
  const v1::Segment segment = MakeSegment(schema, 1);
  constexpr int kSegments = 100;
  Served served(table);
  std::vector<std::unique_ptr<RemoteWriter>> writers;
  for (int w = 1; w <= state.range(1); ++w) {
    writers.push_back(std::make_unique<RemoteWriter>(
        RemoteWriterOptions{
            .writer_id = static_cast<uint64_t>(w), .max_queued_rows = 20'000, .reconnect = {}},
        CreateChannel(served.server->address()), RealClock(), &served.metrics));
  }
  int64_t sent = 0;  // Segments of each writer.
  for (auto _ : state) {
    std::vector<Thread> threads;
    for (auto& writer : writers) {
      threads.emplace_back("writer", [&segment, &writer, sent] {
        v1::Segment next = segment;
        for (int64_t i = sent; i < sent + kSegments; ++i) {
          next.set_first_row(i * kSegmentRows);
          POMPC_CHECK_OK(writer->Append(next, kNever));
        }
        POMPC_CHECK_OK(writer->Flush(kNever));
      });
    }
    for (Thread& thread : threads) thread.Join();
    sent += kSegments;
  }
  const int64_t rows = state.iterations() * kSegments * kSegmentRows * state.range(1);
  state.SetItemsProcessed(rows);
  state.SetBytesProcessed(rows * schema.row_bytes());
}
BENCHMARK(AppendOverLoopback)
    ->ArgsProduct({{0, 1, 2}, {1, 4, 16}, {0, 1, 2}})
    ->UseRealTime()
    ->Unit(benchmark::kMillisecond);

// A restart with range(0) cartpole rows, after a quarter more than that were stored.
void RestoreFromJournal(benchmark::State& state) {
  v1::TableConfig table = MakeTable(kTasks[0], state.range(0));
  table.set_journal(v1::TableConfig::PROCESS);
  const Schema schema = *Schema::Create(table.schema());
  Folder folder;
  MetricsRegistry metrics;
  std::unique_ptr<Replay> replay = OpenReplay(folder.path, &metrics);
  v1::ConfigureRequest request;
  *request.mutable_table() = table;
  POMPC_CHECK_OK(replay->Configure(request));
  Fill(*replay, schema, 0, state.range(0) * 5 / 4);
  for (auto _ : state) {
    state.PauseTiming();
    replay.reset();
    state.ResumeTiming();
    replay = OpenReplay(folder.path, &metrics);
  }
  POMPC_CHECK(replay->Info().rows() == state.range(0));
  state.SetItemsProcessed(state.iterations() * state.range(0));
}
BENCHMARK(RestoreFromJournal)->Arg(1'000'000)->UseRealTime()->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace pompc

BENCHMARK_MAIN();
