// How fast one GPU plans, beside LibTorch's operators called one by one, as Markdown tables.
//
//   gpu_plan_bench               plans a second over batch sizes; takes four minutes
//   gpu_plan_bench --brief       the same of dog-run in bfloat16 alone
//   gpu_plan_bench --kernels     which kernels a plan of dog-run spends its time in
//
// Networks are those of the 5M presets: "2 V heads" is bmpc, "5 Q heads" is tdmpc2. Wall time of
// Plan(), results left on the GPU; median of the rounds. The floor is the time of the matrix
// products alone (of a plan that shares nothing between sequences) at the bfloat16 rate of a
// product [32768, 512] x [512, 512] of the same run.
#include <ATen/ATen.h>
#include <c10/cuda/CUDAStream.h>
#include <cuda_runtime_api.h>
#include <cupti.h>
#include <cxxabi.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "common/base/check.h"
#include "common/config/config.h"
#include "common/model/fused_layers.h"
#include "common/model/noise.h"
#include "common/planner/mppi_planner.h"

namespace pompc {
namespace {

constexpr int kRounds = 5;
constexpr double kRoundSeconds = 0.4;

struct Task {
  const char* name;
  int64_t obs, action;
};
constexpr Task kTasks[] = {{"dog-run", 223, 38}, {"walker-run", 24, 6}};
constexpr std::pair<const char*, const char*> kPresets[] = {{"bmpc", "2 V heads"},
                                                            {"tdmpc2", "5 Q heads"}};
constexpr int64_t kBatches[] = {1, 16, 64, 128, 256};

const at::TensorOptions& Gpu() {
  static const at::TensorOptions options = at::TensorOptions(at::kFloat).device(at::kCUDA, 0);
  return options;
}

double Seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Calls per second: the median of the rounds. `call` may leave work on the GPU.
double Rate(const std::function<void()>& call) {
  const auto synchronize = [] { c10::cuda::getCurrentCUDAStream().synchronize(); };
  for (int i = 0; i < 3; ++i) call();
  std::vector<double> rates;
  for (int round = 0; round < kRounds; ++round) {
    synchronize();
    const double start = Seconds();
    int64_t calls = 0;
    double seconds = 0;
    do {
      call();
      if (++calls % 20 == 0) synchronize();
      seconds = Seconds() - start;
    } while (seconds < kRoundSeconds);
    synchronize();
    rates.push_back(static_cast<double>(calls) / (Seconds() - start));
  }
  std::sort(rates.begin(), rates.end());
  return rates[kRounds / 2];
}

class Plans {
 public:
  Plans(const Task& task, const char* preset, v1::MatmulPrecision precision, int64_t batch) {
    absl::StatusOr<v1::RunConfig> config = LoadRunConfig(preset, "", {});
    POMPC_CHECK_OK(config.status());
    parameters_ = *Parameters::Create(ModelSpec::FromConfig(*config, task.obs, task.action),
                                      ParameterUse::kActing, Gpu());
    parameters_->Initialise(1);
    // Last layers start at 0; a trained model's values differ between sequences.
    parameters_->flat().add_(noise_.Normal({parameters_->layout().size()}), 0.02);
    MppiOptions options = MppiOptions::FromConfig(*config, 500);
    options.precision = precision;
    planner_ = *MppiPlanner::Create(
        options, std::make_shared<const WorldModel>(parameters_, WorldModel::Gradients::kNone));
    obs_ = noise_.Normal({batch, task.obs});
  }

  void operator()() {
    POMPC_CHECK_OK(planner_->Plan({obs_, {}, PlanMode::kAct}, noise_, &state_).status());
  }

  // Multiplications and additions of one plan in which each sequence computes everything itself.
  double Flops() const {
    const ModelSpec& spec = parameters_->spec();
    const v1::PlannerConfig& config = planner_->options().config;
    const auto mlp = [&](int64_t in, int64_t out) {
      const int64_t width = spec.config.mlp_dim();
      return 2.0 * static_cast<double>(in * width + width * width + width * out);
    };
    const int64_t latent = spec.config.latent_dim(), joined = latent + spec.action_dim;
    const bool q = spec.config.value_kind() == v1::ModelConfig::Q;
    const double policy = mlp(latent, 2 * spec.action_dim), next = mlp(joined, latent);
    const double reward = mlp(joined, spec.config.num_bins());
    const double value = mlp(q ? joined : latent, spec.config.num_bins());
    return config.num_policy_samples() *
               (config.horizon() * policy + (config.horizon() - 1) * next) +
           static_cast<double>(planner_->iterations()) * config.num_samples() *
               (config.horizon() * (next + reward) + (q ? policy : 0) + 2 * value);
  }

 private:
  GeneratorNoise noise_{1, Gpu()};
  std::shared_ptr<Parameters> parameters_;
  std::unique_ptr<MppiPlanner> planner_;
  at::Tensor obs_;
  PlannerState state_;
};

// FLOP/s of the planner's typical product.
double ProductRate() {
  constexpr int64_t kRows = 32768, kWidth = 512;
  const at::TensorOptions options = Gpu().dtype(at::kBFloat16);
  const at::Tensor x = at::randn({kRows, kWidth}, options),
                   w = at::randn({kWidth, kWidth}, options);
  at::Tensor y = at::empty({kRows, kWidth}, options);
  return Rate([&] { at::mm_out(y, x, w.t()); }) * 2.0 * kRows * kWidth * kWidth;
}

void PrintRates(bool brief) {
  const double product_rate = ProductRate();
  std::printf("Product [32768, 512] x [512, 512], bfloat16: %.0f TFLOP/s\n\n",
              product_rate * 1e-12);
  std::printf("| plans/s | E = 1 | 16 | 64 | 128 | 256 | ms at E = 1 | of the floor |\n");
  std::printf("|---|---|---|---|---|---|---|---|\n");
  for (const Task& task : kTasks) {
    if (brief && &task != kTasks) continue;
    for (const auto& [preset, heads] : kPresets) {
      for (const auto precision : {v1::BF16, v1::TF32, v1::FP32}) {
        for (const bool operators : {false, true}) {
          if (operators && precision != v1::FP32) continue;
          if (brief && precision != v1::BF16) continue;
          std::printf(
              "| %s, %s, %s |", task.name, heads,
              operators ? "operators, float32" : v1::MatmulPrecision_Name(precision).c_str());
          double single = 0, best = 0, flops = 0;
          for (const int64_t batch : kBatches) {
            std::unique_ptr<OperatorsOnly> scope;
            if (operators) scope = std::make_unique<OperatorsOnly>();
            Plans plans(task, preset, precision, batch);
            const double rate = Rate([&] { plans(); }) * static_cast<double>(batch);
            if (batch == 1) single = rate;
            best = std::max(best, rate);
            flops = plans.Flops();
            std::printf(" %.0f |", rate);
            std::fflush(stdout);
          }
          std::printf(" %.2f | %.0f %% |\n", 1e3 / single, 100 * best * flops / product_rate);
        }
      }
    }
  }
}

// --- Kernels, as CUPTI saw them. ---

struct KernelTime {
  int64_t calls = 0;
  double us = 0;
};
std::map<std::string, KernelTime> kernels;
std::vector<std::pair<uint64_t, uint64_t>> spans;  // ns

std::string ShortName(const char* mangled) {
  int status = 0;
  char* text = abi::__cxa_demangle(mangled, nullptr, nullptr, &status);
  std::string name = text != nullptr ? text : mangled;
  std::free(text);
  for (const char* part : {"void ", "pompc::(anonymous namespace)::"}) {
    if (name.rfind(part, 0) == 0) name.erase(0, std::strlen(part));
  }
  return name.substr(0, 76);
}

void CUPTIAPI RequestBuffer(uint8_t** buffer, size_t* size, size_t* max_records) {
  *size = size_t{16} << 20;
  *buffer = static_cast<uint8_t*>(std::aligned_alloc(8, *size));
  *max_records = 0;
}

void CUPTIAPI CompleteBuffer(CUcontext, uint32_t, uint8_t* buffer, size_t, size_t valid) {
  CUpti_Activity* record = nullptr;
  while (cuptiActivityGetNextRecord(buffer, valid, &record) == CUPTI_SUCCESS) {
    if (record->kind != CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL) continue;
    const auto* kernel = reinterpret_cast<const CUpti_ActivityKernel10*>(record);
    KernelTime& time = kernels[ShortName(kernel->name)];
    ++time.calls;
    time.us += 1e-3 * static_cast<double>(kernel->end - kernel->start);
    spans.emplace_back(kernel->start, kernel->end);
  }
  std::free(buffer);
}

void PrintKernels(const char* preset, const char* heads, int64_t batch) {
  constexpr int kCalls = 5;
  Plans plans(kTasks[0], preset, v1::BF16, batch);
  const double ms = 1e3 / Rate([&] { plans(); });
  kernels.clear();
  spans.clear();
  POMPC_CHECK(cuptiActivityRegisterCallbacks(RequestBuffer, CompleteBuffer) == CUPTI_SUCCESS);
  POMPC_CHECK(cuptiActivityEnable(CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL) == CUPTI_SUCCESS);
  for (int i = 0; i < kCalls; ++i) plans();
  POMPC_CHECK(cuptiActivityFlushAll(1) == CUPTI_SUCCESS);
  POMPC_CHECK(cuptiActivityDisable(CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL) == CUPTI_SUCCESS);

  std::vector<std::pair<std::string, KernelTime>> sorted(kernels.begin(), kernels.end());
  std::sort(sorted.begin(), sorted.end(),
            [](const auto& a, const auto& b) { return a.second.us > b.second.us; });
  double sum = 0;
  int64_t calls = 0;
  for (const auto& [name, time] : sorted) {
    sum += time.us;
    calls += time.calls;
  }
  std::sort(spans.begin(), spans.end());
  double busy = 0;
  uint64_t until = 0;
  for (const auto& [start, end] : spans) {
    if (end > until) busy += 1e-3 * static_cast<double>(end - std::max(start, until));
    until = std::max(until, end);
  }
  std::printf(
      "\n%s, %s, E = %d: %.3f ms a batch untraced; traced %ld kernels, %.0f us of them, GPU "
      "busy %.0f us\n\n",
      kTasks[0].name, heads, static_cast<int>(batch), ms, static_cast<long>(calls / kCalls),
      sum / kCalls, busy / kCalls);
  std::printf("| kernel | calls | us | share |\n|---|---|---|---|\n");
  for (const auto& [name, time] : sorted) {
    if (time.us < 0.005 * sum) continue;
    std::printf("| `%s` | %ld | %.1f | %.1f %% |\n", name.c_str(),
                static_cast<long>(time.calls / kCalls), time.us / kCalls, 100 * time.us / sum);
  }
}

std::string CommitName() {
  std::FILE* output = popen("git -C '" POMPC_SOURCE_DIR "' describe --always --dirty", "r");
  char line[128] = "unknown\n";
  if (output != nullptr) {
    if (std::fgets(line, sizeof(line), output) == nullptr) std::strcpy(line, "unknown\n");
    pclose(output);
  }
  return line;
}

int Main(int argc, char** argv) {
  const std::string mode = argc == 2 ? argv[1] : "";
  if (argc > 2 || (mode != "" && mode != "--brief" && mode != "--kernels")) {
    std::fprintf(stderr, "gpu_plan_bench [--brief | --kernels]\n");
    return 2;
  }
  cudaDeviceProp properties;
  if (cudaGetDeviceProperties(&properties, 0) != cudaSuccess) {
    std::fprintf(stderr, "gpu_plan_bench: this machine has no GPU\n");
    return 1;
  }
  std::printf("%s, commit %s\n", properties.name, CommitName().c_str());
  if (mode == "--kernels") {
    for (const auto& [preset, heads] : kPresets) {
      for (const int64_t batch : {1, 64}) PrintKernels(preset, heads, batch);
    }
  } else {
    PrintRates(mode == "--brief");
  }
  return 0;
}

}  // namespace
}  // namespace pompc

int main(int argc, char** argv) { return pompc::Main(argc, argv); }
