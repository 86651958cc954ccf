// How fast environments step, beside a bare loop of the same MuJoCo calls in the same run.
//
//   env_bench [task ...]       (default: one task per order of magnitude)
//
// Table 1: control steps per second of CPU time on one core. "bare" sets the controls and makes the
// physics calls of a control step and nothing else; "environment" is Environment::Step() with
// action_repeat 1, so it checks, scales, observes and rewards at every control step. Both start
// from the same state with the same actions, take turns, and the best of the rounds counts. Table
// 2: control steps per second of wall time of an EnvironmentBatch on one and two threads.
#include <time.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "actor/env/environment_batch.h"
#include "actor/env/random_state.h"
#include "actor/env/suite_environment.h"
#include "common/base/check.h"

namespace pompc {
namespace {

constexpr int kRounds = 7;

double CpuSeconds() {
  timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

double WallSeconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

std::vector<float> RandomActions(size_t size) {
  dmc::RandomState random(0);
  std::vector<float> actions(size);
  for (float& action : actions) action = static_cast<float>(random.Uniform(-1, 1));
  return actions;
}

std::unique_ptr<dmc::SuiteEnvironment> Make(const std::string& task) {
  auto environment = dmc::SuiteEnvironment::Create({.task = task, .action_repeat = 1});
  POMPC_CHECK_OK(environment.status());
  return *std::move(environment);
}

// CPU seconds of `steps` control steps after a reset, nothing but the physics.
double TimeBare(dmc::SuiteEnvironment& environment, absl::Span<const float> actions, int steps) {
  std::vector<float> observation(environment.spec().observation_dim);
  environment.Seed(0);
  POMPC_CHECK_OK(environment.Reset(absl::MakeSpan(observation)));
  const mjModel* m = &environment.physics().model();
  mjData* d = &environment.physics().data();
  const EnvironmentSpec& spec = environment.spec();
  const size_t dim = spec.action_dim;
  const bool euler = m->opt.integrator != mjINT_RK4;
  const double start = CpuSeconds();
  for (int step = 0; step < steps; ++step) {
    for (size_t i = 0; i < dim; ++i) {
      d->ctrl[i] = spec.action_min[i] +
                   (spec.action_max[i] - spec.action_min[i]) / 2 * (actions[step * dim + i] + 1.);
    }
    if (euler) mj_step2(m, d);
    for (int i = euler ? 1 : 0; i < environment.substeps(); ++i) mj_step(m, d);
    mj_step1(m, d);
  }
  return CpuSeconds() - start;
}

double TimeEnvironment(Environment& environment, absl::Span<const float> actions, int steps) {
  std::vector<float> observation(environment.spec().observation_dim);
  environment.Seed(0);
  POMPC_CHECK_OK(environment.Reset(absl::MakeSpan(observation)));
  const size_t dim = environment.spec().action_dim;
  const double start = CpuSeconds();
  for (int step = 0; step < steps; ++step) {
    POMPC_CHECK_OK(
        environment.Step(actions.subspan(step * dim, dim), absl::MakeSpan(observation)).status());
  }
  return CpuSeconds() - start;
}

void CompareWithBare(const std::vector<std::string>& tasks) {
  std::printf("%-26s %14s %14s %8s\n", "control steps/s, one core", "bare", "environment", "ratio");
  for (const std::string& task : tasks) {
    const auto bare = Make(task);
    const auto environment = Make(task);
    constexpr int kSteps = 900;  // Within one episode.
    const std::vector<float> actions = RandomActions(kSteps * bare->spec().action_dim);
    double best_bare = 1e9, best_environment = 1e9;
    for (int round = 0; round < kRounds; ++round) {
      best_bare = std::min(best_bare, TimeBare(*bare, actions, kSteps));
      best_environment = std::min(best_environment, TimeEnvironment(*environment, actions, kSteps));
    }
    std::printf("%-26s %14.0f %14.0f %7.1f%%\n", task.c_str(), kSteps / best_bare,
                kSteps / best_environment, 100 * best_bare / best_environment);
  }
}

// Control steps per second of a batch of 16, action repeat 2.
double BatchRate(const std::string& task, int num_threads) {
  constexpr int kSize = 16, kDecisions = 100, kRepeat = 2;
  auto batch =
      EnvironmentBatch::Create({.task = task, .action_repeat = kRepeat}, kSize, num_threads);
  POMPC_CHECK_OK(batch.status());
  const EnvironmentSpec& spec = (*batch)->spec();
  const std::vector<float> actions = RandomActions(kSize * spec.action_dim);
  std::vector<float> observations(kSize * spec.observation_dim);
  std::vector<StepResult> results(kSize);
  double best = 1e9;
  for (int round = 0; round < kRounds; ++round) {
    POMPC_CHECK_OK((*batch)->Reset(absl::MakeSpan(observations)));
    const double start = WallSeconds();
    for (int i = 0; i < kDecisions; ++i) {
      POMPC_CHECK_OK(
          (*batch)->Step(actions, absl::MakeSpan(observations), absl::MakeSpan(results)));
    }
    best = std::min(best, WallSeconds() - start);
  }
  return kSize * kDecisions * kRepeat / best;
}

void CompareThreads(const std::vector<std::string>& tasks) {
  std::printf("\n%-26s %14s %14s %8s\n", "control steps/s, batch", "1 thread", "2 threads",
              "ratio");
  for (const std::string& task : tasks) {
    const double one = BatchRate(task, 1);
    const double two = BatchRate(task, 2);
    std::printf("%-26s %14.0f %14.0f %7.2fx\n", task.c_str(), one, two, two / one);
  }
}

}  // namespace
}  // namespace pompc

int main(int argc, char** argv) {
  std::vector<std::string> tasks(argv + 1, argv + argc);
  if (tasks.empty()) {
    tasks = {"cartpole-swingup", "cheetah-run",   "walker-run", "finger-spin",
             "humanoid-run",     "quadruped-run", "dog-run"};
  }
  pompc::CompareWithBare(tasks);
  pompc::CompareThreads(tasks);
}
