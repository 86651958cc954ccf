#include "actor/env/task.h"

#include <cmath>

#include "actor/env/numerics.h"

namespace pompc::dmc {

void RandomizeLimitedAndRotationalJoints(Physics& physics, RandomState& random) {
  const mjModel& m = physics.model();
  for (int joint = 0; joint < m.njnt; ++joint) {
    double* qpos = physics.data().qpos + m.jnt_qposadr[joint];
    const int type = m.jnt_type[joint];
    if (m.jnt_limited[joint] && (type == mjJNT_HINGE || type == mjJNT_SLIDE)) {
      *qpos = random.Uniform(m.jnt_range[2 * joint], m.jnt_range[2 * joint + 1]);
    } else if (type == mjJNT_HINGE) {
      *qpos = random.Uniform(-M_PI, M_PI);
    } else if (type == mjJNT_FREE) {
      std::array<double, 4> quat;
      for (double& x : quat) x = random.Rand();
      const double norm = Norm(quat);
      for (int i = 0; i < 4; ++i) qpos[3 + i] = quat[i] / norm;
    }
  }
}

void ObserveAllButFirstPosition(const Physics& physics, ObservationWriter& out) {
  out.Slice("position");
  out.Put(physics.qpos().subspan(1));
  out.Slice("velocity");
  out.Put(physics.qvel());
}

absl::Status RandomizeUntilNoContact(Physics& physics, const std::function<void()>& randomize) {
  constexpr int kMaxAttempts = 10000;
  for (int attempt = 0; attempt < kMaxAttempts; ++attempt) {
    randomize();
    physics.ForwardWithoutActuation();
    if (physics.data().ncon == 0) return absl::OkStatus();
  }
  return absl::InternalError("no initial state without contacts in 10000 attempts");
}

}  // namespace pompc::dmc
