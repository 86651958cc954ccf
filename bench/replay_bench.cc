// How fast replay stores and draws rows, and in how much memory, beside dm-reverb in one run.
//
//   replay_bench [--reverb=PYTHON]
//
// Rows have the columns and sizes of three tasks; batches are 256 windows of 4 rows. Table 1: time
// of a draw from a full table, without a server, and its resident memory over the content of its
// rows. Table 2: rows appended over loopback by several writers at once, each with a connection of
// its own, in segments of 50; without a journal, and with those that survive the process and the
// machine, in $TMPDIR. Table 3: batches drawn from 100,000 rows, in the learner's process
// (embedded), from one server over loopback, and from three that share the rows. Table 4: what TLS
// and mutual TLS cost both. Last: how long a restart from the journal of a full table takes. All
// servers, writers and samplers of ours are threads of this process. MB are content of rows.
// dm-reverb, when a Python that has it is given (bench/peers/README.md), is measured by
// bench/peers/reverb_replay.py. The best of several rounds of ours counts. Nothing is told about
// the machine but its load.
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "bench/certificates.h"
#include "bench/folder.h"
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
#include "replay/client/sharded_sampler.h"
#include "replay/client/shards.h"
#include "replay/server/journal.h"
#include "replay/server/replay.h"
#include "replay/server/service.h"
#include "replay/server/table.h"
#include "replay/server/tables.h"

namespace pompc {
namespace {

constexpr int kRounds = 3;
constexpr absl::Duration kRound = absl::Seconds(1);
constexpr int32_t kBatch = 256, kWindow = 4;
constexpr int64_t kSegmentRows = 50, kStoredRows = 100'000;
constexpr int kShards = 3;
constexpr absl::Time kNever = absl::InfiniteFuture();

struct Task {
  const char* name;
  int64_t observation, action;
};
constexpr Task kTasks[] = {{"cartpole", 5, 1}, {"walker", 24, 6}, {"dog", 223, 38}};

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

// How often `work` runs in a second: the best round.
double Rate(const std::function<void()>& work) {
  double best = 0;
  for (int round = 0; round < kRounds; ++round) {
    const absl::Time begin = RealClock()->Now();
    absl::Duration passed;
    int64_t runs = 0;
    for (; passed < kRound; passed = RealClock()->Now() - begin, ++runs) work();
    best = std::max(best, static_cast<double>(runs) / absl::ToDoubleSeconds(passed));
  }
  return best;
}

double ResidentBytes() {
  std::ifstream statm("/proc/self/statm");
  int64_t pages = 0, resident = 0;
  statm >> pages >> resident;
  return static_cast<double>(resident * sysconf(_SC_PAGESIZE));
}

// ---- Table 1.

void MeasureDraws(const Task& task, int64_t rows, double priority_exponent) {
  const v1::TableConfig config = MakeTable(task, rows);
  const Schema schema = *Schema::Create(config.schema());
  const double before = ResidentBytes();
  auto table = Table::Create({.schema = schema,
                              .capacity_rows = config.capacity_rows(),
                              .capacity_bytes = config.capacity_bytes(),
                              .window_rows = kWindow,
                              .priority_exponent = priority_exponent});
  POMPC_CHECK_OK(table.status());
  v1::Segment segment = MakeSegment(schema, 1);
  for (int64_t i = 0; i < rows / kSegmentRows; ++i) {
    segment.set_sequence(i + 1);
    segment.set_first_row(i * kSegmentRows);
    POMPC_CHECK_OK((*table)->Append(segment));
  }
  const double memory = ResidentBytes() - before;
  std::vector<std::string> columns;
  WindowBuffers out;
  for (const Schema::Column& column : schema.columns()) {
    columns.emplace_back(kBatch * kWindow * column.row_bytes, '\0');
  }
  for (std::string& column : columns) out.columns.push_back(column.data());
  std::vector<uint64_t> keys(kBatch * kWindow), random(kBatch);
  std::vector<double> weights(kBatch);
  out.keys = reinterpret_cast<char*>(keys.data());
  out.weights = reinterpret_cast<char*>(weights.data());
  Rng rng(1, RngRole::kTest, 0, 0);
  const double draws = Rate([&] {
    for (uint64_t& word : random) word = rng.Uint64();
    (*table)->SampleWindows(random, out);
  });
  std::printf("%-10s %11ld %-11s %9.1f %18.3f\n", task.name, static_cast<long>(rows),
              priority_exponent > 0 ? "priorities" : "uniform", 1e6 / draws,
              memory / static_cast<double>(rows * schema.row_bytes()));
  std::fflush(stdout);
}

// ---- Servers on loopback.

std::unique_ptr<Replay> OpenReplay(const std::string& folder, MetricsRegistry* metrics) {
  auto journal = Journal::Open(folder, RealClock(), metrics);
  POMPC_CHECK_OK(journal.status());
  auto replay = Replay::Restore(*std::move(journal), RealClock(), metrics);
  POMPC_CHECK_OK(replay.status());
  return *std::move(replay);
}

void Configure(Replay& replay, const v1::TableConfig& table) {
  v1::ConfigureRequest request;
  *request.mutable_table() = table;
  POMPC_CHECK_OK(replay.Configure(request));
}

// For a table without limits.
void Fill(Replay& replay, const Schema& schema, int64_t rows) {
  if (replay.Info().table().shards() > 0) {
    v1::DrawRequest all;
    all.set_max_decisions(rows);
    POMPC_CHECK_OK(replay.Draw(all, *replay.layout(), {}).status());
  }
  for (int64_t i = 1; i <= rows / kSegmentRows; ++i) {
    Event stored;
    replay.Append(replay.NewTicket(), MakeSegment(schema, i), [&](const auto& result) {
      POMPC_CHECK_OK(result.status());
      stored.Notify();
    });
    stored.Wait();
  }
}

struct Served {
  explicit Served(const v1::TableConfig& table, const RpcSecurity& security = {}) {
    Configure(*replay, table);
    auto started = RpcServer::Start("127.0.0.1:0", {&service}, &metrics, security);
    POMPC_CHECK_OK(started.status());
    server = *std::move(started);
  }

  TemporaryFolder folder;
  MetricsRegistry metrics;
  std::unique_ptr<Replay> replay = OpenReplay(folder.path, &metrics);
  ReplayTables tables{replay.get()};
  ReplayService service{&tables, &metrics};
  std::unique_ptr<RpcServer> server;
};

double AppendedRowsPerSecond(const Task& task, int num_writers, v1::TableConfig::Journal journal,
                             const Guard& guard = {}) {
  v1::TableConfig table = MakeTable(task, kStoredRows);
  table.set_journal(journal);
  const v1::Segment segment = MakeSegment(*Schema::Create(table.schema()), 1);
  constexpr int kSegments = 20;  // Of each writer, in a step of the measurement.
  Served served(table, guard.server);
  std::vector<std::unique_ptr<RemoteWriter>> writers;
  for (int w = 1; w <= num_writers; ++w) {
    writers.push_back(std::make_unique<RemoteWriter>(
        RemoteWriterOptions{.writer_id = static_cast<uint64_t>(w), .reconnect = {}},
        CreateChannel(served.server->address(), guard.client), RealClock(), &served.metrics));
  }
  int64_t sent = 0;  // Segments of each writer.
  const auto step = [&] {
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
  };
  step();  // Connects.
  return Rate(step) * kSegments * kSegmentRows * num_writers;
}

double BatchesPerSecond(ReplaySampler& sampler) {
  ColumnBatch batch;
  return Rate([&] { POMPC_CHECK_OK(sampler.Next(kNever, &batch)); });
}

double EmbeddedBatchesPerSecond(const Task& task) {
  const v1::TableConfig table = MakeTable(task, kStoredRows);
  Served served(table);
  Fill(*served.replay, *Schema::Create(table.schema()), kStoredRows);
  LocalSampler sampler(kBatch, served.replay.get(), RealClock());
  return BatchesPerSecond(sampler);
}

double LoopbackBatchesPerSecond(const Task& task, const Guard& guard = {}) {
  const v1::TableConfig table = MakeTable(task, kStoredRows);
  Served served(table, guard.server);
  Fill(*served.replay, *Schema::Create(table.schema()), kStoredRows);
  RemoteSampler sampler({.table = table, .batch_size = kBatch, .prefetch = 4, .retry = {}},
                        CreateChannel(served.server->address(), guard.client), RealClock(),
                        &served.metrics);
  return BatchesPerSecond(sampler);
}

double ShardedBatchesPerSecond(const Task& task) {
  const v1::TableConfig table = MakeTable(task, kStoredRows);
  const Schema schema = *Schema::Create(table.schema());
  MetricsRegistry metrics;
  std::vector<std::unique_ptr<Served>> servers;
  std::vector<std::shared_ptr<grpc::Channel>> channels;
  for (int i = 0; i < kShards; ++i) {
    servers.push_back(std::make_unique<Served>(TableOfShard(table, i, kShards)));
    Fill(*servers.back()->replay, schema, kStoredRows / kShards);
    channels.push_back(CreateChannel(servers.back()->server->address()));
  }
  auto sampler =
      ShardedSampler::Create({.table = table, .batch_size = kBatch, .prefetch = 4, .retry = {}},
                             channels, RealClock(), &metrics);
  POMPC_CHECK_OK(sampler.status());
  return BatchesPerSecond(**sampler);
}

// Of a restart with `rows` stored, after a quarter more than that were: the best round.
double RestoreSeconds(const Task& task, int64_t rows) {
  v1::TableConfig table = MakeTable(task, rows);
  table.set_journal(v1::TableConfig::PROCESS);
  TemporaryFolder folder;
  MetricsRegistry metrics;
  std::unique_ptr<Replay> replay = OpenReplay(folder.path, &metrics);
  Configure(*replay, table);
  Fill(*replay, *Schema::Create(table.schema()), rows * 5 / 4);
  double best = std::numeric_limits<double>::infinity();
  for (int round = 0; round < kRounds; ++round) {
    replay.reset();
    const absl::Time begin = RealClock()->Now();
    replay = OpenReplay(folder.path, &metrics);
    best = std::min(best, absl::ToDoubleSeconds(RealClock()->Now() - begin));
    POMPC_CHECK(replay->Info().rows() == rows);
  }
  return best;
}

// ---- dm-reverb.

struct Reverb {
  double rows_per_second = 0, batches_per_second = 0;
};

// From the JSON line that reverb_replay.py prints. batches: 0: sampling is not measured.
Reverb MeasureReverb(const std::string& python, const Task& task, int writers, int rows,
                     int batches) {
  const std::string command =
      absl::StrCat("'", python, "' '", POMPC_REVERB_PEER, "' ", task.observation, " ", task.action,
                   " ", writers, " ", rows, " ", batches, " 2>/dev/null");
  std::FILE* output = popen(command.c_str(), "r");
  POMPC_CHECK(output != nullptr) << command;
  std::string text;
  char line[512];
  while (std::fgets(line, sizeof(line), output) != nullptr) text += line;
  POMPC_CHECK(pclose(output) == 0) << command << " failed: " << text;
  const auto value = [&](const std::string& name) {
    const size_t found = text.find(absl::StrCat("\"", name, "\": "));
    return found == std::string::npos
               ? 0.0
               : std::strtod(text.c_str() + found + name.size() + 4, nullptr);
  };
  return {value("rows_per_second"), value("batches_per_second")};
}

// Columns of a peer: its figure, and ours over it.
void PrintPeer(double ours, double peer) {
  if (peer > 0) std::printf(" %12.0f %7.1fx", peer, ours / peer);
}

void Run(const std::string& reverb) {
  double load[1] = {0};
  getloadavg(load, 1);
  std::printf("load average at the start: %.1f\n\n", load[0]);

  std::printf("%-10s %11s %-11s %9s %18s\n", "draws", "rows", "", "us/batch", "memory / content");
  for (const double exponent : {0.0, 0.6}) {
    for (const int64_t rows : {10'000, 100'000, 1'000'000, 10'000'000}) {
      MeasureDraws(kTasks[0], rows, exponent);
    }
  }
  MeasureDraws(kTasks[1], 1'000'000, 0);
  MeasureDraws(kTasks[2], 1'000'000, 0);

  std::printf("\n%-10s %8s %12s %9s %12s %12s", "appends", "writers", "rows/s", "MB/s", "PROCESS",
              "MACHINE");
  std::printf(reverb.empty() ? "\n" : " %12s %8s\n", "dm-reverb", "ours is");
  for (const Task& task : kTasks) {
    const double megabytes = 1e-6 * Schema::Create(MakeTable(task, 1000).schema())->row_bytes();
    for (const int writers : {1, 4, 16, 64}) {
      const double ours = AppendedRowsPerSecond(task, writers, v1::TableConfig::NONE);
      std::printf("%-10s %8d %12.0f %9.1f %12.0f %12.0f", task.name, writers, ours,
                  ours * megabytes, AppendedRowsPerSecond(task, writers, v1::TableConfig::PROCESS),
                  AppendedRowsPerSecond(task, writers, v1::TableConfig::MACHINE));
      if (!reverb.empty()) {
        const int rows = std::max(500, 8000 / writers);
        PrintPeer(ours, MeasureReverb(reverb, task, writers, rows, 0).rows_per_second);
      }
      std::printf("\n");
      std::fflush(stdout);
    }
  }

  std::printf("\n%-10s %-16s %12s %12s %9s", "samples", "", "batches/s", "windows/s", "MB/s");
  std::printf(reverb.empty() ? "\n" : " %12s %8s\n", "dm-reverb", "ours is");
  for (const Task& task : kTasks) {
    const double megabytes =
        1e-6 * kBatch * kWindow * Schema::Create(MakeTable(task, 1000).schema())->row_bytes();
    const double peer =
        reverb.empty() ? 0 : MeasureReverb(reverb, task, 4, 2500, 100).batches_per_second;
    const auto print = [&](const char* name, double ours) {
      std::printf("%-10s %-16s %12.0f %12.0f %9.1f", task.name, name, ours, ours * kBatch,
                  ours * megabytes);
      PrintPeer(ours, peer);
      std::printf("\n");
      std::fflush(stdout);
    };
    print("embedded", EmbeddedBatchesPerSecond(task));
    print("loopback", LoopbackBatchesPerSecond(task));
    print("three servers", ShardedBatchesPerSecond(task));
  }

  std::printf("\n%-10s %-12s %16s %9s %12s %9s\n", "TLS", "", "16 writers rows/s", "MB/s",
              "batches/s", "MB/s");
  const Certificates certificates;
  for (const Task& task : kTasks) {
    const double megabytes = 1e-6 * Schema::Create(MakeTable(task, 1000).schema())->row_bytes();
    for (const Guard& guard :
         {certificates.Plain(), certificates.Tls(), certificates.MutualTls()}) {
      const double rows = AppendedRowsPerSecond(task, 16, v1::TableConfig::NONE, guard);
      const double batches = LoopbackBatchesPerSecond(task, guard);
      std::printf("%-10s %-12s %16.0f %9.1f %12.0f %9.1f\n", task.name, guard.name, rows,
                  rows * megabytes, batches, batches * kBatch * kWindow * megabytes);
      std::fflush(stdout);
    }
  }

  std::printf("\nrestart with 1,000,000 rows of %s: %.1f s\n", kTasks[0].name,
              RestoreSeconds(kTasks[0], 1'000'000));
}

}  // namespace
}  // namespace pompc

int main(int argc, char** argv) {
  absl::string_view reverb;
  for (int i = 1; i < argc; ++i) {
    reverb = argv[i];
    if (!absl::ConsumePrefix(&reverb, "--reverb=")) {
      std::fprintf(stderr, "usage: replay_bench [--reverb=PYTHON]\n");
      return 2;
    }
  }
  pompc::Run(std::string(reverb));
  return 0;
}
