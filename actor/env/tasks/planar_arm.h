// What the manipulator and the stacker share: the arm with its hand, and observations of it.
//
// Source: dm_control 1.0.50 suite/manipulator.py:133-158, 198-207 and suite/stacker.py, which
// repeats them.
#ifndef POMPC_ACTOR_ENV_TASKS_PLANAR_ARM_H_
#define POMPC_ACTOR_ENV_TASKS_PLANAR_ARM_H_

#include <array>

#include "actor/env/task.h"

namespace pompc::dmc {

inline constexpr double kClose = .01;  // m, below which things are close to each other.

class PlanarArm {
 public:
  explicit PlanarArm(Physics& physics);

  // Draws the angles of all arm joints and makes the hand symmetric.
  void Randomize(Physics& physics, RandomState& random) const;
  // "arm_pos" (sine and cosine of each joint), "arm_vel".
  void Observe(const Physics& physics, ObservationWriter& out) const;

 private:
  static constexpr int kNumJoints = 8;
  std::array<int, kNumJoints> joints_, qpos_, qvel_;  // Ids, addresses.
  int finger_, thumb_;                                // Addresses in qpos.
};

// x, z and the w, y elements of the orientation of a body in the plane.
void ObservePose(const Physics& physics, int body, ObservationWriter& out);

// m
double SiteDistance(const Physics& physics, int site, int other_site);

}  // namespace pompc::dmc

#endif  // POMPC_ACTOR_ENV_TASKS_PLANAR_ARM_H_
