// Acrobot: swing the tip of a two-link pendulum up to a target.
//
// Source: dm_control 1.0.50 suite/acrobot.py (physics :62-78, reset :96-106, observation :108-113,
// reward :115-123).
#include <cmath>
#include <memory>
#include <vector>

#include "actor/env/numerics.h"
#include "actor/env/tasks/tasks.h"
#include "actor/env/tolerance.h"

namespace pompc::dmc {
namespace {

class Acrobot : public Task {
 public:
  Acrobot(Physics& physics, bool sparse)
      : upper_arm_(physics.Body("upper_arm")),
        lower_arm_(physics.Body("lower_arm")),
        shoulder_(physics.Qpos("shoulder")),
        elbow_(physics.Qpos("elbow")),
        tip_(physics.Site("tip")),
        target_(physics.Site("target")),
        at_target_({.upper = physics.model().site_size[3 * target_], .margin = sparse ? 0. : 1.}) {}

  absl::Status InitializeEpisode(Physics& physics, RandomState& random) override {
    physics.qpos()[shoulder_] = random.Uniform(-M_PI, M_PI);
    physics.qpos()[elbow_] = random.Uniform(-M_PI, M_PI);
    return absl::OkStatus();
  }

  void Observe(const Physics& physics, ObservationWriter& out) const override {
    out.Slice("orientations");
    for (const MatrixElement element : {kXz, kZz}) {
      for (const int arm : {upper_arm_, lower_arm_})
        out.Put(physics.data().xmat[9 * arm + element]);
    }
    out.Slice("velocity");
    out.Put(physics.qvel());
  }

  double Reward(const Physics& physics) const override {
    const mjData& d = physics.data();
    return at_target_(Norm(Subtract(d.site_xpos + 3 * target_, d.site_xpos + 3 * tip_)));
  }

 private:
  const int upper_arm_, lower_arm_;  // Bodies.
  const int shoulder_, elbow_;       // Addresses in qpos.
  const int tip_, target_;           // Sites.
  const Tolerance at_target_;
};

TaskEntry Entry(const char* name, bool sparse) {
  return {.name = name, .file = "acrobot.xml", .make = [sparse](Physics& physics) {
            return std::make_unique<Acrobot>(physics, sparse);
          }};
}

}  // namespace

std::vector<TaskEntry> AcrobotTasks() {
  return {Entry("acrobot-swingup", false), Entry("acrobot-swingup_sparse", true)};
}

}  // namespace pompc::dmc
