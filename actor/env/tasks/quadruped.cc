// Quadruped: walk, run, escape from a bowl, fetch a ball.
//
// Source: dm_control 1.0.50 suite/quadruped.py (models :54-91, physics :145-247, initial height
// :250-279, observations :282-290, upright :293-308, Move :311-356, Escape :359-420, Fetch
// :423-477).
// Deviation: the rangefinders of escape go through libm's tanh, whose result may be two units in
// the last place of a double away from numpy's own; as floats they are equal.
#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "actor/env/numerics.h"
#include "actor/env/tasks/spline_zoom.h"
#include "actor/env/tasks/tasks.h"
#include "actor/env/tolerance.h"
#include "common/base/status_macros.h"

namespace pompc::dmc {
namespace {

constexpr double kTimeLimit = 20;   // s
constexpr double kWalkSpeed = 0.5;  // m/s
constexpr double kRunSpeed = 5;
constexpr double kTerrainSmoothness = 0.15;  // 0: as bumpy as can be, 1: smooth.
constexpr double kTerrainBumpScale = 2;      // m

struct ModelOptions {
  std::optional<double> floor_size;  // m; none: the file's.
  bool terrain = false;
  bool rangefinders = false;
  bool walls_and_ball = false;
};

// Source: suite/quadruped.py:54-91.
absl::Status EditModel(ModelSpec& spec, const ModelOptions& options) {
  if (options.floor_size.has_value()) {
    POMPC_ASSIGN_OR_RETURN(mjsElement * floor, spec.Find(mjOBJ_GEOM, "floor"));
    const double size[3] = {*options.floor_size, *options.floor_size, .5};
    std::copy(size, size + 3, mjs_asGeom(floor)->size);
  }
  if (!options.walls_and_ball) {
    for (const char* wall : {"wall_px", "wall_py", "wall_nx", "wall_ny"}) {
      POMPC_RETURN_IF_ERROR(spec.Delete(mjOBJ_GEOM, wall));
    }
    POMPC_RETURN_IF_ERROR(spec.Delete(mjOBJ_BODY, "ball"));
    POMPC_RETURN_IF_ERROR(spec.Delete(mjOBJ_SITE, "target"));
  }
  if (!options.terrain) POMPC_RETURN_IF_ERROR(spec.Delete(mjOBJ_GEOM, "terrain"));
  if (!options.rangefinders) {
    POMPC_RETURN_IF_ERROR(spec.DeleteSensors(mjSENS_RANGEFINDER));
  }
  return absl::OkStatus();
}

Tolerance Upright(double deviation_degrees) {
  const double deviation = std::cos(deviation_degrees * (M_PI / 180));
  return ToleranceOptions{.lower = deviation,
                          .upper = kInfinity,
                          .margin = 1 + deviation,
                          .sigmoid = Sigmoid::kLinear,
                          .value_at_margin = 0};
}

std::array<double, 4> RandomOrientation(RandomState& random) {
  std::array<double, 4> quat;
  random.Randn(absl::MakeSpan(quat));
  const double norm = Norm(quat);
  for (double& x : quat) x /= norm;
  return quat;
}

// What all quadruped tasks share: the body, its start and its observation.
class Quadruped : public Task {
 public:
  explicit Quadruped(Physics& physics)
      : torso_(physics.Body("torso")),
        root_(physics.Qpos("root")),
        velocity_(physics.SensorData("velocimeter")) {
    const mjModel& m = physics.model();
    for (int joint = 0; joint < m.njnt; ++joint) {
      if (m.jnt_type[joint] != mjJNT_HINGE) continue;
      hinge_qpos_.push_back(m.jnt_qposadr[joint]);
      hinge_qvel_.push_back(m.jnt_dofadr[joint]);
    }
    for (int sensor = 0; sensor < m.nsensor; ++sensor) {
      const int type = m.sensor_type[sensor];
      if (type == mjSENS_GYRO || type == mjSENS_ACCELEROMETER) imu_.push_back(m.sensor_adr[sensor]);
      if (type == mjSENS_FORCE || type == mjSENS_TORQUE) {
        force_torque_.push_back(m.sensor_adr[sensor]);
      }
      if (type == mjSENS_RANGEFINDER) rangefinders_.push_back(m.sensor_adr[sensor]);
    }
  }

  void Observe(const Physics& physics, ObservationWriter& out) const override {
    const mjData& d = physics.data();
    out.Slice("egocentric_state");
    for (const int joint : hinge_qpos_) out.Put(d.qpos[joint]);
    for (const int joint : hinge_qvel_) out.Put(d.qvel[joint]);
    out.Put(physics.act());
    out.Slice("torso_velocity");
    out.Put(physics.sensors(velocity_, 3));
    out.Slice("torso_upright");
    out.Put(TorsoUpright(physics));
    out.Slice("imu");
    for (const int sensor : imu_) out.Put(physics.sensors(sensor, 3));
    out.Slice("force_torque");
    for (const int sensor : force_torque_) {
      for (const double value : physics.sensors(sensor, 3)) out.Put(std::asinh(value));
    }
  }

 protected:
  // Lifts the body, turned to `orientation`, from the ground in steps of 1 cm until it touches
  // nothing. dm_control resets and forwards at every height; the contacts depend on the position
  // alone, so here only the last height gets the full treatment, to the same effect.
  absl::Status Lift(Physics& physics, const std::array<double, 4>& orientation, double x,
                    double y) const {
    constexpr int kMaxAttempts = 10000;
    double z = 0;
    for (int attempt = 0; attempt < kMaxAttempts; ++attempt) {
      SetRoot(physics, orientation, x, y, z);
      physics.ForwardPositions();
      if (physics.data().ncon == 0) {
        physics.Reset();
        SetRoot(physics, orientation, x, y, z);
        physics.ForwardWithoutActuation();
        return absl::OkStatus();
      }
      z += 0.01;
    }
    return absl::InternalError("no height without contacts in 10000 attempts");
  }

  double TorsoUpright(const Physics& physics) const {
    return physics.data().xmat[9 * torso_ + kZz];
  }
  const double* TorsoFrame(const Physics& physics) const {
    return physics.data().xmat + 9 * torso_;
  }
  const double* TorsoPosition(const Physics& physics) const {
    return physics.data().xpos + 3 * torso_;
  }

  const int torso_;     // Body.
  const int root_;      // Address in qpos.
  const int velocity_;  // Address in sensordata, as the next three.
  std::vector<int> imu_, force_torque_, rangefinders_;
  std::vector<int> hinge_qpos_, hinge_qvel_;  // Addresses.

 private:
  void SetRoot(Physics& physics, const std::array<double, 4>& orientation, double x, double y,
               double z) const {
    double* root = physics.data().qpos + root_;
    root[0] = x;
    root[1] = y;
    root[2] = z;
    std::copy(orientation.begin(), orientation.end(), root + 3);
  }
};

class Move : public Quadruped {
 public:
  Move(Physics& physics, double speed)
      : Quadruped(physics),
        move_({.lower = speed,
               .upper = kInfinity,
               .margin = speed,
               .sigmoid = Sigmoid::kLinear,
               .value_at_margin = 0.5}) {}

  absl::Status InitializeEpisode(Physics& physics, RandomState& random) override {
    return Lift(physics, RandomOrientation(random), 0, 0);
  }

  double Reward(const Physics& physics) const override {
    return upright_(TorsoUpright(physics)) * move_(physics.data().sensordata[velocity_]);
  }

 private:
  const Tolerance upright_ = Upright(0);
  const Tolerance move_;
};

class Escape : public Quadruped {
 public:
  explicit Escape(Physics& physics)
      : Quadruped(physics),
        workspace_(physics.Site("workspace")),
        escape_({.lower = TerrainSize(physics),
                 .upper = kInfinity,
                 .margin = TerrainSize(physics),
                 .sigmoid = Sigmoid::kLinear,
                 .value_at_margin = 0}) {}

  absl::Status InitializeEpisode(Physics& physics, RandomState& random) override {
    MakeTerrain(physics, random);
    return Lift(physics, RandomOrientation(random), 0, 0);
  }

  void Observe(const Physics& physics, ObservationWriter& out) const override {
    Quadruped::Observe(physics, out);
    out.Slice("origin");
    const double* position = TorsoPosition(physics);
    for (const double x : Rotate({position[0], position[1], position[2]}, TorsoFrame(physics))) {
      out.Put(-x);
    }
    out.Slice("rangefinder");
    constexpr double kNoIntersection = -1.0;
    for (const int sensor : rangefinders_) {
      const double range = physics.data().sensordata[sensor];
      out.Put(range == kNoIntersection ? 1.0 : std::tanh(range));
    }
  }

  double Reward(const Physics& physics) const override {
    const double* workspace = physics.data().site_xpos + 3 * workspace_;
    return upright_(TorsoUpright(physics)) * escape_(Norm({workspace, 3}));
  }

  absl::Span<float> HeightfieldEdit(Physics& physics) const override {
    mjModel& m = physics.editable_model();
    return {m.hfield_data, static_cast<size_t>(m.hfield_nrow[0]) * m.hfield_ncol[0]};
  }

 private:
  static double TerrainSize(const Physics& physics) { return physics.model().hfield_size[0]; }

  // A bowl times smooth random bumps. Source: suite/quadruped.py:369-384.
  void MakeTerrain(Physics& physics, RandomState& random) const {
    const int resolution = physics.model().hfield_nrow[0];
    const int bump_resolution = static_cast<int>(2 * TerrainSize(physics) / kTerrainBumpScale);
    std::vector<double> bumps(static_cast<size_t>(bump_resolution) * bump_resolution);
    random.Uniform(kTerrainSmoothness, 1, absl::MakeSpan(bumps));
    bumps = SplineZoom(std::move(bumps), bump_resolution, resolution);
    const double step = 2. / (resolution - 1);
    const absl::Span<float> terrain = HeightfieldEdit(physics);
    for (int i = 0; i < resolution; ++i) {
      for (int j = 0; j < resolution; ++j) {
        const double row = i * step - 1;
        const double column = j * step - 1;
        const double radius = std::min(std::max(std::sqrt(column * column + row * row), .04), 1.);
        const double bowl = .5 - std::cos(2 * M_PI * radius) / 2;
        const size_t at = static_cast<size_t>(i) * resolution + j;
        terrain[at] = static_cast<float>(bowl * bumps[at]);
      }
    }
  }

  const int workspace_;  // Site.
  const Tolerance upright_ = Upright(20);
  const Tolerance escape_;
};

class Fetch : public Quadruped {
 public:
  explicit Fetch(Physics& physics)
      : Quadruped(physics),
        ball_(physics.Body("ball")),
        ball_qpos_(physics.Qpos("ball_root")),
        ball_qvel_(physics.Qvel("ball_root")),
        root_qvel_(physics.Qvel("root")),
        workspace_(physics.Site("workspace")),
        target_(physics.Site("target")),
        floor_size_(physics.model().geom_size[3 * physics.Geom("floor")]),
        reach_(Within(physics.model().site_size[3 * workspace_] +
                      physics.model().geom_size[3 * physics.Geom("ball")])),
        fetch_(Within(physics.model().site_size[3 * target_])) {}

  absl::Status InitializeEpisode(Physics& physics, RandomState& random) override {
    const double azimuth = random.Uniform(0, 2 * M_PI);
    const std::array<double, 4> orientation = {std::cos(azimuth / 2), 0, 0, std::sin(azimuth / 2)};
    const double spawn_radius = 0.9 * floor_size_;
    const double x = random.Uniform(-spawn_radius, spawn_radius);
    const double y = random.Uniform(-spawn_radius, spawn_radius);
    POMPC_RETURN_IF_ERROR(Lift(physics, orientation, x, y));

    mjData& d = physics.data();
    random.Uniform(-spawn_radius, spawn_radius, {d.qpos + ball_qpos_, 2});
    d.qpos[ball_qpos_ + 2] = 2;
    for (int axis = 0; axis < 2; ++axis) d.qvel[ball_qvel_ + axis] = 5 * random.Randn();
    return absl::OkStatus();
  }

  void Observe(const Physics& physics, ObservationWriter& out) const override {
    Quadruped::Observe(physics, out);
    const mjData& d = physics.data();
    const double* frame = TorsoFrame(physics);
    const double* ball_velocity = d.qvel + ball_qvel_;
    out.Slice("ball_state");
    out.Put(RotateRow(Subtract(d.xpos + 3 * ball_, TorsoPosition(physics)), frame));
    out.Put(RotateRow(Subtract(ball_velocity, d.qvel + root_qvel_), frame));
    out.Put(RotateRow({ball_velocity[3], ball_velocity[4], ball_velocity[5]}, frame));
    out.Slice("target_position");
    out.Put(Rotate(Subtract(d.site_xpos + 3 * target_, TorsoPosition(physics)), frame));
  }

  double Reward(const Physics& physics) const override {
    const mjData& d = physics.data();
    const double reach =
        reach_(HorizontalDistance(d.site_xpos + 3 * workspace_, d.xpos + 3 * ball_));
    const double fetch = fetch_(HorizontalDistance(d.site_xpos + 3 * target_, d.xpos + 3 * ball_));
    const double reach_then_fetch = reach * (0.5 + 0.5 * fetch);
    return upright_(TorsoUpright(physics)) * reach_then_fetch;
  }

 private:
  Tolerance Within(double radius) const {
    return ToleranceOptions{.upper = radius,
                            .margin = floor_size_ * std::sqrt(2.),
                            .sigmoid = Sigmoid::kLinear,
                            .value_at_margin = 0};
  }
  static double HorizontalDistance(const double* a, const double* b) {
    return Norm({a[0] - b[0], a[1] - b[1]});
  }

  const int ball_;                               // Body.
  const int ball_qpos_, ball_qvel_, root_qvel_;  // Addresses.
  const int workspace_, target_;                 // Sites.
  const double floor_size_;                      // m, half the side.
  const Tolerance upright_ = Upright(0);
  const Tolerance reach_, fetch_;
};

TaskEntry Entry(const char* name, const ModelOptions& options,
                std::function<std::unique_ptr<Task>(Physics&)> make) {
  return {.name = name,
          .file = "quadruped.xml",
          .control_timestep_seconds = .02,
          .edits_model = options.terrain,
          .make = std::move(make),
          .variant = name,
          .edit = [options](ModelSpec& spec) { return EditModel(spec, options); }};
}

}  // namespace

std::vector<TaskEntry> QuadrupedTasks() {
  return {Entry("quadruped-walk", {.floor_size = kTimeLimit * kWalkSpeed},
                [](Physics& physics) { return std::make_unique<Move>(physics, kWalkSpeed); }),
          Entry("quadruped-run", {.floor_size = kTimeLimit * kRunSpeed},
                [](Physics& physics) { return std::make_unique<Move>(physics, kRunSpeed); }),
          Entry("quadruped-escape", {.floor_size = 40, .terrain = true, .rangefinders = true},
                [](Physics& physics) { return std::make_unique<Escape>(physics); }),
          Entry("quadruped-fetch", {.walls_and_ball = true},
                [](Physics& physics) { return std::make_unique<Fetch>(physics); })};
}

}  // namespace pompc::dmc
