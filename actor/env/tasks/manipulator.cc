// Manipulator: bring a ball or a peg to a target, or insert it into a cup or a slot.
//
// Source: dm_control 1.0.50 suite/manipulator.py (models :46-67, physics :133-158, reset :186-250,
// observation :252-263, reward :265-288).
#include <algorithm>
#include <array>
#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "actor/env/tasks/planar_arm.h"
#include "actor/env/tasks/tasks.h"
#include "actor/env/tolerance.h"
#include "common/base/status_macros.h"

namespace pompc::dmc {
namespace {

// Source: suite/manipulator.py:46-67.
absl::Status RemoveUnusedProps(ModelSpec& spec, bool use_peg, bool insert) {
  for (const char* prop : {use_peg ? "ball" : "peg", use_peg ? "target_ball" : "target_peg",
                           use_peg ? "cup" : "slot"}) {
    POMPC_RETURN_IF_ERROR(spec.Delete(mjOBJ_BODY, prop));
  }
  return insert ? absl::OkStatus() : spec.Delete(mjOBJ_BODY, use_peg ? "slot" : "cup");
}

class Manipulator : public Task {
 public:
  Manipulator(Physics& physics, bool use_peg, bool insert)
      : use_peg_(use_peg),
        insert_(insert),
        arm_(physics),
        hand_(physics.Body("hand")),
        object_(physics.Body(use_peg ? "peg" : "ball")),
        target_(physics.Body(use_peg ? "target_peg" : "target_ball")),
        receptacle_(insert ? physics.Body(use_peg ? "slot" : "cup") : target_),
        grasp_site_(physics.Site("grasp")),
        object_site_(physics.Site(use_peg ? "peg" : "ball")),
        target_site_(physics.Site(use_peg ? "target_peg" : "target_ball")) {
    for (int i = 0; i < 3; ++i) {
      const std::string joint = absl::StrCat(use_peg ? "peg_" : "ball_", std::string(1, "xzy"[i]));
      object_qpos_[i] = physics.Qpos(joint.c_str());
      object_qvel_[i] = physics.Qvel(joint.c_str());
    }
    const std::array<const char*, 5> touch = {"palm_touch", "finger_touch", "thumb_touch",
                                              "fingertip_touch", "thumbtip_touch"};
    for (size_t i = 0; i < touch.size(); ++i) touch_[i] = physics.SensorData(touch[i]);
    if (use_peg) {
      pinch_site_ = physics.Site("pinch");
      peg_grasp_site_ = physics.Site("peg_grasp");
      peg_pinch_site_ = physics.Site("peg_pinch");
      peg_tip_site_ = physics.Site("peg_tip");
      target_tip_site_ = physics.Site("target_peg_tip");
    }
  }

  absl::Status InitializeEpisode(Physics& physics, RandomState& random) override {
    return RandomizeUntilNoContact(physics, [&] { Randomize(physics, random); });
  }

  void Observe(const Physics& physics, ObservationWriter& out) const override {
    arm_.Observe(physics, out);
    out.Slice("touch");
    for (const int sensor : touch_) out.Put(std::log1p(physics.data().sensordata[sensor]));
    out.Slice("hand_pos");
    ObservePose(physics, hand_, out);
    out.Slice("object_pos");
    ObservePose(physics, object_, out);
    out.Slice("object_vel");
    for (const int joint : object_qvel_) out.Put(physics.data().qvel[joint]);
    out.Slice("target_pos");
    ObservePose(physics, target_, out);
  }

  double Reward(const Physics& physics) const override {
    const double bring = close_(SiteDistance(physics, object_site_, target_site_));
    if (!use_peg_) return bring;
    const double grasp = close_(SiteDistance(physics, peg_grasp_site_, grasp_site_));
    const double pinch = close_(SiteDistance(physics, peg_pinch_site_, pinch_site_));
    const double grasping = (grasp + pinch) / 2;
    const double bring_tip = close_(SiteDistance(physics, target_tip_site_, peg_tip_site_));
    const double bringing = (bring + bring_tip) / 2;
    return std::max(bringing, grasping / 3);
  }

  std::vector<absl::Span<double>> ModelEdits(Physics& physics) const override {
    mjModel& m = physics.editable_model();
    return {{m.body_pos + 3 * target_, 3},
            {m.body_quat + 4 * target_, 4},
            {m.body_pos + 3 * receptacle_, 3},
            {m.body_quat + 4 * receptacle_, 4}};
  }

 private:
  // One attempt at an initial state. The object's velocity of a rejected attempt stays, as in
  // dm_control, when the next one does not draw it.
  void Randomize(Physics& physics, RandomState& random) const {
    arm_.Randomize(physics, random);

    const double target_x = random.Uniform(-.4, .4);
    const double target_z = random.Uniform(.1, .4);
    const double range = insert_ ? M_PI / 3 : M_PI;
    const double target_angle = random.Uniform(-range, range);
    mjModel& m = physics.editable_model();
    for (const int body : {receptacle_, target_}) {
      m.body_pos[3 * body] = target_x;
      m.body_pos[3 * body + 2] = target_z;
      m.body_quat[4 * body] = std::cos(target_angle / 2);
      m.body_quat[4 * body + 2] = std::sin(target_angle / 2);
    }

    constexpr double kInHandProbability = .1;
    constexpr double kInTargetProbability = .1;
    constexpr std::array<double, 3> kProbabilities = {
        kInHandProbability, kInTargetProbability, 1 - kInHandProbability - kInTargetProbability};
    double x, z, angle;
    switch (random.Choice(kProbabilities)) {
      case 0: {  // In the hand.
        physics.ForwardWithoutActuation();
        const mjData& d = physics.data();
        x = d.site_xpos[3 * grasp_site_];
        z = d.site_xpos[3 * grasp_site_ + 2];
        const double* grasp = d.site_xmat + 9 * grasp_site_;
        angle = M_PI - std::atan2(grasp[kZx], grasp[kXx]);
        break;
      }
      case 1:  // In the target.
        x = target_x;
        z = target_z;
        angle = target_angle;
        break;
      default:  // Anywhere.
        x = random.Uniform(-.5, .5);
        z = random.Uniform(0, .7);
        angle = random.Uniform(0, 2 * M_PI);
        physics.qvel()[object_qvel_[0]] = random.Uniform(-5, 5);
    }
    physics.qpos()[object_qpos_[0]] = x;
    physics.qpos()[object_qpos_[1]] = z;
    physics.qpos()[object_qpos_[2]] = angle;
  }

  const bool use_peg_, insert_;
  const PlanarArm arm_;
  const int hand_, object_, target_, receptacle_;  // Bodies; without `insert`, receptacle = target.
  const int grasp_site_, object_site_, target_site_;
  int pinch_site_, peg_grasp_site_, peg_pinch_site_, peg_tip_site_, target_tip_site_;  // Peg only.
  std::array<int, 3> object_qpos_, object_qvel_;  // Addresses, x, z, angle.
  std::array<int, 5> touch_;                      // Addresses in sensordata.
  const Tolerance close_{{.upper = kClose, .margin = kClose * 2}};
};

TaskEntry Entry(const char* name, bool use_peg, bool insert) {
  return {
      .name = name,
      .file = "manipulator.xml",
      .control_timestep_seconds = .01,
      .edits_model = true,
      .make =
          [=](Physics& physics) { return std::make_unique<Manipulator>(physics, use_peg, insert); },
      .variant = name,
      .edit = [=](ModelSpec& spec) { return RemoveUnusedProps(spec, use_peg, insert); }};
}

}  // namespace

std::vector<TaskEntry> ManipulatorTasks() {
  return {
      Entry("manipulator-bring_ball", false, false), Entry("manipulator-bring_peg", true, false),
      Entry("manipulator-insert_ball", false, true), Entry("manipulator-insert_peg", true, true)};
}

}  // namespace pompc::dmc
