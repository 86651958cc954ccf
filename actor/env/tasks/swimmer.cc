// Swimmer: a chain of 6 or 15 links in a viscous fluid swims to a target.
//
// Source: dm_control 1.0.50 suite/swimmer.py (models :83-133, physics :139-158, reset :174-194,
// observation :196-202, reward :204-210).
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "actor/env/numerics.h"
#include "actor/env/tasks/tasks.h"
#include "actor/env/tolerance.h"
#include "common/base/status_macros.h"

namespace pompc::dmc {
namespace {

// Source: suite/swimmer.py:83-133. Cameras stay where they are.
absl::Status AddSegments(ModelSpec& spec, int num_links) {
  POMPC_ASSIGN_OR_RETURN(mjsElement * head, spec.Find(mjOBJ_BODY, "head"));
  POMPC_ASSIGN_OR_RETURN(mjsDefault * swimmer, spec.FindDefault("swimmer"));
  POMPC_ASSIGN_OR_RETURN(mjsDefault * visual, spec.FindDefault("visual"));
  POMPC_ASSIGN_OR_RETURN(mjsDefault * inertial, spec.FindDefault("inertial"));
  const double limit = 360.0 / num_links;  // Degrees.
  mjsBody* body = mjs_asBody(head);
  for (int i = 0; i + 1 < num_links; ++i) {
    body = mjs_addBody(body, nullptr);
    mjs_setName(body->element, absl::StrCat("segment_", i).c_str());
    body->pos[1] = .1;
    mjs_setName(mjs_addGeom(body, visual)->element, absl::StrCat("visual_", i).c_str());
    mjs_setName(mjs_addGeom(body, inertial)->element, absl::StrCat("inertial_", i).c_str());
    mjs_setName(mjs_addSite(body, swimmer)->element, absl::StrCat("site_", i).c_str());
    mjsJoint* joint = mjs_addJoint(body, swimmer);
    mjs_setName(joint->element, absl::StrCat("joint_", i).c_str());
    joint->range[0] = -limit;
    joint->range[1] = limit;

    mjsActuator* motor = mjs_addActuator(spec.get(), swimmer);
    mjs_setName(motor->element, absl::StrCat("motor_", i).c_str());
    mjs_setString(motor->target, absl::StrCat("joint_", i).c_str());
    motor->trntype = mjTRN_JOINT;
    for (const mjtSensor type : {mjSENS_VELOCIMETER, mjSENS_GYRO}) {
      mjsSensor* sensor = mjs_addSensor(spec.get());
      const char* prefix = type == mjSENS_GYRO ? "gyro_" : "velocimeter_";
      mjs_setName(sensor->element, absl::StrCat(prefix, i).c_str());
      sensor->type = type;
      sensor->objtype = mjOBJ_SITE;
      mjs_setString(sensor->objname, absl::StrCat("site_", i).c_str());
    }
  }
  return absl::OkStatus();
}

class Swimmer : public Task {
 public:
  explicit Swimmer(Physics& physics)
      : head_(physics.Body("head")),
        nose_(physics.Geom("nose")),
        target_(physics.Geom("target")),
        velocities_(physics.SensorData("head_vel")),
        near_target_({.upper = physics.model().geom_size[3 * target_],
                      .margin = 5 * physics.model().geom_size[3 * target_],
                      .sigmoid = Sigmoid::kLongTail}) {}

  absl::Status InitializeEpisode(Physics& physics, RandomState& random) override {
    RandomizeLimitedAndRotationalJoints(physics, random);
    const bool close_target = random.Rand() < .2;
    const double box = close_target ? .3 : 2;
    random.Uniform(-box, box, {physics.editable_model().geom_pos + 3 * target_, 2});
    return absl::OkStatus();
  }

  void Observe(const Physics& physics, ObservationWriter& out) const override {
    out.Slice("joints");
    out.Put(physics.qpos().subspan(3));
    out.Slice("to_target");
    const Vec3 offset = NoseToTarget(physics);
    out.Put({offset.data(), 2});
    out.Slice("body_velocities");  // Per body: velocity along x and y, rotation about z.
    for (int i = velocities_; i < physics.model().nsensordata; i += 6) {
      for (const int component : {0, 1, 5}) out.Put(physics.data().sensordata[i + component]);
    }
  }

  double Reward(const Physics& physics) const override {
    const Vec3 offset = NoseToTarget(physics);
    return near_target_(Norm({offset[0], offset[1]}));
  }

  std::vector<absl::Span<double>> ModelEdits(Physics& physics) const override {
    return {{physics.editable_model().geom_pos + 3 * target_, 2}};
  }

 private:
  // In the frame of the head.
  Vec3 NoseToTarget(const Physics& physics) const {
    const mjData& d = physics.data();
    return Rotate(Subtract(d.geom_xpos + 3 * target_, d.geom_xpos + 3 * nose_), d.xmat + 9 * head_);
  }

  const int head_;           // Body.
  const int nose_, target_;  // Geoms.
  const int velocities_;     // Address in sensordata: (velocimeter, gyro) of all bodies.
  const Tolerance near_target_;
};

TaskEntry Entry(const char* name, int num_links) {
  return {.name = name,
          .file = "swimmer.xml",
          .control_timestep_seconds = .03,
          .edits_model = true,
          .make = [](Physics& physics) { return std::make_unique<Swimmer>(physics); },
          .variant = absl::StrCat(num_links, " links"),
          .edit = [num_links](ModelSpec& spec) { return AddSegments(spec, num_links); }};
}

}  // namespace

std::vector<TaskEntry> SwimmerTasks() {
  return {Entry("swimmer-swimmer6", 6), Entry("swimmer-swimmer15", 15)};
}

}  // namespace pompc::dmc
