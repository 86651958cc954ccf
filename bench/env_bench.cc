// How fast environments step, beside a bare loop of the same MuJoCo calls and beside peers, in one
// run.
//
//   env_bench [--envpool=PYTHON] [--dm_control=PYTHON] [task ...]
//
// Table 1: control steps per second of CPU time on one core, with observation and reward at each.
// "bare" sets the controls and makes the physics calls of a control step and nothing else;
// "environment" is Environment::Step() with action_repeat 1, so it checks, scales, observes and
// rewards at every control step. A peer, when a Python that has it is given
// (bench/peers/README.md), is measured by bench/peers/env_peers.py. All get the same random actions
// for one episode of 1000 control steps after a reset that is not timed, bare and environment from
// the same state; they take turns, and the best round of each counts. Table 2: control steps per
// second of wall time of an EnvironmentBatch on one and two threads. Their decisions are the same
// ones, so the best time of each decision over the rounds counts.
#include <time.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "actor/env/environment_batch.h"
#include "actor/env/random_state.h"
#include "actor/env/suite_environment.h"
#include "common/base/check.h"

namespace pompc {
namespace {

constexpr int kRounds = 9;
constexpr int kRoundsPerPeerRound = 3;  // Starting a peer takes long.
constexpr int kSteps = 1000;

struct Peer {
  std::string name;
  std::string python;
  double best = 0;  // Control steps per second.
};

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

// CPU seconds of kSteps control steps after a reset, nothing but the physics.
double TimeBare(dmc::SuiteEnvironment& environment, absl::Span<const float> actions) {
  std::vector<float> observation(environment.spec().observation_dim);
  environment.Seed(0);
  POMPC_CHECK_OK(environment.Reset(absl::MakeSpan(observation)));
  const mjModel* m = &environment.physics().model();
  mjData* d = &environment.physics().data();
  const EnvironmentSpec& spec = environment.spec();
  const size_t dim = spec.action_dim;
  const bool euler = m->opt.integrator != mjINT_RK4;
  const double start = CpuSeconds();
  for (int step = 0; step < kSteps; ++step) {
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

double TimeEnvironment(Environment& environment, absl::Span<const float> actions) {
  std::vector<float> observation(environment.spec().observation_dim);
  environment.Seed(0);
  POMPC_CHECK_OK(environment.Reset(absl::MakeSpan(observation)));
  const size_t dim = environment.spec().action_dim;
  const double start = CpuSeconds();
  for (int step = 0; step < kSteps; ++step) {
    POMPC_CHECK_OK(
        environment.Step(actions.subspan(step * dim, dim), absl::MakeSpan(observation)).status());
  }
  return CpuSeconds() - start;
}

// Control steps per second of a peer, from the JSON line that env_peers.py prints.
double MeasurePeer(const Peer& peer, const std::string& task) {
  const std::string command =
      absl::StrCat("'", peer.python, "' '", POMPC_ENV_PEERS, "' ", peer.name, " '", task, "'");
  std::FILE* output = popen(command.c_str(), "r");
  POMPC_CHECK(output != nullptr) << command;
  std::string text;
  char line[512];
  while (std::fgets(line, sizeof(line), output) != nullptr) text += line;
  POMPC_CHECK(pclose(output) == 0) << command << " failed: " << text;
  const std::string key = "\"control_steps_per_second\": ";
  const size_t found = text.find(key);
  POMPC_CHECK(found != std::string::npos) << command << " printed " << text;
  return std::strtod(text.c_str() + found + key.size(), nullptr);
}

void CompareWithBareAndPeers(const std::vector<std::string>& tasks, std::vector<Peer> peers) {
  std::printf("%-26s %12s %12s %8s", "control steps/s, one core", "bare", "environment", "of bare");
  for (const Peer& peer : peers) std::printf(" %12s %8s", peer.name.c_str(), "ours is");
  std::printf("\n");
  for (const std::string& task : tasks) {
    const auto bare = Make(task);
    const auto environment = Make(task);
    const std::vector<float> actions = RandomActions(kSteps * bare->spec().action_dim);
    double best_bare = 0, best_environment = 0;
    for (Peer& peer : peers) peer.best = 0;
    for (int round = 0; round < kRounds; ++round) {
      best_bare = std::max(best_bare, kSteps / TimeBare(*bare, actions));
      best_environment =
          std::max(best_environment, kSteps / TimeEnvironment(*environment, actions));
      if (round % kRoundsPerPeerRound != 0) continue;
      for (Peer& peer : peers) peer.best = std::max(peer.best, MeasurePeer(peer, task));
    }
    std::printf("%-26s %12.0f %12.0f %7.1f%%", task.c_str(), best_bare, best_environment,
                100 * best_environment / best_bare);
    for (const Peer& peer : peers) {
      std::printf(" %12.0f %7.2fx", peer.best, best_environment / peer.best);
    }
    std::printf("\n");
    std::fflush(stdout);
  }
}

// A batch that can be driven through the same decisions again and again.
class BatchTimer {
 public:
  BatchTimer(const std::string& task, int num_threads) : best_(kDecisions, 1e9) {
    auto batch =
        EnvironmentBatch::Create({.task = task, .action_repeat = kRepeat}, kSize, num_threads);
    POMPC_CHECK_OK(batch.status());
    batch_ = *std::move(batch);
    actions_ = RandomActions(kDecisions * kSize * batch_->spec().action_dim);
    observations_.resize(kSize * batch_->spec().observation_dim);
    results_.resize(kSize);
  }

  void Round() {
    for (int i = 0; i < kSize; ++i) batch_->environment(i).Seed(i);
    POMPC_CHECK_OK(batch_->Reset(absl::MakeSpan(observations_)));
    const size_t num_actions = actions_.size() / kDecisions;
    for (int i = 0; i < kDecisions; ++i) {
      const auto actions = absl::MakeConstSpan(actions_).subspan(i * num_actions, num_actions);
      const double start = WallSeconds();
      POMPC_CHECK_OK(
          batch_->Step(actions, absl::MakeSpan(observations_), absl::MakeSpan(results_)));
      best_[i] = std::min(best_[i], WallSeconds() - start);
    }
  }

  // Control steps per second of wall time.
  double Rate() const {
    return kDecisions * kSize * kRepeat / std::accumulate(best_.begin(), best_.end(), 0.0);
  }

 private:
  static constexpr int kSize = 64, kDecisions = 20, kRepeat = 2;
  std::unique_ptr<EnvironmentBatch> batch_;
  std::vector<float> actions_, observations_;
  std::vector<StepResult> results_;
  std::vector<double> best_;  // Seconds of each decision.
};

void CompareThreads(const std::vector<std::string>& tasks) {
  std::printf("\n%-26s %12s %12s %8s\n", "control steps/s, batch", "1 thread", "2 threads",
              "ratio");
  for (const std::string& task : tasks) {
    BatchTimer one(task, 1);
    BatchTimer two(task, 2);
    for (int round = 0; round < kRounds; ++round) {
      one.Round();
      two.Round();
    }
    std::printf("%-26s %12.0f %12.0f %7.2fx\n", task.c_str(), one.Rate(), two.Rate(),
                two.Rate() / one.Rate());
    std::fflush(stdout);
  }
}

}  // namespace
}  // namespace pompc

int main(int argc, char** argv) {
  std::vector<std::string> tasks;
  std::vector<pompc::Peer> peers;
  for (const absl::string_view argument : absl::MakeConstSpan(argv, argc).subspan(1)) {
    absl::string_view python = argument;
    if (absl::ConsumePrefix(&python, "--envpool=")) {
      peers.push_back({"envpool", std::string(python)});
    } else if (absl::ConsumePrefix(&python, "--dm_control=")) {
      peers.push_back({"dm_control", std::string(python)});
    } else {
      tasks.emplace_back(argument);
    }
  }
  if (tasks.empty()) {
    tasks = {"cartpole-swingup", "walker-run",    "cheetah-run",
             "humanoid-run",     "quadruped-run", "dog-run"};
  }
  pompc::CompareWithBareAndPeers(tasks, peers);
  pompc::CompareThreads(tasks);
}
