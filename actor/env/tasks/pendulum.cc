// Pendulum: swing up, or keep spinning.
//
// Source: dm_control 1.0.50 suite/pendulum.py (reset :79-90, observation :92-107, reward :109-110);
// spin: nicklashansen/tdmpc2@e9f5932 tdmpc2/envs/tasks/pendulum.py.
#include <cmath>
#include <memory>
#include <vector>

#include "actor/env/numerics.h"
#include "actor/env/tasks/tasks.h"
#include "actor/env/tolerance.h"

namespace pompc::dmc {
namespace {

class Pendulum : public Task {
 public:
  Pendulum(Physics& physics, bool spin)
      : spin_(spin),
        pole_(physics.Body("pole")),
        angle_(physics.Qpos("hinge")),
        velocity_(physics.Qvel("hinge")) {}

  absl::Status InitializeEpisode(Physics& physics, RandomState& random) override {
    physics.qpos()[angle_] = random.Uniform(-M_PI, M_PI);
    return absl::OkStatus();
  }

  void Observe(const Physics& physics, ObservationWriter& out) const override {
    out.Slice("orientation");
    out.Put(physics.data().xmat[9 * pole_ + kZz]);
    out.Put(physics.data().xmat[9 * pole_ + kXz]);
    out.Slice("velocity");
    out.Put(physics.data().qvel[velocity_]);
  }

  double Reward(const Physics& physics) const override {
    if (spin_) return spinning_(std::abs(physics.data().qvel[velocity_]));
    return upright_(physics.data().xmat[9 * pole_ + kZz]);
  }

 private:
  const bool spin_;
  const int pole_;      // Body.
  const int angle_;     // Address in qpos.
  const int velocity_;  // Address in qvel.
  const Tolerance upright_{{.lower = std::cos(8 * (M_PI / 180)), .upper = 1}};
  const Tolerance spinning_{{.lower = 9,
                             .upper = kInfinity,
                             .margin = 4.5,
                             .sigmoid = Sigmoid::kLinear,
                             .value_at_margin = 0.5}};
};

TaskEntry Entry(const char* name, bool spin) {
  return {.name = name, .file = "pendulum.xml", .make = [spin](Physics& physics) {
            return std::make_unique<Pendulum>(physics, spin);
          }};
}

}  // namespace

std::vector<TaskEntry> PendulumTasks() {
  return {Entry("pendulum-swingup", false), Entry("pendulum-spin", true)};
}

}  // namespace pompc::dmc
