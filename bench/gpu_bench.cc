// How fast one GPU updates and plans.
//
//   gpu_bench [--commit=HASH] [--seconds=S] [--only=TEXT] [--profile]
//
// Networks of 5M parameters, batch 256, sizes of dog-run and walker-run. "ready": the batch lies on
// the GPU. "replay": each batch is drawn from a replay table of this process, copied to the GPU and
// used, as in the learner. "one by one": the host launches each kernel. "ahead": plans of
// learner.reanalyze_ahead are made beside the updates. "data_parallel": N GPUs share each batch,
// which lies in the host's memory and is copied every time. Medians of five rounds of S seconds
// (default 1); "host us" is the CPU time of the calling thread for an update. --only: rows whose
// name contains TEXT. --profile: instead, the kernels of an update by their share of its time.
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAFunctions.h>
#include <cuda_runtime_api.h>
#include <time.h>
#include <torch/csrc/autograd/profiler_kineto.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/base/rng.h"
#include "common/config/config.h"
#include "common/metrics/metrics.h"
#include "common/model/device.h"
#include "common/planner/mppi_planner.h"
#include "learner/client/row.h"
#include "learner/core/updater.h"
#include "learner/service/batch_stager.h"
#include "learner/service/parallel_updater.h"
#include "learner/service/reanalyzer.h"
#include "learner/service/run_schedule.h"
#include "replay/client/local_sampler.h"
#include "replay/server/replay.h"

namespace pompc {
namespace {

constexpr int kRounds = 5;
constexpr int kWarmUp = 20;
constexpr int64_t kReplayRows = 100'000, kSegmentRows = 500;

struct Arguments {
  std::string commit = "unknown", only;
  double seconds = 1;
  bool profile = false;
};

struct Task {
  const char* name;
  int64_t obs, action;
};
constexpr Task kTasks[] = {{"dog-run", 223, 38}, {"walker-run", 24, 6}};

const at::TensorOptions kGpu = at::TensorOptions(at::kFloat).device(at::kCUDA);

void AwaitGpu() { C10_CUDA_CHECK(cudaDeviceSynchronize()); }

v1::TaskSizes SizesOf(const Task& task) {
  v1::TaskSizes sizes;
  sizes.set_observation_dim(task.obs);
  sizes.set_action_dim(task.action);
  sizes.set_episode_decisions(500);
  return sizes;
}

v1::RunConfig ConfigOf(const std::string& preset, const std::vector<std::string>& sets) {
  absl::StatusOr<v1::RunConfig> config = LoadRunConfig(preset, "", sets);
  POMPC_CHECK_OK(config.status());
  return *std::move(config);
}

double ThreadSeconds() {
  timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

struct Speed {
  double per_second = 0;
  double host_seconds = 0;  // A call.
};

// The median round; a round ends when the GPU is done.
Speed Measure(const std::function<void()>& call, double round_seconds) {
  Clock* const clock = RealClock();
  for (int i = 0; i < kWarmUp; ++i) call();
  AwaitGpu();
  std::vector<Speed> rounds;
  for (int r = 0; r < kRounds; ++r) {
    const absl::Time start = clock->Now(), end = start + absl::Seconds(round_seconds);
    const double host_start = ThreadSeconds();
    int64_t calls = 0;
    do {
      call();
      // The host runs ahead of the GPU: now and then it must look where that is.
      if (++calls % 50 == 0) AwaitGpu();
    } while (clock->Now() < end);
    const double host = ThreadSeconds() - host_start;
    AwaitGpu();
    const double wall = absl::ToDoubleSeconds(clock->Now() - start);
    rounds.push_back({static_cast<double>(calls) / wall, host / static_cast<double>(calls)});
  }
  std::sort(rounds.begin(), rounds.end(),
            [](const Speed& a, const Speed& b) { return a.per_second < b.per_second; });
  return rounds[kRounds / 2];
}

// A replay table of this process, filled with random rows.
class FilledReplay {
 public:
  FilledReplay(const v1::RunConfig& config, const Task& task)
      : sampler_(config.learning().batch_size(), &replay_, RealClock()) {
    v1::RateLimits limits;
    limits.set_updates_per_decision(1);
    limits.set_max_updates_ahead(1e15);
    limits.set_max_updates_behind(1e15);
    v1::ConfigureRequest configure;
    *configure.mutable_table() = MakeTableConfig(config, SizesOf(task), "gpu_bench", limits);
    configure.mutable_table()->set_journal(v1::TableConfig::NONE);
    POMPC_CHECK_OK(replay_.Configure(configure));
    const int64_t actions = kSegmentRows * task.action;
    for (int64_t i = 0; i < kReplayRows / kSegmentRows; ++i) {
      v1::Segment segment;
      segment.set_writer_id(1);
      segment.set_sequence(static_cast<uint64_t>(i) + 1);
      segment.set_episode_id(1);
      segment.set_first_row(i * kSegmentRows);
      segment.set_num_rows(kSegmentRows);
      segment.add_columns(Bytes(at::randn({kSegmentRows * task.obs})));
      segment.add_columns(Bytes(at::rand({actions}) * 2 - 1));
      segment.add_columns(Bytes(at::rand({kSegmentRows})));
      segment.add_columns(Bytes(at::zeros({kSegmentRows})));
      segment.add_columns(Bytes(at::rand({actions}) * 2 - 1));
      segment.add_columns(Bytes(at::rand({actions}) + 0.1));
      segment.add_columns(Bytes(at::zeros({kSegmentRows}, at::kLong)));
      replay_.Append(replay_.NewTicket(), std::move(segment),
                     [](const auto& result) { POMPC_CHECK_OK(result.status()); });
    }
  }
  ReplaySampler& sampler() { return sampler_; }

 private:
  static std::string Bytes(const at::Tensor& t) {
    return {static_cast<const char*>(t.const_data_ptr()), t.nbytes()};
  }

  MetricsRegistry metrics_;
  Replay replay_{RealClock(), &metrics_};
  LocalSampler sampler_;
};

class UpdateBench {
 public:
  UpdateBench(const v1::RunConfig& config, const Task& task, bool record, FilledReplay* replay)
      : replay_(replay),
        shape_({config.learning().window(), config.learning().batch_size(), SizesOf(task)}),
        stager_(shape_, at::kCUDA) {
    UpdaterOptions options;
    options.obs_dim = task.obs;
    options.action_dim = task.action;
    options.episode_decisions = 500;
    options.seed = 1;
    options.tensor = kGpu;
    options.record = record;
    auto updater = Updater::Create(config, options);
    POMPC_CHECK_OK(updater.status());
    updater_ = *std::move(updater);
    if (config.learner().reanalyze_ahead()) {
      auto reanalyzer = Reanalyzer::Create(config, shape_, at::kCUDA, RealClock());
      POMPC_CHECK_OK(reanalyzer.status());
      reanalyzer_ = *std::move(reanalyzer);
    }
    const int64_t steps = config.learning().window(), windows = config.learning().batch_size();
    batch_ = {at::randn({steps + 1, windows, task.obs}, kGpu),
              at::rand({steps, windows, task.action}, kGpu) * 2 - 1,
              at::rand({steps, windows}, kGpu),
              at::zeros({steps, windows}, kGpu),
              at::rand({steps, windows, task.action}, kGpu) * 2 - 1,
              at::rand({steps, windows, task.action}, kGpu) + 0.1};
  }

  void Update() {
    UpdateRequest request;
    request.want_stats = (updater_->updates() + 1) % 100 == 0;
    noise_.Seed(SeedFor(1, RngRole::kUpdate, 0, static_cast<uint64_t>(updater_->updates())));
    if (replay_ == nullptr) {
      Check(updater_->Update(request, batch_, noise_));
      return;
    }
    if (reanalyzer_ != nullptr && !has_ahead_) {
      Draw(ahead_);
      POMPC_CHECK_OK(reanalyzer_->Start(*updater_->parameters(), ahead_, 1));
      has_ahead_ = true;
    }
    if (reanalyzer_ != nullptr && updater_->ReanalyzeDue()) {
      const absl::StatusOr<Reanalyzer::Result> plans = reanalyzer_->Finish();
      POMPC_CHECK_OK(plans.status());
      request.reanalyzed = plans->prior;
      std::swap(columns_, ahead_);
      has_ahead_ = false;
    } else {
      Draw(columns_);
    }
    absl::StatusOr<Batch> batch = stager_.Stage(columns_);
    POMPC_CHECK_OK(batch.status());
    Check(updater_->Update(request, *batch, noise_));
  }

 private:
  void Draw(ColumnBatch& columns) {
    POMPC_CHECK_OK(replay_->sampler().Next(RealClock()->Now() + absl::Seconds(10), &columns));
  }
  static void Check(const absl::StatusOr<UpdateResult>& result) {
    POMPC_CHECK_OK(result.status());
    if (!result->stats.has_value()) return;
    for (const double value : result->stats->Read()) {
      POMPC_CHECK(std::isfinite(value)) << "losses are not finite";
    }
  }

  FilledReplay* const replay_;
  const BatchShape shape_;
  BatchStager stager_;
  std::unique_ptr<Updater> updater_;
  Batch batch_;
  ColumnBatch columns_, ahead_;
  bool has_ahead_ = false;
  GeneratorNoise noise_{1, kGpu};
  std::unique_ptr<Reanalyzer> reanalyzer_;  // Of "ahead" alone.
};

struct Algorithm {
  const char* name;
  const char* preset;
  std::vector<std::string> sets;
};
const Algorithm kAlgorithms[] = {
    {"TD-MPC2", "tdmpc2", {}},
    {"PO-MPC without re-planning", "pompc", {"learning.reanalyze_windows=0"}},
    {"BMPC without re-planning",
     "bmpc",
     {"learning.prior_source=REPLAY", "learning.reanalyze_windows=0"}},
    {"PO-MPC", "pompc", {}},
    {"BMPC", "bmpc", {}},
};

v1::RunConfig ConfigOf(const Algorithm& algorithm, const char* precision) {
  std::vector<std::string> sets = algorithm.sets;
  sets.push_back(absl::StrCat("learner.matmul_precision=", precision));
  return ConfigOf(algorithm.preset, sets);
}

void RunUpdates(const Arguments& arguments) {
  std::printf("\n| updates | sizes | products | batch | launched | updates/s | host us |\n");
  std::printf("|---|---|---|---|---|---|---|\n");
  for (const Task& task : kTasks) {
    for (const Algorithm& algorithm : kAlgorithms) {
      std::unique_ptr<FilledReplay> replay;
      struct Variant {
        const char* precision;
        bool from_replay, record;
      };
      for (const Variant& v : std::vector<Variant>{{"TF32", true, true},
                                                   {"TF32", false, true},
                                                   {"FP32", false, true},
                                                   {"TF32", false, false}}) {
        const std::string row = absl::StrCat("| ", algorithm.name, " | ", task.name, " | ",
                                             v.precision, " | ", v.from_replay ? "replay" : "ready",
                                             " | ", v.record ? "graph" : "one by one", " |");
        if (!absl::StrContains(row, arguments.only)) continue;
        const v1::RunConfig config = ConfigOf(algorithm, v.precision);
        if (v.from_replay) replay = std::make_unique<FilledReplay>(config, task);
        UpdateBench bench(config, task, v.record, v.from_replay ? replay.get() : nullptr);
        const Speed speed = Measure([&] { bench.Update(); }, arguments.seconds);
        std::printf("%s %.0f | %.0f |\n", row.c_str(), speed.per_second, 1e6 * speed.host_seconds);
        std::fflush(stdout);
      }
    }
  }
}

void RunUpdatesBesidePlans(const Arguments& arguments) {
  std::printf("\n| updates beside plans | sizes | updates/s | host us |\n|---|---|---|---|\n");
  for (const Task& task : kTasks) {
    for (const Algorithm& algorithm : {kAlgorithms[3], kAlgorithms[4]}) {
      const std::string row = absl::StrCat("| ahead ", algorithm.name, " | ", task.name, " |");
      if (!absl::StrContains(row, arguments.only)) continue;
      v1::RunConfig config = ConfigOf(algorithm, "TF32");
      config.mutable_learner()->set_reanalyze_ahead(true);
      FilledReplay replay(config, task);
      UpdateBench bench(config, task, /*record=*/true, &replay);
      const Speed speed = Measure([&] { bench.Update(); }, arguments.seconds);
      std::printf("%s %.0f | %.0f |\n", row.c_str(), speed.per_second, 1e6 * speed.host_seconds);
      std::fflush(stdout);
    }
  }
}

void RunDataParallel(const Arguments& arguments) {
  std::printf("\n| data-parallel updates | sizes | batch | GPUs | updates/s | host us |\n");
  std::printf("|---|---|---|---|---|---|\n");
  const Task& task = kTasks[0];
  for (const Algorithm& algorithm : {kAlgorithms[0], kAlgorithms[1]}) {
    for (const int batch : {256, 1024, 4096}) {
      std::unique_ptr<FilledReplay> replay;
      for (int gpus = 1; gpus <= c10::cuda::device_count(); gpus *= 2) {
        const std::string row = absl::StrCat("| data_parallel ", algorithm.name, " | ", task.name,
                                             " | ", batch, " | ", gpus, " |");
        if (!absl::StrContains(row, arguments.only)) continue;
        v1::RunConfig config = ConfigOf(algorithm, "TF32");
        config.mutable_learning()->set_batch_size(batch);
        config.mutable_learner()->set_device("cuda:0");
        config.mutable_learner()->set_data_parallel(gpus);
        if (replay == nullptr) replay = std::make_unique<FilledReplay>(config, task);
        ColumnBatch columns;
        POMPC_CHECK_OK(replay->sampler().Next(RealClock()->Now() + absl::Seconds(10), &columns));
        const auto devices = FindLearnerDevices(config.learner());
        POMPC_CHECK_OK(devices.status());
        const auto updater = ParallelUpdater::Create(
            config, {config.learning().window(), batch, SizesOf(task)}, *devices, RealClock());
        POMPC_CHECK_OK(updater.status());
        const Speed speed = Measure(
            [&] { POMPC_CHECK_OK((*updater)->Update({}, columns).status()); }, arguments.seconds);
        std::printf("%s %.0f | %.0f |\n", row.c_str(), speed.per_second, 1e6 * speed.host_seconds);
        std::fflush(stdout);
      }
    }
  }
}

void RunPlans(const Arguments& arguments) {
  std::printf("\n| plans | sizes | environments | plans/s | ms a call |\n|---|---|---|---|---|\n");
  for (const Task& task : kTasks) {
    for (const char* preset : {"tdmpc2", "bmpc"}) {
      const v1::RunConfig config = ConfigOf(preset, {});
      const auto parameters = *Parameters::Create(
          ModelSpec::FromConfig(config, task.obs, task.action), ParameterUse::kActing, kGpu);
      parameters->Initialise(1);
      const auto planner = *MppiPlanner::Create(
          MppiOptions::FromConfig(config, 500),
          std::make_shared<const WorldModel>(parameters, WorldModel::Gradients::kNone));
      for (const int64_t environments : {1, 16, 64, 256}) {
        const std::string row =
            absl::StrCat("| plan ", preset, " | ", task.name, " | ", environments, " |");
        if (!absl::StrContains(row, arguments.only)) continue;
        GeneratorNoise noise(1, kGpu);
        PlannerState state;
        const at::Tensor obs = at::randn({environments, task.obs}, kGpu);
        const Speed speed = Measure(
            [&] {
              POMPC_CHECK_OK(planner->Plan({obs, {}, PlanMode::kAct}, noise, &state).status());
            },
            arguments.seconds);
        std::printf("%s %.0f | %.2f |\n", row.c_str(),
                    speed.per_second * static_cast<double>(environments), 1e3 / speed.per_second);
        std::fflush(stdout);
      }
    }
  }
}

void RunProfile(const Arguments& arguments) {
  using torch::profiler::impl::ActivityType;
  constexpr int kUpdates = 20;
  for (const Task& task : kTasks) {
    for (const Algorithm& algorithm : kAlgorithms) {
      const std::string title = absl::StrCat(algorithm.name, ", ", task.name);
      if (!absl::StrContains(title, arguments.only)) continue;
      UpdateBench bench(ConfigOf(algorithm, "TF32"), task, /*record=*/true, nullptr);
      for (int i = 0; i < kWarmUp; ++i) bench.Update();
      AwaitGpu();
      const torch::profiler::impl::ProfilerConfig config(
          torch::profiler::impl::ProfilerState::KINETO);
      const std::set<ActivityType> activities = {ActivityType::CUDA};
      torch::autograd::profiler::prepareProfiler(config, activities);
      torch::autograd::profiler::enableProfiler(config, activities);
      for (int i = 0; i < kUpdates; ++i) bench.Update();
      AwaitGpu();
      const auto result = torch::autograd::profiler::disableProfiler();
      struct Total {
        double us = 0;
        int64_t calls = 0;
      };
      std::map<std::string, Total> kernels;
      Total all;
      for (const auto& event : result->events()) {
        if (event.deviceType() != c10::DeviceType::CUDA) continue;
        const double us = 1e-3 * static_cast<double>(event.durationNs());
        for (Total* total : {&kernels[event.name()], &all}) {
          total->us += us;
          ++total->calls;
        }
      }
      std::vector<std::pair<std::string, Total>> sorted(kernels.begin(), kernels.end());
      std::sort(sorted.begin(), sorted.end(),
                [](const auto& a, const auto& b) { return a.second.us > b.second.us; });
      std::printf("\n%s: %.1f kernels and copies an update, %.1f us of them\n", title.c_str(),
                  static_cast<double>(all.calls) / kUpdates, all.us / kUpdates);
      std::printf("| us an update | calls | us each | kernel |\n|---|---|---|---|\n");
      for (const auto& [name, total] : sorted) {
        std::printf("| %.1f | %.1f | %.2f | %s |\n", total.us / kUpdates,
                    static_cast<double>(total.calls) / kUpdates,
                    total.us / static_cast<double>(total.calls), name.substr(0, 140).c_str());
      }
      std::fflush(stdout);
    }
  }
}

int Main(const Arguments& arguments) {
  const absl::StatusOr<at::Device> device = FindDevice("device", "cuda");
  if (!device.ok()) {
    std::fprintf(stderr, "gpu_bench: %s\n", device.status().ToString().c_str());
    return 1;
  }
  cudaDeviceProp properties;
  C10_CUDA_CHECK(cudaGetDeviceProperties(&properties, 0));
  std::printf("%s, commit %s\n", properties.name, arguments.commit.c_str());
  if (arguments.profile) {
    RunProfile(arguments);
  } else {
    RunUpdates(arguments);
    RunUpdatesBesidePlans(arguments);
    RunDataParallel(arguments);
    RunPlans(arguments);
  }
  return 0;
}

}  // namespace
}  // namespace pompc

int main(int argc, char** argv) {
  pompc::SeparateStreams();  // As the learner does.
  pompc::Arguments arguments;
  for (int i = 1; i < argc; ++i) {
    absl::string_view argument = argv[i];
    if (absl::ConsumePrefix(&argument, "--commit=")) {
      arguments.commit = std::string(argument);
    } else if (absl::ConsumePrefix(&argument, "--only=")) {
      arguments.only = std::string(argument);
    } else if (argument == "--profile") {
      arguments.profile = true;
    } else if (!absl::ConsumePrefix(&argument, "--seconds=") ||
               !absl::SimpleAtod(argument, &arguments.seconds) || !(arguments.seconds > 0)) {
      std::fprintf(stderr, "gpu_bench [--commit=HASH] [--seconds=S] [--only=TEXT] [--profile]\n");
      return 2;
    }
  }
  return pompc::Main(arguments);
}
