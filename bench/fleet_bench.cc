// What N actors cost the servers of a run, N from 1 to 1,000, without planning and physics.
//
//   fleet_bench [PARAMETER_BYTES [N...]]     default 480,000 (preset quickstart) and 1 10 100 300
//   1000
//
// The servers are those of a run: the learner's service with its publisher and books in one
// process, a replay table with a journal that survives the process ($TMPDIR) in another. Up to four
// processes play the actors. Each of these has connections and client threads of its own, as a
// process would have: it asks for the config, joins, subscribes to parameters (which it checks and
// drops), uploads rows of walker sizes and reports its episodes. First each makes 10 decisions a
// second, sent by 10, and waits for their acknowledgement, while a version is published each
// second, or when the last one has reached all; then all send segments of 50 rows as fast as replay
// takes them. Everything shares this machine's cores: what the servers alone take is in their
// columns of CPU. Prints CSV.
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "bench/folder.h"
#include "bench/role.h"
#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/base/nonce.h"
#include "common/base/thread.h"
#include "common/metrics/metrics.h"
#include "common/rpc/channel.h"
#include "common/rpc/server.h"
#include "learner/client/remote_learner_client.h"
#include "learner/client/row.h"
#include "learner/client/snapshot_reader.h"
#include "learner/service/learner_service.h"
#include "learner/service/run_front.h"
#include "replay/client/episode_writer.h"
#include "replay/client/sharded_writer.h"
#include "replay/server/journal.h"
#include "replay/server/replay.h"
#include "replay/server/service.h"
#include "replay/server/tables.h"

namespace pompc {
namespace {

constexpr int kMostProcesses = 4;
constexpr absl::Duration kWarmUp = absl::Seconds(3), kPaced = absl::Seconds(20),
                         kFlatOut = absl::Seconds(5), kPatience = absl::Minutes(2);
constexpr int kPacedRows = 10, kFlatOutRows = 50;
constexpr absl::Duration kPace = absl::Seconds(1);  // Of kPacedRows.
constexpr int64_t kObservation = 24, kAction = 6, kEpisode = 500;

// How often times of about each length came. Bounds grow by 7 %, from 10 us to some minutes.
struct Times {
  std::array<int32_t, 256> counts = {};

  static constexpr double kFirst = 1e-5, kGrowth = 1.07;

  void Add(absl::Duration time) {
    const double steps = std::log(absl::ToDoubleSeconds(time) / kFirst) / std::log(kGrowth);
    ++counts[static_cast<size_t>(std::clamp(steps, 0.0, 255.0))];
  }
  void Add(const Times& other) {
    for (size_t i = 0; i < counts.size(); ++i) counts[i] += other.counts[i];
  }
  // In seconds; 0 without any.
  double Quantile(double quantile) const {
    int64_t left = 0;
    for (const int32_t count : counts) left += count;
    left = std::llround(quantile * static_cast<double>(left));
    for (size_t i = 0; i < counts.size(); ++i) {
      if (left > 0 && (left -= counts[i]) <= 0) return kFirst * std::pow(kGrowth, i + 0.5);
    }
    return 0;
  }
};

// Of this process. What a role does not have stays 0.
struct Answer {
  int port = 0;
  double cpu_seconds = 0;  // Since it started, as rows.
  double resident_bytes = 0;
  int threads = 0, descriptors = 0;
  double rows = 0;
  // Of acknowledgements, and from publishing a version to its arrival: since the last question.
  Times acknowledged, age;
};

void DescribeProcess(Answer* answer) {
  std::ifstream statm("/proc/self/statm");
  int64_t pages = 0, resident = 0;
  statm >> pages >> resident;
  answer->resident_bytes = static_cast<double>(resident * sysconf(_SC_PAGESIZE));
  const auto entries = [](const char* folder) {
    return static_cast<int>(std::distance(std::filesystem::directory_iterator(folder), {}));
  };
  answer->threads = entries("/proc/self/task");
  answer->descriptors = entries("/proc/self/fd");
}

std::string Loopback(int port) { return absl::StrCat("127.0.0.1:", port); }

v1::TaskSizes Sizes() {
  v1::TaskSizes sizes;
  sizes.set_observation_dim(kObservation);
  sizes.set_action_dim(kAction);
  sizes.set_episode_decisions(kEpisode);
  return sizes;
}

// Publishes a version at 'p'.
Role<Answer>::Obey MakeLearner(const std::string& folder, size_t parameter_bytes) {
  auto* const metrics = new MetricsRegistry;  // All of a role ends with its process.
  RunFrontOptions options;
  options.identity.set_run_id("bench");
  options.run_dir = folder;
  std::filesystem::create_directory(folder);
  auto made = RunFront::Create(options, RealClock(), metrics);
  POMPC_CHECK_OK(made.status());
  RunFront* const front = made->release();
  front->episodes.Open();
  auto server = RpcServer::Start(Loopback(0), {new LearnerService(front)}, metrics);
  POMPC_CHECK_OK(server.status());
  return [front, server = server->release(), parameter_bytes](char command, Answer* answer) {
    if (command == 'p') {
      v1::ParameterSnapshot snapshot;
      snapshot.set_data(std::string(parameter_bytes, 'p'));
      snapshot.set_updates(absl::ToUnixMicros(RealClock()->Now()));  // For its age on arrival.
      front->publisher.Publish(std::move(snapshot));
    }
    DescribeProcess(answer);
    answer->port = server->port();
  };
}

Role<Answer>::Obey MakeReplay(const std::string& folder) {
  auto* const metrics = new MetricsRegistry;
  auto journal = Journal::Open(folder, RealClock(), metrics);
  POMPC_CHECK_OK(journal.status());
  auto restored = Replay::Restore(*std::move(journal), RealClock(), metrics);
  POMPC_CHECK_OK(restored.status());
  Replay* const replay = restored->release();
  v1::ConfigureRequest request;
  v1::TableConfig& table = *request.mutable_table();
  *table.mutable_schema() = RowSchema(Sizes());
  table.set_capacity_rows(1'000'000);
  table.set_capacity_bytes(int64_t{1} << 40);
  table.set_window_rows(4);
  table.mutable_limits()->set_updates_per_decision(1);
  table.mutable_limits()->set_max_updates_ahead(1e15);
  table.mutable_limits()->set_max_updates_behind(1e15);
  table.set_writer_credits(kFlatOutRows);  // actor.segment_rows, of one environment.
  table.set_journal(v1::TableConfig::PROCESS);
  POMPC_CHECK_OK(replay->Configure(request));
  auto server = RpcServer::Start(Loopback(0),
                                 {new ReplayService(new ReplayTables(replay), metrics)}, metrics);
  POMPC_CHECK_OK(server.status());
  return [replay, server = server->release()](char, Answer* answer) {
    DescribeProcess(answer);
    answer->port = server->port();
    answer->rows = static_cast<double>(replay->Info().inserted_rows());
  };
}

// What the actors of a process share.
struct Fleet {
  std::string learner, replay;
  MetricsRegistry metrics;
  std::atomic<bool> flat_out = false;
  absl::Mutex mu;
  int64_t snapshots ABSL_GUARDED_BY(mu) = 0;  // That arrived.
  Times acknowledged ABSL_GUARDED_BY(mu), age ABSL_GUARDED_BY(mu);
};

class SimulatedActor {
 public:
  explicit SimulatedActor(Fleet* fleet)
      : fleet_(fleet),
        learner_channel_(CreateChannel(fleet->learner)),
        learner_(learner_channel_, 1, RealClock(), &fleet->metrics),
        reader_(learner_channel_, 1, RealClock(), &fleet->metrics,
                [fleet](const v1::ParameterSnapshot& snapshot, const grpc::ByteBuffer&) {
                  absl::MutexLock lock(&fleet->mu);
                  ++fleet->snapshots;
                  fleet->age.Add(RealClock()->Now() - absl::FromUnixMicros(snapshot.updates()));
                }),
        thread_("actor", [this] { Act(); }) {}

 private:
  void Act() {
    const auto soon = [] { return RealClock()->Now() + kPatience; };
    POMPC_CHECK_OK(learner_.GetConfig(soon()).status());
    v1::JoinRequest request;
    request.set_role(v1::ACTOR);
    *request.mutable_sizes() = Sizes();
    request.set_nonce(DrawNonce());
    const auto join = learner_.Join(request, soon());
    POMPC_CHECK_OK(join.status());
    ShardedWriter replay({.writer_id = join->writer_id(), .reconnect = {}},
                         {CreateChannel(fleet_->replay)}, RealClock(), &fleet_->metrics);
    // Segments end where this class says so.
    EpisodeWriter writer({.num_columns = kNumRowColumns, .segment_rows = kEpisode}, &replay);
    const std::vector<float> observation(kObservation), action(kAction);
    const Row row = {
        .observation = observation, .action = action, .prior_mean = action, .prior_std = action};
    int64_t episode_rows = join->index() * kPacedRows % kEpisode;  // Not all end at once.
    uint64_t reports = 0;
    absl::Time next = RealClock()->Now() + kPace * (join->index() % 100) / 100;
    while (true) {
      const bool flat_out = fleet_->flat_out;
      if (!flat_out) RealClock()->SleepUntil(next += kPace);
      const int rows = flat_out ? kFlatOutRows : kPacedRows;
      for (int i = 1; i < rows; ++i) {
        POMPC_CHECK_OK(writer.AddRow(RowBytes(row), absl::InfiniteFuture()));
      }
      episode_rows += rows;
      const absl::Time sent = RealClock()->Now();
      if (episode_rows < kEpisode) {
        POMPC_CHECK_OK(writer.AddRow(RowBytes(row), absl::InfiniteFuture()));
        POMPC_CHECK_OK(writer.Send(absl::InfiniteFuture()));
      } else {
        POMPC_CHECK_OK(writer.EndEpisode(RowBytes(row), RowBytes(LastRow(observation, action)),
                                         absl::InfiniteFuture()));
      }
      POMPC_CHECK_OK(replay.Flush(absl::InfiniteFuture()));
      {
        absl::MutexLock lock(&fleet_->mu);
        fleet_->acknowledged.Add(RealClock()->Now() - sent);
      }
      if (episode_rows >= kEpisode) {
        episode_rows = 0;
        v1::ReportEpisodesRequest report;
        report.set_reporter_id(join->writer_id());
        report.set_sequence(++reports);
        v1::Episode& episode = *report.add_episodes();
        episode.set_role(v1::ACTOR);
        episode.set_actor_index(join->index());
        episode.set_decisions(kEpisode);
        episode.set_env_steps(kEpisode);
        POMPC_CHECK_OK(learner_.ReportEpisodes(report, soon()).status());
      }
    }
  }

  Fleet* const fleet_;
  const std::shared_ptr<grpc::Channel> learner_channel_;
  RemoteLearnerClient learner_;
  SnapshotReader reader_;
  Thread thread_;
};

// 'j': its actors join; 'w': waits until each has received the next version; 'f': flat out.
Role<Answer>::Obey MakeActors(int learner_port, int replay_port, int count) {
  auto* const fleet = new Fleet;
  fleet->learner = Loopback(learner_port);
  fleet->replay = Loopback(replay_port);
  return [fleet, count, awaited = int64_t{0}](char command, Answer* answer) mutable {
    if (command == 'j') {
      for (int i = 0; i < count; ++i) new SimulatedActor(fleet);
    }
    if (command == 'f') fleet->flat_out = true;
    absl::MutexLock lock(&fleet->mu);
    if (command == 'w') {
      awaited += count;
      const auto arrived = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(fleet->mu) {
        return fleet->snapshots >= awaited;
      };
      POMPC_CHECK(RealClock()->AwaitUntil(&fleet->mu, absl::Condition(&arrived),
                                          RealClock()->Now() + kPatience))
          << fleet->snapshots << " of " << awaited << " snapshots have arrived";
      return;
    }
    DescribeProcess(answer);
    answer->acknowledged = std::exchange(fleet->acknowledged, {});
    answer->age = std::exchange(fleet->age, {});
  };
}

struct Moment {
  absl::Time time;
  Answer learner, replay, actors;  // Of all processes of actors together.
};

class Cluster {
 public:
  Cluster(int actors, size_t parameter_bytes) {
    learner_ = std::make_unique<Role<Answer>>(
        [&] { return MakeLearner(folder_.path + "/run", parameter_bytes); });
    replay_ = std::make_unique<Role<Answer>>([&] { return MakeReplay(folder_.path + "/journal"); });
    const int learner_port = learner_->Ask('s').port, replay_port = replay_->Ask('s').port;
    const int processes = std::min(actors, kMostProcesses);
    for (int i = 0; i < processes; ++i) {
      const int count = actors / processes + (i < actors % processes ? 1 : 0);
      fleets_.push_back(std::make_unique<Role<Answer>>(
          [&] { return MakeActors(learner_port, replay_port, count); }));
    }
  }

  // Until the last actor has joined and has parameters.
  absl::Duration Join() {
    const absl::Time begin = RealClock()->Now();
    AskFleets('j');
    PublishAndWait();
    return RealClock()->Now() - begin;
  }
  // Until the last actor has the version.
  absl::Duration PublishAndWait() {
    const absl::Time begin = RealClock()->Now();
    learner_->Ask('p');
    AskFleets('w');
    return RealClock()->Now() - begin;
  }
  // 's': only says how things stand.
  Moment AskAll(char command = 's') {
    Moment moment;
    moment.time = RealClock()->Now();
    moment.learner = learner_->Ask('s');
    moment.replay = replay_->Ask('s');
    moment.actors = AskFleets(command);
    return moment;
  }

 private:
  Answer AskFleets(char command) {
    for (auto& fleet : fleets_) fleet->Tell(command);
    Answer sum;
    for (auto& fleet : fleets_) {
      const Answer answer = fleet->Await();
      sum.cpu_seconds += answer.cpu_seconds;
      sum.acknowledged.Add(answer.acknowledged);
      sum.age.Add(answer.age);
    }
    return sum;
  }

  const TemporaryFolder folder_;
  std::unique_ptr<Role<Answer>> learner_, replay_;
  std::vector<std::unique_ptr<Role<Answer>>> fleets_;
};
// Columns of a server between two moments: cores, and what it is like at the second.
void PrintServer(const Answer& before, const Answer& after, double seconds) {
  std::printf(",%.3f,%.0f,%d,%d", (after.cpu_seconds - before.cpu_seconds) / seconds,
              1e-6 * after.resident_bytes, after.threads, after.descriptors);
}

void Measure(int actors, size_t parameter_bytes) {
  Cluster cluster(actors, parameter_bytes);
  const double join = absl::ToDoubleSeconds(cluster.Join());
  RealClock()->SleepUntil(RealClock()->Now() + kWarmUp);

  Moment before = cluster.AskAll();
  std::vector<double> fan_out;
  while (RealClock()->Now() < before.time + kPaced) {
    const absl::Time begin = RealClock()->Now();
    fan_out.push_back(absl::ToDoubleSeconds(cluster.PublishAndWait()));
    RealClock()->SleepUntil(begin + kPace);
  }
  Moment after = cluster.AskAll();
  std::sort(fan_out.begin(), fan_out.end());
  double seconds = absl::ToDoubleSeconds(after.time - before.time);
  std::printf("%d,%zu,%.2f,%.0f,%.2f,%.2f,%.1f,%.1f,%.1f,%zu", actors, parameter_bytes, join,
              (after.replay.rows - before.replay.rows) / seconds,
              1e3 * after.actors.acknowledged.Quantile(0.5),
              1e3 * after.actors.acknowledged.Quantile(0.99), 1e3 * fan_out[fan_out.size() / 2],
              1e3 * fan_out.back(), 1e3 * after.actors.age.Quantile(0.99), fan_out.size());
  PrintServer(before.learner, after.learner, seconds);
  PrintServer(before.replay, after.replay, seconds);
  std::printf(",%.3f", (after.actors.cpu_seconds - before.actors.cpu_seconds) / seconds);

  cluster.AskAll('f');
  RealClock()->SleepUntil(RealClock()->Now() + kWarmUp);
  before = cluster.AskAll();
  RealClock()->SleepUntil(before.time + kFlatOut);
  after = cluster.AskAll();
  seconds = absl::ToDoubleSeconds(after.time - before.time);
  std::printf(",%.0f,%.2f,%.2f", (after.replay.rows - before.replay.rows) / seconds,
              1e3 * after.actors.acknowledged.Quantile(0.5),
              1e3 * after.actors.acknowledged.Quantile(0.99));
  PrintServer(before.replay, after.replay, seconds);
  std::printf(",%.3f\n", (after.actors.cpu_seconds - before.actors.cpu_seconds) / seconds);
  std::fflush(stdout);
}

void PrintHeader() {
  std::printf(
      "actors,parameter_bytes,join_s,rows_per_s,ack_p50_ms,ack_p99_ms,fan_out_p50_ms,fan_out_max_"
      "ms,"
      "parameter_age_p99_ms,versions,learner_cores,learner_mb,learner_threads,learner_fds,"
      "replay_cores,replay_mb,replay_threads,replay_fds,actors_cores,flat_out_rows_per_s,"
      "flat_out_ack_p50_ms,flat_out_ack_p99_ms,flat_out_replay_cores,flat_out_replay_mb,"
      "flat_out_replay_threads,flat_out_replay_fds,flat_out_actors_cores\n");
  std::fflush(stdout);
}

}  // namespace
}  // namespace pompc

int main(int argc, char** argv) {
  size_t parameter_bytes = 480'000;
  std::vector<int> fleets;
  bool valid = argc < 2 || (absl::SimpleAtoi(argv[1], &parameter_bytes) && parameter_bytes >= 2 &&
                            parameter_bytes % 2 == 0);
  for (int i = 2; i < argc; ++i) {
    valid = valid && absl::SimpleAtoi(argv[i], &fleets.emplace_back()) && fleets.back() > 0;
  }
  if (!valid) {
    std::fprintf(stderr, "usage: fleet_bench [PARAMETER_BYTES, an even number [N...]]\n");
    return 2;
  }
  if (fleets.empty()) fleets = {1, 10, 100, 300, 1000};
  pompc::PrintHeader();
  for (const int actors : fleets) pompc::Measure(actors, parameter_bytes);
  return 0;
}
