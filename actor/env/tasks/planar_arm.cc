#include "actor/env/tasks/planar_arm.h"

#include <cmath>

#include "actor/env/numerics.h"

namespace pompc::dmc {

PlanarArm::PlanarArm(Physics& physics)
    : finger_(physics.Qpos("finger")), thumb_(physics.Qpos("thumb")) {
  constexpr std::array<const char*, kNumJoints> kJoints = {"arm_root",  "arm_shoulder", "arm_elbow",
                                                           "arm_wrist", "finger",       "fingertip",
                                                           "thumb",     "thumbtip"};
  for (int i = 0; i < kNumJoints; ++i) {
    joints_[i] = physics.Joint(kJoints[i]);
    qpos_[i] = physics.Qpos(kJoints[i]);
    qvel_[i] = physics.Qvel(kJoints[i]);
  }
}

void PlanarArm::Randomize(Physics& physics, RandomState& random) const {
  const mjModel& m = physics.model();
  for (int i = 0; i < kNumJoints; ++i) {
    const bool limited = m.jnt_limited[joints_[i]];
    const double* range = m.jnt_range + 2 * joints_[i];
    physics.qpos()[qpos_[i]] =
        random.Uniform(limited ? range[0] : -M_PI, limited ? range[1] : M_PI);
  }
  physics.qpos()[finger_] = physics.qpos()[thumb_];
}

void PlanarArm::Observe(const Physics& physics, ObservationWriter& out) const {
  out.Slice("arm_pos");
  for (const int joint : qpos_) {
    out.Put(std::sin(physics.data().qpos[joint]));
    out.Put(std::cos(physics.data().qpos[joint]));
  }
  out.Slice("arm_vel");
  for (const int joint : qvel_) out.Put(physics.data().qvel[joint]);
}

void ObservePose(const Physics& physics, int body, ObservationWriter& out) {
  const mjData& d = physics.data();
  out.Put(d.xpos[3 * body]);
  out.Put(d.xpos[3 * body + 2]);
  out.Put(d.xquat[4 * body]);
  out.Put(d.xquat[4 * body + 2]);
}

double SiteDistance(const Physics& physics, int site, int other_site) {
  const double* positions = physics.data().site_xpos;
  return Norm(Subtract(positions + 3 * site, positions + 3 * other_site));
}

}  // namespace pompc::dmc
