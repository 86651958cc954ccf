// LQR: drive a chain of masses and springs to rest; the task with a known optimal policy.
//
// Source: dm_control 1.0.50 suite/lqr.py (models :110-200, reset :238-243, observation :245-250,
// reward :252-258, termination :264-267).
#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "actor/env/numerics.h"
#include "actor/env/tasks/tasks.h"
#include "common/base/status_macros.h"

namespace pompc::dmc {
namespace {

constexpr double kControlCost = 0.1;
constexpr double kTerminalTolerance = 1e-6;
constexpr double kMinStiffness = 15;  // N/m
constexpr double kMaxStiffness = 25;

// Source: suite/lqr.py:110-200. Stiffnesses are set by Lqr::Build().
absl::Status AddBodies(ModelSpec& spec, int num_bodies, int num_actuators) {
  POMPC_ASSIGN_OR_RETURN(mjsElement * world, spec.Find(mjOBJ_BODY, "world"));
  POMPC_ASSIGN_OR_RETURN(mjsDefault * defaults, spec.FindDefault("main"));
  mjsBody* body = mjs_asBody(world);
  for (int i = 0; i < num_bodies; ++i) {
    body = mjs_addBody(body, nullptr);
    mjs_setName(body->element, absl::StrCat("body_", i).c_str());
    body->pos[0] = .25;
    body->pos[2] = i == 0 ? .1 : 0;
    const std::string joint = absl::StrCat("joint_", i);
    mjs_setName(mjs_addJoint(body, defaults)->element, joint.c_str());
    mjs_setName(mjs_addGeom(body, defaults)->element, absl::StrCat("geom_", i).c_str());
    mjs_setName(mjs_addSite(body, defaults)->element, absl::StrCat("site_", i).c_str());
    if (i < num_actuators) {
      mjsActuator* motor = mjs_addActuator(spec.get(), defaults);
      mjs_setName(motor->element, absl::StrCat("motor_", i).c_str());
      mjs_setString(motor->target, joint.c_str());
      motor->trntype = mjTRN_JOINT;
    }
    if (i + 1 < num_bodies) {
      mjsTendon* tendon = mjs_addTendon(spec.get(), defaults);
      mjs_setName(tendon->element, absl::StrCat("tendon_", i).c_str());
      mjs_wrapSite(tendon, absl::StrCat("site_", i).c_str());
      mjs_wrapSite(tendon, absl::StrCat("site_", i + 1).c_str());
    }
  }
  return absl::OkStatus();
}

class Lqr : public Task {
 public:
  void Build(Physics& physics, RandomState& random) override {
    const absl::Span<double> stiffnesses = ModelEdits(physics)[0];
    for (double& stiffness : stiffnesses) {
      stiffness = random.Uniform(kMinStiffness, kMaxStiffness);
      random.Uniform(0, 0);  // The damping, which has an empty range.
    }
  }

  absl::Status InitializeEpisode(Physics& physics, RandomState& random) override {
    const absl::Span<double> qpos = physics.qpos();
    random.Randn(qpos);
    const double norm = Norm(qpos);
    for (double& x : qpos) x = std::sqrt(2.) * x / norm;
    return absl::OkStatus();
  }

  void Observe(const Physics& physics, ObservationWriter& out) const override {
    out.Slice("position");
    out.Put(physics.qpos());
    out.Slice("velocity");
    out.Put(physics.qvel());
  }

  double Reward(const Physics& physics) const override {
    const double state_cost = 0.5 * Dot(physics.qpos(), physics.qpos());
    const double control_cost = 0.5 * Dot(physics.ctrl(), physics.ctrl());
    return 1 - (state_cost + control_cost * kControlCost);
  }

  bool Terminated(const Physics& physics) const override {
    const double squares =
        Dot(physics.qpos(), physics.qpos()) + Dot(physics.qvel(), physics.qvel());
    return std::sqrt(squares) < kTerminalTolerance;
  }

  std::vector<absl::Span<double>> ModelEdits(Physics& physics) const override {
    mjModel& m = physics.editable_model();
    return {{m.jnt_stiffness, static_cast<size_t>(m.njnt)}};
  }
};

TaskEntry Entry(const char* name, int num_bodies, int num_actuators) {
  return {.name = name,
          .file = "lqr.xml",
          .edits_model = true,
          .make = [](Physics&) { return std::make_unique<Lqr>(); },
          .variant = name,
          .edit = [=](ModelSpec& spec) { return AddBodies(spec, num_bodies, num_actuators); },
          .can_terminate = true};
}

}  // namespace

std::vector<TaskEntry> LqrTasks() {
  return {Entry("lqr-lqr_2_1", 2, 1), Entry("lqr-lqr_6_2", 6, 2)};
}

}  // namespace pompc::dmc
