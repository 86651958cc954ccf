// Humanoid and the CMU humanoid: stand, walk, run.
//
// Source: dm_control 1.0.50 suite/humanoid.py (physics :96-129, reset :152-166, observation
// :168-181, reward :183-207) and suite/humanoid_CMU.py (:83-186), which differ in names alone.
#include <array>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "actor/env/numerics.h"
#include "actor/env/tasks/tasks.h"
#include "actor/env/tolerance.h"

namespace pompc::dmc {
namespace {

constexpr double kStandHeight = 1.4;  // m, of the head.
constexpr double kWalkSpeed = 1;      // m/s
constexpr double kRunSpeed = 10;      // m/s

struct Variant {
  const char* name;
  const char* file;
  double control_timestep_seconds;
  const char* torso;
  const char* velocity_sensor;
  std::array<const char*, 4> extremities;  // In the order of the observation.
  MatrixElement upright;                   // The torso's element that is 1 when upright.
};

constexpr Variant kHumanoid = {
    "humanoid", "humanoid.xml",        .025,
    "torso",    "torso_subtreelinvel", {"left_hand", "left_foot", "right_hand", "right_foot"},
    kZz};
constexpr Variant kHumanoidCmu = {"humanoid_CMU",
                                  "humanoid_CMU.xml",
                                  .02,
                                  "thorax",
                                  "thorax_subtreelinvel",
                                  {"lhand", "lfoot", "rhand", "rfoot"},
                                  kZy};

// move_speed: m/s; 0: stand. pure_state: observes qpos and qvel.
class Humanoid : public Task {
 public:
  Humanoid(Physics& physics, const Variant& variant, double move_speed, bool pure_state)
      : move_speed_(move_speed),
        pure_state_(pure_state),
        upright_element_(variant.upright),
        torso_(physics.Body(variant.torso)),
        head_(physics.Body("head")),
        velocity_(physics.SensorData(variant.velocity_sensor)),
        move_({.lower = move_speed,
               .upper = kInfinity,
               .margin = move_speed,
               .sigmoid = Sigmoid::kLinear,
               .value_at_margin = 0}) {
    for (size_t i = 0; i < extremities_.size(); ++i) {
      extremities_[i] = physics.Body(variant.extremities[i]);
    }
  }

  absl::Status InitializeEpisode(Physics& physics, RandomState& random) override {
    return RandomizeUntilNoContact(physics,
                                   [&] { RandomizeLimitedAndRotationalJoints(physics, random); });
  }

  void Observe(const Physics& physics, ObservationWriter& out) const override {
    const mjData& d = physics.data();
    if (pure_state_) {
      out.Slice("position");
      out.Put(physics.qpos());
    } else {
      out.Slice("joint_angles");
      out.Put(physics.qpos().subspan(7));
      out.Slice("head_height");
      out.Put(d.xpos[3 * head_ + 2]);
      out.Slice("extremities");
      for (const int limb : extremities_) {
        out.Put(Rotate(Subtract(d.xpos + 3 * limb, d.xpos + 3 * torso_), d.xmat + 9 * torso_));
      }
      out.Slice("torso_vertical");
      out.Put({d.xmat + 9 * torso_ + kZx, 3});
      out.Slice("com_velocity");
      out.Put(physics.sensors(velocity_, 3));
    }
    out.Slice("velocity");
    out.Put(physics.qvel());
  }

  double Reward(const Physics& physics) const override {
    const mjData& d = physics.data();
    const double standing = standing_(d.xpos[3 * head_ + 2]);
    const double upright = upright_(d.xmat[9 * torso_ + upright_element_]);
    const double stand_reward = standing * upright;
    const double small_control = (4 + small_control_.Mean(physics.ctrl())) / 5;
    const absl::Span<const double> horizontal_velocity = physics.sensors(velocity_, 2);
    if (move_speed_ == 0) {
      return small_control * stand_reward * dont_move_.Mean(horizontal_velocity);
    }
    const double move = (5 * move_(Norm(horizontal_velocity)) + 1) / 6;
    return small_control * stand_reward * move;
  }

 private:
  const double move_speed_;
  const bool pure_state_;
  const MatrixElement upright_element_;
  const int torso_, head_;          // Bodies.
  std::array<int, 4> extremities_;  // Bodies.
  const int velocity_;              // Address in sensordata: centre-of-mass velocity.
  const Tolerance standing_{
      {.lower = kStandHeight, .upper = kInfinity, .margin = kStandHeight / 4}};
  const Tolerance upright_{{.lower = 0.9,
                            .upper = kInfinity,
                            .margin = 1.9,
                            .sigmoid = Sigmoid::kLinear,
                            .value_at_margin = 0}};
  const Tolerance small_control_{
      {.margin = 1, .sigmoid = Sigmoid::kQuadratic, .value_at_margin = 0}};
  const Tolerance dont_move_{{.margin = 2}};
  const Tolerance move_;
};

TaskEntry Entry(const Variant& variant, const char* task, double move_speed, bool pure_state) {
  return {.name = absl::StrCat(variant.name, "-", task),
          .file = variant.file,
          .control_timestep_seconds = variant.control_timestep_seconds,
          .make = [=](Physics& physics) {
            return std::make_unique<Humanoid>(physics, variant, move_speed, pure_state);
          }};
}

}  // namespace

std::vector<TaskEntry> HumanoidTasks() {
  return {Entry(kHumanoid, "stand", 0, false),
          Entry(kHumanoid, "walk", kWalkSpeed, false),
          Entry(kHumanoid, "run", kRunSpeed, false),
          Entry(kHumanoid, "run_pure_state", kRunSpeed, true),
          Entry(kHumanoidCmu, "stand", 0, false),
          Entry(kHumanoidCmu, "walk", kWalkSpeed, false),
          Entry(kHumanoidCmu, "run", kRunSpeed, false)};
}

}  // namespace pompc::dmc
