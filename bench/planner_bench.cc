// How fast one core plans and updates, beside LibTorch's operators called one by one and beside a
// peer, in one run.
//
//   planner_bench [--tdmpc2=PYTHON:CHECKOUT] [size ...]
//
// "operators": the same plans and updates with the layers of LibTorch (OperatorsOnly). "tdmpc2":
// the published TD-MPC2 run by bench/peers/tdmpc2_cpu.py. All see observations of 24 and actions of
// 6 numbers (walker). CPU time; the contestants take turns, and the best round of each counts.
// "FP32", "BF16": actor.matmul_precision, BF16 where the processor multiplies such numbers.
// GFLOP/s counts the products of a plan that shares nothing between sequences, so it is plans/s in
// other units. Allocations are calls of malloc and its kin during a plan, after the first.
#include <time.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "common/base/check.h"
#include "common/config/config.h"
#include "common/model/device.h"
#include "common/model/fused_layers.h"
#include "common/model/kernels.h"
#include "common/model/noise.h"
#include "common/planner/mppi_planner.h"
#include "learner/core/updater.h"

// Counts allocations: takes the place of the C library's functions in the whole process.
namespace {
std::atomic<int64_t> num_allocations = 0;
}
extern "C" {
// NOLINTBEGIN(bugprone-reserved-identifier): the C library's own names.
void* __libc_malloc(size_t);
void* __libc_calloc(size_t, size_t);
void* __libc_realloc(void*, size_t);
void* __libc_memalign(size_t, size_t);
// NOLINTEND(bugprone-reserved-identifier)
void* malloc(size_t size) {
  num_allocations.fetch_add(1, std::memory_order_relaxed);
  return __libc_malloc(size);
}
void* calloc(size_t count, size_t size) {
  num_allocations.fetch_add(1, std::memory_order_relaxed);
  return __libc_calloc(count, size);
}
void* realloc(void* old, size_t size) {
  num_allocations.fetch_add(1, std::memory_order_relaxed);
  return __libc_realloc(old, size);
}
void* aligned_alloc(size_t alignment, size_t size) {
  num_allocations.fetch_add(1, std::memory_order_relaxed);
  return __libc_memalign(alignment, size);
}
int posix_memalign(void** out, size_t alignment, size_t size) {
  num_allocations.fetch_add(1, std::memory_order_relaxed);
  *out = __libc_memalign(alignment, size);
  return *out == nullptr ? 12 : 0;  // ENOMEM
}
}

namespace pompc {
namespace {

constexpr int kRounds = 5;
constexpr double kRoundSeconds = 1;
constexpr int64_t kObs = 24, kAction = 6, kEpisodeDecisions = 500;

struct Size {
  const char* name;
  int latent, encoder, mlp, heads;
  int samples, proposals, elites, iterations;
  int batch;
};
constexpr Size kSizes[] = {
    {"5M", 512, 256, 512, 5, 512, 24, 64, 6, 256},
    {"latent64", 64, 128, 128, 5, 256, 16, 32, 4, 256},
    {"latent32", 32, 96, 96, 2, 128, 8, 16, 4, 128},
};

v1::RunConfig ConfigOf(const Size& size, const std::string& preset) {
  absl::StatusOr<v1::RunConfig> loaded = LoadRunConfig(preset, "", {});
  POMPC_CHECK_OK(loaded.status());
  v1::RunConfig config = *std::move(loaded);
  config.mutable_model()->set_latent_dim(size.latent);
  config.mutable_model()->set_encoder_dim(size.encoder);
  config.mutable_model()->set_mlp_dim(size.mlp);
  config.mutable_model()->set_num_value_heads(size.heads);
  config.mutable_planner()->set_num_samples(size.samples);
  config.mutable_planner()->set_num_policy_samples(size.proposals);
  config.mutable_planner()->set_num_elites(size.elites);
  config.mutable_planner()->set_iterations(size.iterations);
  config.mutable_learning()->set_batch_size(size.batch);
  return config;
}

double CpuSeconds() {
  timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

// Calls per CPU second over one round.
double Rate(const std::function<void()>& call) {
  const double start = CpuSeconds();
  int64_t calls = 0;
  double seconds = 0;
  do {
    call();
    ++calls;
    seconds = CpuSeconds() - start;
  } while (seconds < kRoundSeconds);
  return static_cast<double>(calls) / seconds;
}

struct Contestant {
  std::function<void()> call;
  double best = 0;  // Calls per CPU second.
};

// One warm-up call of each, then rounds in turn; `between` runs in the first rounds.
void Compete(const std::vector<Contestant*>& contestants,
             const std::function<void()>& between = {}) {
  for (Contestant* c : contestants) c->call();
  for (int round = 0; round < kRounds; ++round) {
    for (Contestant* c : contestants) c->best = std::max(c->best, Rate(c->call));
    if (between && round % 2 == 0) between();
  }
}

// The call with LibTorch's operators.
Contestant OnOperators(const std::function<void()>& call) {
  return {[call] {
    const OperatorsOnly operators;
    call();
  }};
}

// Multiplications and additions of a perceptron for one row.
double Flops(const std::vector<int>& widths) {
  double flops = 0;
  for (size_t i = 1; i < widths.size(); ++i) flops += 2.0 * widths[i - 1] * widths[i];
  return flops;
}

double PlanFlops(const Size& s, const v1::RunConfig& config) {
  const int bins = config.model().num_bins(), horizon = config.planner().horizon();
  const int za = s.latent + static_cast<int>(kAction);
  const double policy = Flops({s.latent, s.mlp, s.mlp, 2 * static_cast<int>(kAction)});
  const double next = Flops({za, s.mlp, s.mlp, s.latent});
  const double head = Flops({za, s.mlp, s.mlp, bins});
  return s.proposals * (horizon * policy + (horizon - 1) * next) +
         s.iterations * s.samples * (horizon * (next + head) + policy + 2 * head);
}

MppiOptions Planning(const v1::RunConfig& config, v1::MatmulPrecision precision) {
  MppiOptions options = MppiOptions::FromConfig(config, kEpisodeDecisions);
  options.precision = precision;
  return options;
}

class PlannerBench {
 public:
  PlannerBench(const v1::RunConfig& config, v1::MatmulPrecision precision)
      : parameters_(*Parameters::Create(ModelSpec::FromConfig(config, kObs, kAction),
                                        ParameterUse::kActing)),
        model_(std::make_shared<const WorldModel>(parameters_, WorldModel::Gradients::kNone)),
        planner_(*MppiPlanner::Create(Planning(config, precision), model_)),
        obs_(noise_.Normal({1, kObs})) {
    parameters_->Initialise(1);
  }

  void Plan() {
    POMPC_CHECK_OK(planner_->Plan({obs_, {}, PlanMode::kAct}, noise_, &state_).status());
  }

  int64_t AllocationsPerPlan() {
    Plan();
    const int64_t before = num_allocations;
    Plan();
    return num_allocations - before;
  }

 private:
  GeneratorNoise noise_{1};
  std::shared_ptr<Parameters> parameters_;
  std::shared_ptr<const WorldModel> model_;
  std::unique_ptr<MppiPlanner> planner_;
  at::Tensor obs_;
  PlannerState state_;
};

class UpdateBench {
 public:
  explicit UpdateBench(const v1::RunConfig& config) {
    UpdaterOptions options;
    options.obs_dim = kObs;
    options.action_dim = kAction;
    options.episode_decisions = kEpisodeDecisions;
    options.seed = 1;
    auto updater = Updater::Create(config, options);
    POMPC_CHECK_OK(updater.status());
    updater_ = *std::move(updater);
    const int64_t steps = config.learning().window(), windows = config.learning().batch_size();
    batch_ = {noise_.Normal({steps + 1, windows, kObs}),
              noise_.Normal({steps, windows, kAction}).clamp_(-1, 1),
              noise_.Normal({steps, windows}).abs_(),
              at::zeros({steps, windows}),
              at::zeros({steps, windows, kAction}),
              at::ones({steps, windows, kAction})};
  }

  void Update() { POMPC_CHECK_OK(updater_->Update({}, batch_, noise_).status()); }

 private:
  GeneratorNoise noise_{1};
  std::unique_ptr<Updater> updater_;
  Batch batch_;
};

// GFLOP/s of a 512 x 512 x 512 product: LibTorch's and ours with the right side packed.
std::pair<double, double> GemmRates() {
  constexpr int64_t n = 512;
  const at::Tensor a = at::rand({n, n}), b = at::rand({n, n});
  at::Tensor c = at::empty({n, n});
  const std::vector<float> zeros(n);
  std::vector<float> packed(PackedSize(n, n));
  Kernels().pack(b.const_data_ptr<float>(), n, 1, n, n, packed.data());
  Contestant libtorch = {[&] { at::mm_out(c, a, b); }};
  Contestant ours = {[&] {
    Kernels().gemm_packed(n, n, n, a.const_data_ptr<float>(), n, false, packed.data(), zeros.data(),
                          0, c.data_ptr<float>(), n);
  }};
  Compete({&libtorch, &ours});
  constexpr double kGiga = 2e-9 * n * n * n;
  return {libtorch.best * kGiga, ours.best * kGiga};
}

// What a command writes to its standard output.
std::string OutputOf(const std::string& command) {
  std::FILE* output = popen(command.c_str(), "r");
  POMPC_CHECK(output != nullptr) << command;
  std::string text;
  char line[512];
  while (std::fgets(line, sizeof(line), output) != nullptr) text += line;
  POMPC_CHECK(pclose(output) == 0) << command << " failed";
  return text;
}

struct Peer {
  std::string python, checkout;
  double plans = 0, updates = 0;  // Per CPU second, best so far.

  void Measure(const Size& s) {
    const std::string command = absl::StrCat(
        "'", python, "' '", POMPC_SOURCE_DIR, "/bench/peers/tdmpc2_cpu.py' '", checkout,
        "' task=walker-walk obs_dim=", kObs, " action_dim=", kAction, " latent_dim=", s.latent,
        " enc_dim=", s.encoder, " mlp_dim=", s.mlp, " num_q=", s.heads, " num_samples=", s.samples,
        " num_pi_trajs=", s.proposals, " num_elites=", s.elites, " iterations=", s.iterations,
        " batch_size=", s.batch, " 2>/dev/null");
    const std::string text = OutputOf(command);
    const auto value = [&](const std::string& key) {
      const size_t found = text.find(key);
      POMPC_CHECK(found != std::string::npos) << command << " printed " << text;
      return std::strtod(text.c_str() + found + key.size(), nullptr);
    };
    plans = std::max(plans, value("\"plans_per_second\": "));
    updates = std::max(updates, value("\"updates_per_second\": "));
  }
};

void PrintRow(const char* size, const char* what, double operators, double ours, double peer,
              const std::string& more) {
  std::printf("%-9s %-16s %10.2f %10.2f %6.2fx", size, what, operators, ours, ours / operators);
  if (peer > 0) {
    std::printf(" %10.2f %6.2fx", peer, ours / peer);
  } else {
    std::printf(" %10s %7s", "-", "-");
  }
  std::printf("  %s\n", more.c_str());
  std::fflush(stdout);
}

void RunSize(const Size& size, double libtorch_gemm, Peer* peer) {
  const v1::RunConfig config = ConfigOf(size, "tdmpc2");
  PlannerBench ours_bench(config, v1::FP32), operators_bench(config, v1::FP32);
  PlannerBench bfloat16_bench(config, v1::BF16);
  UpdateBench ours_updates(config), operators_updates(config);
  Contestant ours = {[&] { ours_bench.Plan(); }};
  Contestant bfloat16 = {[&] { bfloat16_bench.Plan(); }};
  Contestant operators = OnOperators([&] { operators_bench.Plan(); });
  Contestant ours_update = {[&] { ours_updates.Update(); }};
  Contestant operators_update = OnOperators([&] { operators_updates.Update(); });
  Compete({&operators, &ours, &bfloat16, &operators_update, &ours_update}, [&] {
    if (peer->python.empty()) return;
    peer->Measure(size);
  });
  if (HasBFloat16Products()) {
    PrintRow(size.name, "plans/s BF16", operators.best, bfloat16.best, peer->plans,
             absl::StrCat(bfloat16_bench.AllocationsPerPlan(), " allocations a plan"));
  }
  const double giga = 1e-9 * PlanFlops(size, config);
  PrintRow(size.name, "plans/s FP32", operators.best, ours.best, peer->plans,
           absl::StrCat(ours_bench.AllocationsPerPlan(), " allocations a plan"));
  char share[64];
  std::snprintf(share, sizeof(share), "%.0f %% of LibTorch's GEMM",
                100 * ours.best * giga / libtorch_gemm);
  PrintRow(size.name, "GFLOP/s FP32", operators.best * giga, ours.best * giga, 0, share);
  PrintRow(size.name, "updates/s", operators_update.best, ours_update.best, peer->updates,
           "preset tdmpc2");

  const v1::RunConfig pompc = ConfigOf(size, "pompc");
  UpdateBench ours_pompc(pompc), operators_pompc(pompc);
  Contestant ours_full = {[&] { ours_pompc.Update(); }};
  Contestant operators_full = OnOperators([&] { operators_pompc.Update(); });
  Compete({&operators_full, &ours_full});
  PrintRow(size.name, "updates/s", operators_full.best, ours_full.best, 0,
           "preset pompc, reanalyze included");
}

std::string CpuModel() {
  std::ifstream file("/proc/cpuinfo");
  std::string line;
  while (std::getline(file, line)) {
    if (absl::StartsWith(line, "model name")) return line.substr(line.find(':') + 2);
  }
  return "unknown CPU";
}

void Run(const std::vector<std::string>& sizes, const Peer& peer) {
  SetCpuThreads(1);
  const auto [libtorch, ours] = GemmRates();
  const std::string commit =
      OutputOf("git -C '" POMPC_SOURCE_DIR "' describe --always --dirty || echo unknown");
  std::printf("%s, kernels %s, commit %s", CpuModel().c_str(), Kernels().isa, commit.c_str());
  std::printf("GEMM 512 x 512 x 512, GFLOP/s: LibTorch %.1f, ours %.1f (%.2fx)\n", libtorch, ours,
              ours / libtorch);
  std::printf("%-9s %-16s %10s %10s %7s %10s %7s\n", "size", "one core", "operators", "ours", "is",
              "tdmpc2", "ours is");
  for (const Size& size : kSizes) {
    if (!sizes.empty() && std::find(sizes.begin(), sizes.end(), size.name) == sizes.end()) continue;
    Peer fresh = {peer.python, peer.checkout};
    RunSize(size, libtorch, &fresh);
  }
}

}  // namespace
}  // namespace pompc

int main(int argc, char** argv) {
  std::vector<std::string> sizes;
  pompc::Peer peer;
  for (int i = 1; i < argc; ++i) {
    absl::string_view argument = argv[i];
    if (absl::ConsumePrefix(&argument, "--tdmpc2=")) {
      const std::vector<std::string> parts = absl::StrSplit(argument, absl::MaxSplits(':', 1));
      if (parts.size() == 2) {
        peer = {parts[0], parts[1]};
        continue;
      }
    } else if (std::any_of(std::begin(pompc::kSizes), std::end(pompc::kSizes),
                           [&](const pompc::Size& s) { return argument == s.name; })) {
      sizes.emplace_back(argument);
      continue;
    }
    std::fprintf(stderr, "planner_bench [--tdmpc2=PYTHON:CHECKOUT] [5M|latent64|latent32 ...]\n");
    return 2;
  }
  pompc::Run(sizes, peer);
  return 0;
}
