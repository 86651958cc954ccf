// Reacher: move the finger of a two- or three-link arm onto a target.
//
// Source: dm_control 1.0.50 suite/reacher.py (physics :63-70, reset :89-100, observation :102-108,
// reward :110-112); three links: nicklashansen/tdmpc2@e9f5932 tdmpc2/envs/tasks/reacher.py and
// reacher_three.xml.
#include <algorithm>
#include <cmath>
#include <memory>
#include <vector>

#include "actor/env/numerics.h"
#include "actor/env/tasks/tasks.h"
#include "common/base/status_macros.h"

namespace pompc::dmc {
namespace {

constexpr double kBigTarget = .05;     // m
constexpr double kSmallTarget = .015;  // m

// Replaces the two-link arm by one of three links.
absl::Status MakeThreeLinks(ModelSpec& spec) {
  struct Link {
    const char* name;
    const char* joint;
    double length;  // Of the geom, m.
    double limit;   // Degrees either way; 0: none.
  };
  constexpr Link kLinks[] = {
      {"arm0", "shoulder0", .09, 0}, {"arm1", "shoulder1", .09, 80}, {"hand", "wrist", .1, 80}};
  constexpr double kOffset = .09;  // m, from one link to the next.

  POMPC_RETURN_IF_ERROR(spec.Delete(mjOBJ_ACTUATOR, "shoulder"));
  POMPC_RETURN_IF_ERROR(spec.Delete(mjOBJ_ACTUATOR, "wrist"));
  POMPC_RETURN_IF_ERROR(spec.Delete(mjOBJ_BODY, "arm"));
  POMPC_ASSIGN_OR_RETURN(mjsDefault * defaults, spec.FindDefault("main"));
  POMPC_ASSIGN_OR_RETURN(mjsElement * world, spec.Find(mjOBJ_BODY, "world"));
  mjsBody* body = mjs_asBody(world);
  for (const Link& link : kLinks) {
    const bool first = body == mjs_asBody(world);
    body = mjs_addBody(body, nullptr);
    mjs_setName(body->element, link.name);
    body->pos[0] = first ? 0 : kOffset;
    body->pos[2] = first ? .01 : 0;
    mjsGeom* geom = mjs_addGeom(body, defaults);
    mjs_setName(geom->element, link.name);
    geom->type = mjGEOM_CAPSULE;
    const double fromto[6] = {0, 0, 0, link.length, 0, 0};
    std::copy(fromto, fromto + 6, geom->fromto);
    geom->size[0] = .01;
    mjs_setString(geom->material, "self");
    mjsJoint* joint = mjs_addJoint(body, defaults);
    mjs_setName(joint->element, link.joint);
    if (link.limit != 0) {
      joint->limited = mjLIMITED_TRUE;
      joint->range[0] = -link.limit;
      joint->range[1] = link.limit;
    }
  }
  mjsBody* finger = mjs_addBody(body, nullptr);
  mjs_setName(finger->element, "finger");
  finger->pos[0] = kOffset;
  mjsGeom* geom = mjs_addGeom(finger, defaults);
  mjs_setName(geom->element, "finger");
  geom->type = mjGEOM_SPHERE;
  geom->size[0] = .01;
  mjs_setString(geom->material, "effector");
  for (const Link& link : kLinks) {
    mjsActuator* motor = mjs_addActuator(spec.get(), defaults);
    mjs_setName(motor->element, link.joint);
    mjs_setString(motor->target, link.joint);
    motor->trntype = mjTRN_JOINT;
  }
  return absl::OkStatus();
}

class Reacher : public Task {
 public:
  Reacher(Physics& physics, double target_size)
      : target_size_(target_size),
        finger_(physics.Geom("finger")),
        target_(physics.Geom("target")) {}

  absl::Status InitializeEpisode(Physics& physics, RandomState& random) override {
    mjModel& m = physics.editable_model();
    m.geom_size[3 * target_] = target_size_;
    RandomizeLimitedAndRotationalJoints(physics, random);
    const double angle = random.Uniform(0, 2 * M_PI);
    const double radius = random.Uniform(.05, .20);
    m.geom_pos[3 * target_] = radius * std::sin(angle);
    m.geom_pos[3 * target_ + 1] = radius * std::cos(angle);
    return absl::OkStatus();
  }

  void Observe(const Physics& physics, ObservationWriter& out) const override {
    out.Slice("position");
    out.Put(physics.qpos());
    out.Slice("to_target");
    const Vec3 offset = FingerToTarget(physics);
    out.Put({offset.data(), 2});
    out.Slice("velocity");
    out.Put(physics.qvel());
  }

  double Reward(const Physics& physics) const override {
    const mjModel& m = physics.model();
    const double radii = m.geom_size[3 * target_] + m.geom_size[3 * finger_];
    const Vec3 offset = FingerToTarget(physics);
    return Norm({offset[0], offset[1]}) <= radii ? 1 : 0;
  }

  std::vector<absl::Span<double>> ModelEdits(Physics& physics) const override {
    mjModel& m = physics.editable_model();
    return {{m.geom_pos + 3 * target_, 3}, {m.geom_size + 3 * target_, 1}};
  }

 private:
  Vec3 FingerToTarget(const Physics& physics) const {
    const double* positions = physics.data().geom_xpos;
    return Subtract(positions + 3 * target_, positions + 3 * finger_);
  }

  const double target_size_;
  const int finger_, target_;  // Geoms.
};

TaskEntry Entry(const char* name, double target_size, bool three_links) {
  return {.name = name,
          .file = "reacher.xml",
          .edits_model = true,
          .make = [target_size](
                      Physics& physics) { return std::make_unique<Reacher>(physics, target_size); },
          .variant = three_links ? "three links" : "",
          .edit = three_links ? ModelEdit(MakeThreeLinks) : nullptr};
}

}  // namespace

std::vector<TaskEntry> ReacherTasks() {
  return {Entry("reacher-easy", kBigTarget, false), Entry("reacher-hard", kSmallTarget, false),
          Entry("reacher-three_easy", kBigTarget, true),
          Entry("reacher-three_hard", kSmallTarget, true)};
}

}  // namespace pompc::dmc
