// Overlap of planning and physics in one actor: decisions per second with 1 and more groups of
// environments, and how busy planner and physics are. No learner and no replay: parameters are
// there from the start, rows are dropped. Each number of groups has its turn in every round; shown
// is its best one, since other programs can only make it slower.
//
//   actor_bench [--set path=value]...   e.g. --set actor.environments_per_actor=16
#include <cstdio>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "actor/loop/actor_loop.h"
#include "common/base/check.h"
#include "common/base/thread.h"
#include "common/config/config.h"
#include "common/model/device.h"
#include "common/model/parameters.h"
#include "learner/client/fake_learner_client.h"

namespace pompc {
namespace {

constexpr absl::Duration kWarmUp = absl::Milliseconds(500), kTime = absl::Seconds(2);
constexpr int kRounds = 5;

class DroppingWriter final : public ReplayWriter {
 public:
  absl::Status Append(v1::Segment, absl::Time) override { return absl::OkStatus(); }
  absl::Status Flush(absl::Time) override { return absl::OkStatus(); }
};

// Per second.
struct Rates {
  double decisions = 0, plan_seconds = 0, step_seconds = 0, physics_wait_seconds = 0;
};

Rates Measure(v1::RunConfig config, int groups) {
  config.mutable_actor()->set_groups(groups);
  auto episodes = Episodes::CreateGroups(config);
  POMPC_CHECK_OK(episodes.status());
  const v1::TaskSizes sizes = episodes->front()->sizes();
  auto parameters =
      Parameters::Create(ModelSpec::FromConfig(config, sizes.observation_dim(), sizes.action_dim()),
                         ParameterUse::kActing);
  POMPC_CHECK_OK(parameters.status());
  (*parameters)->Initialise(1);
  v1::ParameterSnapshot snapshot;
  snapshot.set_trained(true);
  snapshot.set_data((*parameters)->Snapshot());
  FakeParameterSubscriber subscriber;
  subscriber.Publish(snapshot);

  Event stop;
  MetricsRegistry metrics;
  FakeLearnerClient learner({});
  DroppingWriter replay;
  const ActingPeers peers{.learner = &learner,
                          .parameters = &subscriber,
                          .replay = &replay,
                          .clock = RealClock(),
                          .stop = &stop,
                          .metrics = &metrics};
  auto loop = ActorLoop::Create(config, JoinedRun(), *std::move(episodes), peers);
  POMPC_CHECK_OK(loop.status());
  const auto sums = [&metrics] {
    const auto sum = [](Histogram* h) { return h->Collect().histogram.sample_sum; };
    return Rates{metrics.GetCounter("pompc_actor_decisions_total")->Value(),
                 sum(metrics.GetHistogram("pompc_actor_plan_duration_seconds")),
                 sum(metrics.GetHistogram("pompc_actor_step_duration_seconds")),
                 metrics.GetCounter("pompc_actor_physics_wait_seconds_total")->Value()};
  };
  Thread actor("actor", [&] {
    SetCpuThreads(config.actor().threads());
    POMPC_CHECK_OK((*loop)->Run());
  });
  RealClock()->SleepUntil(RealClock()->Now() + kWarmUp);
  const Rates before = sums();
  const absl::Time start = RealClock()->Now();
  RealClock()->SleepUntil(start + kTime);
  const Rates after = sums();
  const double seconds = absl::ToDoubleSeconds(RealClock()->Now() - start);
  stop.Notify();
  actor.Join();
  return {(after.decisions - before.decisions) / seconds,
          (after.plan_seconds - before.plan_seconds) / seconds,
          (after.step_seconds - before.step_seconds) / seconds,
          (after.physics_wait_seconds - before.physics_wait_seconds) / seconds};
}

int Main(int argc, char** argv) {
  std::vector<std::string> sets = {"environment.task=walker-walk",
                                   "actor.environments_per_actor=16"};
  for (int i = 1; i + 1 < argc; i += 2) {
    POMPC_CHECK(std::strcmp(argv[i], "--set") == 0) << argv[i];
    sets.push_back(argv[i + 1]);
  }
  const absl::StatusOr<v1::RunConfig> config = LoadRunConfig("quickstart", "", sets);
  POMPC_CHECK_OK(config.status());
  std::printf("%s, %d environments, %d threads\n", config->environment().task().c_str(),
              config->actor().environments_per_actor(), config->actor().threads());
  std::printf("%6s %14s %13s %13s %20s\n", "groups", "decisions/s", "planner busy", "physics busy",
              "waiting for physics");
  std::map<int, Rates> best;
  for (int round = 0; round < kRounds; ++round) {
    for (const int groups : {1, 2, 4}) {
      const Rates rates = Measure(*config, groups);
      if (rates.decisions > best[groups].decisions) best[groups] = rates;
    }
  }
  for (const auto& [groups, rates] : best) {
    std::printf("%6d %14.0f %12.0f%% %12.0f%% %19.0f%%\n", groups, rates.decisions,
                100 * rates.plan_seconds, 100 * rates.step_seconds,
                100 * rates.physics_wait_seconds);
  }
  return 0;
}

}  // namespace
}  // namespace pompc

int main(int argc, char** argv) { return pompc::Main(argc, argv); }
