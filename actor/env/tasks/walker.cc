// Planar walker: stand, walk or run, forwards or backwards.
//
// Source: dm_control 1.0.50 suite/walker.py (reset :118-129, observation :131-137, reward
// :139-154); backwards: nicklashansen/tdmpc2@e9f5932 tdmpc2/envs/tasks/walker.py.
#include <cmath>
#include <memory>
#include <vector>

#include "actor/env/tasks/tasks.h"
#include "actor/env/tolerance.h"

namespace pompc::dmc {
namespace {

constexpr double kStandHeight = 1.2;  // m
constexpr double kWalkSpeed = 1;      // m/s
constexpr double kRunSpeed = 8;       // m/s

// move_speed: m/s, its sign is the direction; 0: stand.
class PlanarWalker : public Task {
 public:
  PlanarWalker(Physics& physics, double move_speed)
      : move_speed_(move_speed),
        torso_(physics.Body("torso")),
        velocity_(physics.SensorData("torso_subtreelinvel")),
        move_({.lower = move_speed > 0 ? move_speed : -kInfinity,
               .upper = move_speed > 0 ? kInfinity : move_speed,
               .margin = std::abs(move_speed) / 2,
               .sigmoid = Sigmoid::kLinear,
               .value_at_margin = 0.5}) {}

  absl::Status InitializeEpisode(Physics& physics, RandomState& random) override {
    RandomizeLimitedAndRotationalJoints(physics, random);
    return absl::OkStatus();
  }

  void Observe(const Physics& physics, ObservationWriter& out) const override {
    const mjData& d = physics.data();
    out.Slice("orientations");
    for (int body = 1; body < physics.model().nbody; ++body) {
      out.Put(d.xmat[9 * body + kXx]);
      out.Put(d.xmat[9 * body + kXz]);
    }
    out.Slice("height");
    out.Put(d.xpos[3 * torso_ + 2]);
    out.Slice("velocity");
    out.Put(physics.qvel());
  }

  double Reward(const Physics& physics) const override {
    const mjData& d = physics.data();
    const double standing = standing_(d.xpos[3 * torso_ + 2]);
    const double upright = (1 + d.xmat[9 * torso_ + kZz]) / 2;
    const double stand_reward = (3 * standing + upright) / 4;
    if (move_speed_ == 0) return stand_reward;
    return stand_reward * (5 * move_(d.sensordata[velocity_]) + 1) / 6;
  }

 private:
  const double move_speed_;
  const int torso_;     // Body.
  const int velocity_;  // Address in sensordata: centre-of-mass velocity.
  const Tolerance standing_{
      {.lower = kStandHeight, .upper = kInfinity, .margin = kStandHeight / 2}};
  const Tolerance move_;
};

TaskEntry Entry(const char* name, double move_speed) {
  return {.name = name,
          .file = "walker.xml",
          .control_timestep_seconds = .025,
          .make = [move_speed](Physics& physics) {
            return std::make_unique<PlanarWalker>(physics, move_speed);
          }};
}

}  // namespace

std::vector<TaskEntry> WalkerTasks() {
  return {Entry("walker-stand", 0), Entry("walker-walk", kWalkSpeed),
          Entry("walker-run", kRunSpeed), Entry("walker-walk_backwards", -kWalkSpeed),
          Entry("walker-run_backwards", -kRunSpeed)};
}

}  // namespace pompc::dmc
