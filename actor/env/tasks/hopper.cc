// Hopper: stand, hop forwards, hop backwards.
//
// Source: dm_control 1.0.50 suite/hopper.py (physics :74-85, reset :104-108, observation :110-117,
// reward :119-134); backwards: nicklashansen/tdmpc2@e9f5932 tdmpc2/envs/tasks/hopper.py.
#include <cmath>
#include <memory>
#include <vector>

#include "actor/env/tasks/tasks.h"
#include "actor/env/tolerance.h"

namespace pompc::dmc {
namespace {

enum class Goal { kStand, kHop, kHopBackwards };

class Hopper : public Task {
 public:
  Hopper(Physics& physics, Goal goal)
      : goal_(goal),
        torso_(physics.Body("torso")),
        foot_(physics.Body("foot")),
        velocity_(physics.SensorData("torso_subtreelinvel")),
        toe_(physics.SensorData("touch_toe")),
        heel_(physics.SensorData("touch_heel")) {}

  absl::Status InitializeEpisode(Physics& physics, RandomState& random) override {
    RandomizeLimitedAndRotationalJoints(physics, random);
    return absl::OkStatus();
  }

  void Observe(const Physics& physics, ObservationWriter& out) const override {
    ObserveAllButFirstPosition(physics, out);
    out.Slice("touch");
    out.Put(std::log1p(physics.data().sensordata[toe_]));
    out.Put(std::log1p(physics.data().sensordata[heel_]));
  }

  double Reward(const Physics& physics) const override {
    const mjData& d = physics.data();
    const double standing = standing_(d.xipos[3 * torso_ + 2] - d.xipos[3 * foot_ + 2]);
    switch (goal_) {
      case Goal::kStand:
        return standing * ((small_control_.Mean(physics.ctrl()) + 4) / 5);
      case Goal::kHop:
        return standing * hop_(d.sensordata[velocity_]);
      case Goal::kHopBackwards:
        return standing * hop_backwards_(d.sensordata[velocity_]);
    }
    return 0;
  }

 private:
  const Goal goal_;
  const int torso_, foot_;           // Bodies.
  const int velocity_, toe_, heel_;  // Addresses in sensordata.
  const Tolerance standing_{{.lower = 0.6, .upper = 2}};
  const Tolerance hop_{{.lower = 2,
                        .upper = kInfinity,
                        .margin = 1,
                        .sigmoid = Sigmoid::kLinear,
                        .value_at_margin = 0.5}};
  const Tolerance hop_backwards_{{.lower = -kInfinity,
                                  .upper = -1,
                                  .margin = 0.5,
                                  .sigmoid = Sigmoid::kLinear,
                                  .value_at_margin = 0.5}};
  const Tolerance small_control_{
      {.margin = 1, .sigmoid = Sigmoid::kQuadratic, .value_at_margin = 0}};
};

TaskEntry Entry(const char* name, Goal goal) {
  return {.name = name,
          .file = "hopper.xml",
          .control_timestep_seconds = .02,
          .make = [goal](Physics& physics) { return std::make_unique<Hopper>(physics, goal); }};
}

}  // namespace

std::vector<TaskEntry> HopperTasks() {
  return {Entry("hopper-stand", Goal::kStand), Entry("hopper-hop", Goal::kHop),
          Entry("hopper-hop_backwards", Goal::kHopBackwards)};
}

}  // namespace pompc::dmc
