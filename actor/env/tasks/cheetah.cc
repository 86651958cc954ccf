// Cheetah: run forwards or backwards, run on the front or the back foot, jump.
//
// Source: dm_control 1.0.50 suite/cheetah.py (reset :63-76, observation :78-84, reward :86-92);
// the others: nicklashansen/tdmpc2@e9f5932 tdmpc2/envs/tasks/cheetah.py.
#include <memory>
#include <vector>

#include "actor/env/tasks/tasks.h"
#include "actor/env/tolerance.h"

namespace pompc::dmc {
namespace {

enum class Goal { kRun, kRunBackwards, kRunFront, kRunBack, kJump };

constexpr double kRunSpeed = 10;           // m/s
constexpr double kBackwardsSpeed = 8;      // m/s
constexpr double kOneFootSpeed = 10 * .6;  // m/s
constexpr int kSettlingSteps = 200;

class Cheetah : public Task {
 public:
  Cheetah(Physics& physics, Goal goal)
      : goal_(goal),
        velocity_(physics.SensorData("torso_subtreelinvel")),
        torso_(physics.Body("torso")),
        back_foot_(physics.Body("bfoot")),
        front_foot_(physics.Body("ffoot")) {}

  absl::Status InitializeEpisode(Physics& physics, RandomState& random) override {
    const mjModel& m = physics.model();
    for (int joint = 0; joint < m.njnt; ++joint) {
      if (!m.jnt_limited[joint]) continue;
      physics.qpos()[joint] = random.Uniform(m.jnt_range[2 * joint], m.jnt_range[2 * joint + 1]);
    }
    // The first of these steps acts on the kinematics of the default pose, as in dm_control:
    // nothing recomputes them between setting qpos and stepping.
    physics.Step(kSettlingSteps);
    physics.data().time = 0;
    return absl::OkStatus();
  }

  void Observe(const Physics& physics, ObservationWriter& out) const override {
    ObserveAllButFirstPosition(physics, out);
  }

  double Reward(const Physics& physics) const override {
    const double speed = physics.data().sensordata[velocity_];
    switch (goal_) {
      case Goal::kRun:
        return run_(speed);
      case Goal::kRunBackwards:
        return run_backwards_(speed);
      case Goal::kRunFront:
        return OneFootReward(physics, speed, back_foot_);
      case Goal::kRunBack:
        return OneFootReward(physics, speed, front_foot_);
      case Goal::kJump:
        return JumpReward(physics, speed);
    }
    return 0;
  }

 private:
  static double Height(const Physics& physics, int body) {
    return physics.data().xpos[3 * body + 2];
  }

  double OneFootReward(const Physics& physics, double speed, int raised_foot) const {
    const double torso_up = up_(Height(physics, torso_));
    const double foot_up = up_(Height(physics, raised_foot));
    const double up = (3 * foot_up + 2 * torso_up) / 5;
    return up * (5 * one_foot_run_(speed) + 1) / 6;
  }

  double JumpReward(const Physics& physics, double speed) const {
    const double still = still_(speed);
    double sum = 0;
    for (const int foot : {back_foot_, front_foot_}) {
      sum += (5 * up_((Height(physics, torso_) + Height(physics, foot)) / 2) + still) / 6;
    }
    return sum / 2;
  }

  const Goal goal_;
  const int velocity_;                        // Address in sensordata: centre-of-mass velocity.
  const int torso_, back_foot_, front_foot_;  // Bodies.
  const Tolerance run_{{.lower = kRunSpeed,
                        .upper = kInfinity,
                        .margin = kRunSpeed,
                        .sigmoid = Sigmoid::kLinear,
                        .value_at_margin = 0}};
  const Tolerance run_backwards_{{.lower = -kInfinity,
                                  .upper = -kBackwardsSpeed,
                                  .margin = kBackwardsSpeed,
                                  .sigmoid = Sigmoid::kLinear,
                                  .value_at_margin = 0}};
  const Tolerance one_foot_run_{{.lower = kOneFootSpeed,
                                 .upper = kInfinity,
                                 .margin = kOneFootSpeed,
                                 .sigmoid = Sigmoid::kLinear,
                                 .value_at_margin = 0}};
  const Tolerance still_{{.lower = -0.5,
                          .upper = 0.5,
                          .margin = 0.5,
                          .sigmoid = Sigmoid::kLinear,
                          .value_at_margin = 0}};
  const Tolerance up_{{.lower = 1.2, .upper = kInfinity, .margin = 0.6}};
};

TaskEntry Entry(const char* name, Goal goal) {
  return {.name = name, .file = "cheetah.xml", .make = [goal](Physics& physics) {
            return std::make_unique<Cheetah>(physics, goal);
          }};
}

}  // namespace

std::vector<TaskEntry> CheetahTasks() {
  return {Entry("cheetah-run", Goal::kRun), Entry("cheetah-run_backwards", Goal::kRunBackwards),
          Entry("cheetah-run_front", Goal::kRunFront), Entry("cheetah-run_back", Goal::kRunBack),
          Entry("cheetah-jump", Goal::kJump)};
}

}  // namespace pompc::dmc
