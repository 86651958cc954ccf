// Ball in cup: catch the ball, or keep it spinning around the cup.
//
// Source: dm_control 1.0.50 suite/ball_in_cup.py (physics :52-63, reset :69-85, observation :87-92,
// reward :94-96); spin: nicklashansen/tdmpc2@e9f5932 tdmpc2/envs/tasks/ball_in_cup.py.
#include <cmath>
#include <memory>
#include <vector>

#include "actor/env/numerics.h"
#include "actor/env/tasks/tasks.h"
#include "actor/env/tolerance.h"

namespace pompc::dmc {
namespace {

class BallInCup : public Task {
 public:
  BallInCup(Physics& physics, bool spin)
      : spin_(spin),
        ball_(physics.Body("ball")),
        ball_geom_(physics.Geom("ball")),
        target_(physics.Site("target")),
        ball_x_(physics.Qpos("ball_x")),
        ball_z_(physics.Qpos("ball_z")),
        velocity_x_(physics.Qvel("ball_x")),
        velocity_z_(physics.Qvel("ball_z")) {}

  absl::Status InitializeEpisode(Physics& physics, RandomState& random) override {
    const auto place_ball = [&] {
      physics.qpos()[ball_x_] = random.Uniform(-.2, .2);
      physics.qpos()[ball_z_] = random.Uniform(.2, .5);
    };
    if (!spin_) return RandomizeUntilNoContact(physics, place_ball);
    // Spin starts with the ball in the cup, but for one episode in ten.
    const bool anywhere = random.Uniform(0, 1) < 0.1;
    absl::Status status;
    do {
      status = RandomizeUntilNoContact(physics, place_ball);
    } while (status.ok() && !anywhere && !InTarget(physics));
    return status;
  }

  void Observe(const Physics& physics, ObservationWriter& out) const override {
    out.Slice("position");
    out.Put(physics.qpos());
    out.Slice("velocity");
    out.Put(physics.qvel());
  }

  double Reward(const Physics& physics) const override {
    if (!spin_) return InTarget(physics) ? 1 : 0;
    const mjData& d = physics.data();
    const double far = far_(Norm(BallToTarget(physics)));
    const double fast = fast_(Norm({std::abs(d.qvel[velocity_x_]), std::abs(d.qvel[velocity_z_])}));
    return (InTarget(physics) ? 0 : 1) * (far + 2 * fast) / 3;
  }

 private:
  std::array<double, 2> BallToTarget(const Physics& physics) const {
    const mjData& d = physics.data();
    return {d.site_xpos[3 * target_] - d.xpos[3 * ball_],
            d.site_xpos[3 * target_ + 2] - d.xpos[3 * ball_ + 2]};
  }

  bool InTarget(const Physics& physics) const {
    const mjModel& m = physics.model();
    const std::array<double, 2> offset = BallToTarget(physics);
    const double ball_size = m.geom_size[3 * ball_geom_];
    return std::abs(offset[0]) < m.site_size[3 * target_] - ball_size &&
           std::abs(offset[1]) < m.site_size[3 * target_ + 2] - ball_size;
  }

  const bool spin_;
  const int ball_, ball_geom_, target_;  // Body, geom, site.
  const int ball_x_, ball_z_;            // Addresses in qpos.
  const int velocity_x_, velocity_z_;    // Addresses in qvel.
  const Tolerance far_{{.lower = 0.5,
                        .upper = kInfinity,
                        .margin = 0.25,
                        .sigmoid = Sigmoid::kLinear,
                        .value_at_margin = 0.5}};
  const Tolerance fast_{{.lower = 6,
                         .upper = kInfinity,
                         .margin = 3,
                         .sigmoid = Sigmoid::kLinear,
                         .value_at_margin = 0.5}};
};

TaskEntry Entry(const char* name, bool spin) {
  return {.name = name,
          .file = "ball_in_cup.xml",
          .control_timestep_seconds = .02,
          .make = [spin](Physics& physics) { return std::make_unique<BallInCup>(physics, spin); }};
}

}  // namespace

std::vector<TaskEntry> BallInCupTasks() {
  return {Entry("ball_in_cup-catch", false), Entry("ball_in_cup-spin", true)};
}

}  // namespace pompc::dmc
