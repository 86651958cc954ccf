// Finger: spin a body, or turn it until its tip is inside a target.
//
// Source: dm_control 1.0.50 suite/finger.py (physics :87-123, Spin :139-156, Turn :174-198, initial
// angles :201-212).
#include <array>
#include <cmath>
#include <memory>
#include <optional>
#include <vector>

#include "actor/env/numerics.h"
#include "actor/env/tasks/tasks.h"

namespace pompc::dmc {
namespace {

constexpr double kEasyTargetSize = 0.07;  // m
constexpr double kHardTargetSize = 0.03;  // m
constexpr double kSpinVelocity = 15.0;    // rad/s
constexpr double kSpinDamping = .03;

// target_radius: m, of the Turn tasks; none: Spin.
class Finger : public Task {
 public:
  Finger(Physics& physics, std::optional<double> target_radius)
      : target_radius_(target_radius),
        hinge_(physics.Joint("hinge")),
        hinge_dof_(physics.Qvel("hinge")),
        cap_(physics.Geom("cap1")),
        target_site_(physics.Site("target")),
        proximal_(physics.SensorData("proximal")),
        distal_(physics.SensorData("distal")),
        proximal_velocity_(physics.SensorData("proximal_velocity")),
        distal_velocity_(physics.SensorData("distal_velocity")),
        hinge_velocity_(physics.SensorData("hinge_velocity")),
        tip_(physics.SensorData("tip")),
        target_(physics.SensorData("target")),
        spinner_(physics.SensorData("spinner")),
        touch_top_(physics.SensorData("touchtop")),
        touch_bottom_(physics.SensorData("touchbottom")) {}

  absl::Status InitializeEpisode(Physics& physics, RandomState& random) override {
    mjModel& m = physics.editable_model();
    if (target_radius_.has_value()) {
      const double angle = random.Uniform(-M_PI, M_PI);
      const double* anchor = physics.data().xanchor + 3 * hinge_;
      const double radius = Sum({m.geom_size + 3 * cap_, 3});
      m.site_pos[3 * target_site_] = anchor[0] + radius * std::sin(angle);
      m.site_pos[3 * target_site_ + 2] = anchor[2] + radius * std::cos(angle);
      m.site_size[3 * target_site_] = *target_radius_;
    } else {
      m.dof_damping[hinge_dof_] = kSpinDamping;
    }
    return RandomizeUntilNoContact(physics,
                                   [&] { RandomizeLimitedAndRotationalJoints(physics, random); });
  }

  void Observe(const Physics& physics, ObservationWriter& out) const override {
    const double* sensors = physics.data().sensordata;
    out.Slice("position");
    out.Put(sensors[proximal_]);
    out.Put(sensors[distal_]);
    out.Put(FromHinge(physics, tip_));
    out.Slice("velocity");
    out.Put(sensors[proximal_velocity_]);
    out.Put(sensors[distal_velocity_]);
    out.Put(sensors[hinge_velocity_]);
    out.Slice("touch");
    out.Put(std::log1p(sensors[touch_top_]));
    out.Put(std::log1p(sensors[touch_bottom_]));
    if (!target_radius_.has_value()) return;
    out.Slice("target_position");
    out.Put(FromHinge(physics, target_));
    out.Slice("dist_to_target");
    out.Put(DistanceToTarget(physics));
  }

  double Reward(const Physics& physics) const override {
    if (target_radius_.has_value()) return DistanceToTarget(physics) <= 0 ? 1 : 0;
    return physics.data().sensordata[hinge_velocity_] <= -kSpinVelocity ? 1 : 0;
  }

  std::vector<absl::Span<double>> ModelEdits(Physics& physics) const override {
    mjModel& m = physics.editable_model();
    return {{m.site_pos + 3 * target_site_, 3},
            {m.site_size + 3 * target_site_, 1},
            {m.dof_damping + hinge_dof_, 1}};
  }

 private:
  // (x, z) of a position sensor relative to the hinge.
  std::array<double, 2> FromHinge(const Physics& physics, int sensor) const {
    const double* sensors = physics.data().sensordata;
    return {sensors[sensor] - sensors[spinner_], sensors[sensor + 2] - sensors[spinner_ + 2]};
  }

  // Of the tip to the target's surface; negative inside.
  double DistanceToTarget(const Physics& physics) const {
    const std::array<double, 2> target = FromHinge(physics, target_);
    const std::array<double, 2> tip = FromHinge(physics, tip_);
    return Norm({target[0] - tip[0], target[1] - tip[1]}) -
           physics.model().site_size[3 * target_site_];
  }

  const std::optional<double> target_radius_;
  const int hinge_, hinge_dof_, cap_, target_site_;  // Joint, its dof, geom, site.
  // Addresses in sensordata.
  const int proximal_, distal_, proximal_velocity_, distal_velocity_, hinge_velocity_;
  const int tip_, target_, spinner_, touch_top_, touch_bottom_;
};

TaskEntry Entry(const char* name, std::optional<double> target_radius) {
  return {.name = name,
          .file = "finger.xml",
          .control_timestep_seconds = .02,
          .edits_model = true,
          .make = [target_radius](Physics& physics) {
            return std::make_unique<Finger>(physics, target_radius);
          }};
}

}  // namespace

std::vector<TaskEntry> FingerTasks() {
  return {Entry("finger-spin", std::nullopt), Entry("finger-turn_easy", kEasyTargetSize),
          Entry("finger-turn_hard", kHardTargetSize)};
}

}  // namespace pompc::dmc
