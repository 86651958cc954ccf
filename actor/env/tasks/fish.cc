// Fish: stay upright, or swim to a target.
//
// Source: dm_control 1.0.50 suite/fish.py (physics :72-92, Upright :108-128, Swim :144-172).
#include <array>
#include <memory>
#include <vector>

#include "actor/env/numerics.h"
#include "actor/env/tasks/tasks.h"
#include "actor/env/tolerance.h"

namespace pompc::dmc {
namespace {

constexpr std::array<const char*, 7> kJoints = {"tail1",         "tail_twist",     "tail2",
                                                "finright_roll", "finright_pitch", "finleft_roll",
                                                "finleft_pitch"};

class Fish : public Task {
 public:
  Fish(Physics& physics, bool swim)
      : swim_(swim),
        torso_(physics.Body("torso")),
        root_(physics.Qpos("root")),
        mouth_(physics.Geom("mouth")),
        target_(physics.Geom("target")),
        in_target_({.upper = Radii(physics), .margin = 2 * Radii(physics)}) {
    for (size_t i = 0; i < kJoints.size(); ++i) joints_[i] = physics.Qpos(kJoints[i]);
  }

  absl::Status InitializeEpisode(Physics& physics, RandomState& random) override {
    std::array<double, 4> quat;
    random.Randn(absl::MakeSpan(quat));
    const double norm = Norm(quat);
    for (int i = 0; i < 4; ++i) physics.qpos()[root_ + 3 + i] = quat[i] / norm;
    for (const int joint : joints_) physics.qpos()[joint] = random.Uniform(-.2, .2);
    if (swim_) {
      double* target = physics.editable_model().geom_pos + 3 * target_;
      target[0] = random.Uniform(-.4, .4);
      target[1] = random.Uniform(-.4, .4);
      target[2] = random.Uniform(.1, .3);
    }
    return absl::OkStatus();
  }

  void Observe(const Physics& physics, ObservationWriter& out) const override {
    out.Slice("joint_angles");
    for (const int joint : joints_) out.Put(physics.data().qpos[joint]);
    out.Slice("upright");
    out.Put(Upright(physics));
    if (swim_) {
      out.Slice("target");
      out.Put(MouthToTarget(physics));
    }
    out.Slice("velocity");
    out.Put(physics.qvel());
  }

  double Reward(const Physics& physics) const override {
    if (!swim_) return is_upright_(Upright(physics));
    const double in_target = in_target_(Norm(MouthToTarget(physics)));
    return (7 * in_target + 0.5 * (Upright(physics) + 1)) / 8;
  }

  std::vector<absl::Span<double>> ModelEdits(Physics& physics) const override {
    if (!swim_) return {};
    return {{physics.editable_model().geom_pos + 3 * target_, 3}};
  }

 private:
  double Radii(const Physics& physics) const {
    return physics.model().geom_size[3 * mouth_] + physics.model().geom_size[3 * target_];
  }
  double Upright(const Physics& physics) const { return physics.data().xmat[9 * torso_ + kZz]; }
  // In the frame of the mouth.
  Vec3 MouthToTarget(const Physics& physics) const {
    const mjData& d = physics.data();
    return Rotate(Subtract(d.geom_xpos + 3 * target_, d.geom_xpos + 3 * mouth_),
                  d.geom_xmat + 9 * mouth_);
  }

  const bool swim_;
  const int torso_;                         // Body.
  const int root_;                          // Address in qpos.
  const int mouth_, target_;                // Geoms.
  std::array<int, kJoints.size()> joints_;  // Addresses in qpos.
  const Tolerance is_upright_{{.lower = 1, .upper = 1, .margin = 1}};
  const Tolerance in_target_;
};

TaskEntry Entry(const char* name, bool swim) {
  return {.name = name,
          .file = "fish.xml",
          .control_timestep_seconds = .04,
          .edits_model = swim,
          .make = [swim](Physics& physics) { return std::make_unique<Fish>(physics, swim); }};
}

}  // namespace

std::vector<TaskEntry> FishTasks() {
  return {Entry("fish-upright", false), Entry("fish-swim", true)};
}

}  // namespace pompc::dmc
