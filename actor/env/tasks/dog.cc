// Dog: stand, walk, trot, run, fetch a thrown ball.
//
// Source: dm_control 1.0.50 suite/dog.py (models :61-94, physics :159-245, Stand :248-347, Move
// :350-382, Fetch :385-449).
#include <algorithm>
#include <array>
#include <cmath>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "actor/env/numerics.h"
#include "actor/env/tasks/tasks.h"
#include "actor/env/tolerance.h"
#include "common/base/status_macros.h"

namespace pompc::dmc {
namespace {

constexpr double kTimeLimit = 15;  // s
constexpr double kStandHeightFraction = 0.9;
constexpr double kWalkSpeed = 1;  // m/s
constexpr double kTrotSpeed = 3;
constexpr double kRunSpeed = 9;
const double kMinUprightCosine = std::cos(30 * (M_PI / 180));

// Source: suite/dog.py:61-85.
absl::Status EditModel(ModelSpec& spec, double floor_size, bool remove_ball) {
  POMPC_ASSIGN_OR_RETURN(mjsElement * floor, spec.Find(mjOBJ_GEOM, "floor"));
  const double size[3] = {floor_size, floor_size, .1};
  std::copy(size, size + 3, mjs_asGeom(floor)->size);
  if (!remove_ball) return absl::OkStatus();
  POMPC_RETURN_IF_ERROR(spec.Delete(mjOBJ_CAMERA, "ball"));
  POMPC_RETURN_IF_ERROR(spec.Delete(mjOBJ_CAMERA, "head"));
  POMPC_RETURN_IF_ERROR(spec.Delete(mjOBJ_BODY, "ball"));
  POMPC_RETURN_IF_ERROR(spec.Delete(mjOBJ_GEOM, "target"));
  for (const char* wall : {"wall_px", "wall_nx", "wall_py", "wall_ny"}) {
    POMPC_RETURN_IF_ERROR(spec.Delete(mjOBJ_GEOM, wall));
  }
  return absl::OkStatus();
}

// The ball of the fetch task.
struct Ball {
  explicit Ball(Physics& physics)
      : geom(physics.Geom("ball")),
        target(physics.Geom("target")),
        floor_size(physics.model().geom_size[3 * physics.Geom("floor")]),
        target_radius(physics.model().geom_size[3 * target]),
        head(physics.Site("head")),
        upper_bite(physics.Site("upper_bite")),
        lower_bite(physics.Site("lower_bite")),
        qpos(physics.Qpos("ball_root")),
        qvel(physics.Qvel("ball_root")),
        at_mouth({.upper = physics.model().site_size[3 * upper_bite],
                  .margin = 2,
                  .sigmoid = Sigmoid::kReciprocal}),
        at_target({.upper = target_radius, .margin = floor_size, .sigmoid = Sigmoid::kReciprocal}) {
  }

  const int geom, target;                  // Geoms.
  const double floor_size;                 // m
  const double target_radius;              // m
  const int head, upper_bite, lower_bite;  // Sites.
  const int qpos, qvel;                    // Addresses.
  const Tolerance at_mouth, at_target;
};

// move_speed: m/s; none: stand. fetch: with the ball.
class Dog : public Task {
 public:
  Dog(Physics& physics, std::optional<double> move_speed, bool fetch)
      : torso_(physics.Body("torso")),
        pelvis_(physics.Body("pelvis")),
        skull_(physics.Body("skull")),
        root_(physics.Qpos("root")),
        velocity_(physics.SensorData("torso_linvel")) {
    const mjModel& m = physics.model();
    for (int joint = 0; joint < m.njnt; ++joint) {
      if (m.jnt_type[joint] != mjJNT_HINGE) continue;
      hinge_qpos_.push_back(m.jnt_qposadr[joint]);
      hinge_qvel_.push_back(m.jnt_dofadr[joint]);
    }
    const std::array<const char*, 3> inertial = {"accelerometer", "velocimeter", "gyro"};
    const std::array<const char*, 4> feet = {"foot_L", "foot_R", "hand_L", "hand_R"};
    const std::array<const char*, 4> touch = {"palm_L", "palm_R", "sole_L", "sole_R"};
    for (size_t i = 0; i < inertial.size(); ++i) inertial_[i] = physics.SensorData(inertial[i]);
    for (size_t i = 0; i < feet.size(); ++i) foot_forces_[i] = physics.SensorData(feet[i]);
    for (size_t i = 0; i < touch.size(); ++i) touch_[i] = physics.SensorData(touch[i]);

    // Heights of the default pose, and body weight. dm_control measures them at each reset, where
    // they are always the same.
    physics.Reset();
    const auto stand_height = [&](int body) {
      const double height = physics.data().xpos[3 * body + 2] * kStandHeightFraction;
      return ToleranceOptions{.lower = height, .upper = kInfinity, .margin = height};
    };
    torso_height_.emplace(stand_height(torso_));
    pelvis_height_.emplace(stand_height(pelvis_));
    const double body_weight = -m.opt.gravity[2] * m.body_subtreemass[torso_];
    touching_.emplace(ToleranceOptions{.lower = body_weight,
                                       .upper = kInfinity,
                                       .margin = body_weight,
                                       .sigmoid = Sigmoid::kLinear,
                                       .value_at_margin = 0.9});
    if (move_speed.has_value()) {
      forward_.emplace(ToleranceOptions{.lower = *move_speed,
                                        .upper = 2 * *move_speed,
                                        .margin = std::max(1.0, *move_speed),
                                        .sigmoid = Sigmoid::kLinear,
                                        .value_at_margin = 0});
    }
    if (fetch) ball_.emplace(physics);
  }

  absl::Status InitializeEpisode(Physics& physics, RandomState& random) override {
    // dm_control resets the physics a second time here: no effect.
    const mjModel& m = physics.model();
    mjData& d = physics.data();
    const double azimuth = random.Uniform(0, 2 * M_PI);
    const double quat[4] = {std::cos(azimuth / 2), 0, 0, std::sin(azimuth / 2)};
    std::copy(quat, quat + 4, d.qpos + root_ + 3);
    for (const int dof : {0, 1, 5}) d.qvel[dof] = 2 * random.Randn();
    for (int i = 0; i < m.nu; ++i) {
      d.act[i] = random.Uniform(m.actuator_ctrlrange[2 * i], m.actuator_ctrlrange[2 * i + 1]);
    }
    if (ball_.has_value()) ThrowBall(physics, random);
    return absl::OkStatus();
  }

  void Observe(const Physics& physics, ObservationWriter& out) const override {
    const mjData& d = physics.data();
    out.Slice("joint_angles");
    for (const int joint : hinge_qpos_) out.Put(d.qpos[joint]);
    out.Slice("joint_velocites");  // As dm_control spells it.
    for (const int joint : hinge_qvel_) out.Put(d.qvel[joint]);
    out.Slice("torso_pelvis_height");
    out.Put(d.xpos[3 * torso_ + 2]);
    out.Put(d.xpos[3 * pelvis_ + 2]);
    out.Slice("z_projection");
    for (const int body : {skull_, torso_, pelvis_}) out.Put({d.xmat + 9 * body + kZx, 3});
    out.Slice("torso_com_velocity");
    out.Put(TorsoVelocity(physics));
    out.Slice("inertial_sensors");
    for (const int sensor : inertial_) out.Put(physics.sensors(sensor, 3));
    out.Slice("foot_forces");
    for (const int sensor : foot_forces_) out.Put(physics.sensors(sensor, 3));
    out.Slice("touch_sensors");
    for (const int sensor : touch_) out.Put(d.sensordata[sensor]);
    out.Slice("actuator_state");
    out.Put(physics.act());
    if (!ball_.has_value()) return;
    const double* head_pos = d.site_xpos + 3 * ball_->head;
    const double* head_frame = d.site_xmat + 9 * ball_->head;
    double head_velocity[6], ball_velocity[6];  // Angular, then linear.
    mj_objectVelocity(&physics.model(), &d, mjOBJ_SITE, ball_->head, head_velocity, 0);
    mj_objectVelocity(&physics.model(), &d, mjOBJ_GEOM, ball_->geom, ball_velocity, 0);
    out.Slice("ball_state");
    out.Put(Rotate(Subtract(d.geom_xpos + 3 * ball_->geom, head_pos), head_frame));
    out.Put(Rotate(Subtract(ball_velocity + 3, head_velocity + 3), head_frame));
    out.Slice("target_position");
    out.Put(Rotate(Subtract(d.geom_xpos + 3 * ball_->target, head_pos), head_frame));
  }

  double Reward(const Physics& physics) const override {
    const mjData& d = physics.data();
    double reward =
        (*torso_height_)(d.xpos[3 * torso_ + 2]) * (*pelvis_height_)(d.xpos[3 * pelvis_ + 2]);
    for (const int body : {skull_, torso_, pelvis_}) {
      reward *= upright_.OfElement(d.xmat[9 * body + kZz]);
    }
    double touch = 0;
    for (const int sensor : touch_) touch += d.sensordata[sensor];
    reward *= (*touching_)(touch);
    if (forward_.has_value()) reward *= (4 * (*forward_)(TorsoVelocity(physics)[0]) + 1) / 5;
    if (ball_.has_value()) reward = FetchReward(physics, reward);
    return reward;
  }

 private:
  // Source: suite/dog.py:404-423. Towards the centre, at an upward angle.
  void ThrowBall(Physics& physics, RandomState& random) const {
    mjData& d = physics.data();
    const double radius = 0.75 * ball_->floor_size;
    const double azimuth = random.Uniform(0, 2 * M_PI);
    const double position[3] = {radius * std::sin(azimuth), radius * std::cos(azimuth), 0.05};
    std::copy(position, position + 3, d.qpos + ball_->qpos);
    const double height = random.Uniform(0, 3);
    const double gravity = -physics.model().opt.gravity[2];
    const double vertical_velocity = std::sqrt(2 * gravity * height);
    const double horizontal_speed = random.Uniform(0, 5);
    const double direction_x = -std::sin(azimuth) + 0.05 * random.Randn();
    const double direction_y = -std::cos(azimuth) + 0.05 * random.Randn();
    d.qvel[ball_->qvel] = horizontal_speed * direction_x;
    d.qvel[ball_->qvel + 1] = horizontal_speed * direction_y;
    d.qvel[ball_->qvel + 2] = vertical_velocity;
  }

  // Source: suite/dog.py:432-449.
  double FetchReward(const Physics& physics, double standing) const {
    const mjData& d = physics.data();
    const double* ball = d.geom_xpos + 3 * ball_->geom;
    const double upper = Norm(Subtract(ball, d.site_xpos + 3 * ball_->upper_bite));
    const double lower = Norm(Subtract(ball, d.site_xpos + 3 * ball_->lower_bite));
    const double to_target = Norm(Subtract(ball, d.geom_xpos + 3 * ball_->target));
    double reach_ball = (6 * ball_->at_mouth(0.5 * (upper + lower)) + 1) / 7;
    const double fetch_ball = (ball_->at_target(to_target) + 1) / 2;
    // Let go of the ball if it has been fetched.
    if (to_target < 2 * ball_->target_radius) reach_ball = 1;
    return standing * reach_ball * fetch_ball;
  }

  // Of the centre of mass, in the torso's frame.
  Vec3 TorsoVelocity(const Physics& physics) const {
    const mjData& d = physics.data();
    const double* v = d.sensordata + velocity_;
    return Rotate({v[0], v[1], v[2]}, d.xmat + 9 * torso_);
  }

  const int torso_, pelvis_, skull_;          // Bodies.
  const int root_;                            // Address in qpos.
  const int velocity_;                        // Address in sensordata.
  std::vector<int> hinge_qpos_, hinge_qvel_;  // Addresses.
  std::array<int, 3> inertial_;               // Addresses in sensordata, as the next two.
  std::array<int, 4> foot_forces_, touch_;
  const Tolerance upright_{{.lower = kMinUprightCosine,
                            .upper = kInfinity,
                            .margin = kMinUprightCosine + 1,
                            .sigmoid = Sigmoid::kLinear,
                            .value_at_margin = 0}};
  std::optional<Tolerance> torso_height_, pelvis_height_, touching_;
  std::optional<Tolerance> forward_;  // Move tasks.
  std::optional<Ball> ball_;          // Fetch task.
};

TaskEntry Entry(const char* name, double floor_size, std::optional<double> move_speed, bool fetch) {
  return {
      .name = name,
      .file = "dog.xml",
      .control_timestep_seconds = .015,
      .make = [=](Physics& physics) { return std::make_unique<Dog>(physics, move_speed, fetch); },
      .variant = absl::StrCat("floor ", floor_size, fetch ? " ball" : ""),
      .edit = [=](ModelSpec& spec) { return EditModel(spec, floor_size, !fetch); }};
}

}  // namespace

std::vector<TaskEntry> DogTasks() {
  return {Entry("dog-stand", kWalkSpeed * kTimeLimit, std::nullopt, false),
          Entry("dog-walk", kWalkSpeed * kTimeLimit, kWalkSpeed, false),
          Entry("dog-trot", kTrotSpeed * kTimeLimit, kTrotSpeed, false),
          Entry("dog-run", kRunSpeed * kTimeLimit, kRunSpeed, false),
          Entry("dog-fetch", 10, std::nullopt, true)};
}

}  // namespace pompc::dmc
