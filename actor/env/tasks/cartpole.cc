// Cartpole: balance or swing up one to three poles on a cart.
//
// Source: dm_control 1.0.50 suite/cartpole.py (models :100-124, reset :177-196, observation
// :198-203, reward :205-225), suite/cartpole.xml.
#include <algorithm>
#include <cmath>
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

constexpr int kFirstPole = 2;  // Body id; the world is 0, the cart 1.

// Source: suite/cartpole.py:100-124. Cameras stay where they are.
absl::Status AddPoles(ModelSpec& spec, int num_poles) {
  POMPC_ASSIGN_OR_RETURN(mjsElement * first_pole, spec.Find(mjOBJ_BODY, "pole_1"));
  POMPC_ASSIGN_OR_RETURN(mjsElement * floor, spec.Find(mjOBJ_GEOM, "floor"));
  POMPC_ASSIGN_OR_RETURN(mjsDefault * pole_class, spec.FindDefault("pole"));
  mjsBody* body = mjs_asBody(first_pole);
  for (int i = 2; i <= num_poles; ++i) {
    body = mjs_addBody(body, nullptr);
    mjs_setName(body->element, absl::StrCat("pole_", i).c_str());
    mjs_setString(body->childclass, "pole");
    body->pos[2] = 1;
    mjs_setName(mjs_addJoint(body, pole_class)->element, absl::StrCat("hinge_", i).c_str());
    mjs_setName(mjs_addGeom(body, pole_class)->element, absl::StrCat("pole_", i).c_str());
  }
  mjs_asGeom(floor)->pos[2] = 1 - num_poles - .05;
  return absl::OkStatus();
}

class Balance : public Task {
 public:
  Balance(Physics& physics, bool swing_up, bool sparse)
      : swing_up_(swing_up),
        sparse_(sparse),
        num_poles_(physics.model().nbody - kFirstPole),
        cart_(physics.Qpos("slider")),
        hinge_(physics.Qpos("hinge_1")) {}

  absl::Status InitializeEpisode(Physics& physics, RandomState& random) override {
    const absl::Span<double> qpos = physics.qpos();
    if (swing_up_) {
      qpos[cart_] = .01 * random.Randn();
      qpos[hinge_] = M_PI + .01 * random.Randn();
      for (double& angle : qpos.subspan(2)) angle = .1 * random.Randn();
    } else {
      qpos[cart_] = random.Uniform(-.1, .1);
      random.Uniform(-.034, .034, qpos.subspan(1));
    }
    for (double& velocity : physics.qvel()) velocity = 0.01 * random.Randn();
    return absl::OkStatus();
  }

  void Observe(const Physics& physics, ObservationWriter& out) const override {
    out.Slice("position");
    out.Put(physics.data().qpos[cart_]);
    for (int pole = 0; pole < num_poles_; ++pole) {
      out.Put(PoleElement(physics, pole, kZz));
      out.Put(PoleElement(physics, pole, kXz));
    }
    out.Slice("velocity");
    out.Put(physics.qvel());
  }

  double Reward(const Physics& physics) const override {
    const double position = physics.data().qpos[cart_];
    if (sparse_) {
      double reward = cart_in_bounds_(position);
      double angles_in_bounds = 1;
      for (int pole = 0; pole < num_poles_; ++pole) {
        angles_in_bounds *= angle_in_bounds_(PoleElement(physics, pole, kZz));
      }
      return reward * angles_in_bounds;
    }
    double upright = 0;
    for (int pole = 0; pole < num_poles_; ++pole) {
      upright += (PoleElement(physics, pole, kZz) + 1) / 2;
    }
    upright /= num_poles_;
    const double centered = (1 + centered_(position)) / 2;
    const double small_control = (4 + small_control_.OfElement(physics.data().ctrl[0])) / 5;
    double small_velocity = 1;
    for (const double velocity : physics.qvel().subspan(1)) {
      small_velocity = std::min(small_velocity, small_velocity_.OfElement(velocity));
    }
    small_velocity = (1 + small_velocity) / 2;
    return upright * small_control * small_velocity * centered;
  }

 private:
  static double PoleElement(const Physics& physics, int pole, MatrixElement element) {
    return physics.data().xmat[9 * (kFirstPole + pole) + element];
  }

  const bool swing_up_, sparse_;
  const int num_poles_;
  const int cart_, hinge_;  // Addresses in qpos.
  const Tolerance cart_in_bounds_{{.lower = -.25, .upper = .25}};
  const Tolerance angle_in_bounds_{{.lower = .995, .upper = 1}};
  const Tolerance centered_{{.margin = 2}};
  const Tolerance small_control_{
      {.margin = 1, .sigmoid = Sigmoid::kQuadratic, .value_at_margin = 0}};
  const Tolerance small_velocity_{{.margin = 5}};
};

TaskEntry Entry(const std::string& name, bool swing_up, bool sparse, int num_poles) {
  TaskEntry entry{.name = name, .file = "cartpole.xml", .make = [=](Physics& physics) {
                    return std::make_unique<Balance>(physics, swing_up, sparse);
                  }};
  if (num_poles > 1) {
    entry.variant = absl::StrCat(num_poles, " poles");
    entry.edit = [num_poles](ModelSpec& spec) { return AddPoles(spec, num_poles); };
  }
  return entry;
}

}  // namespace

std::vector<TaskEntry> CartpoleTasks() {
  return {
      Entry("cartpole-balance", false, false, 1),  Entry("cartpole-balance_sparse", false, true, 1),
      Entry("cartpole-swingup", true, false, 1),   Entry("cartpole-swingup_sparse", true, true, 1),
      Entry("cartpole-two_poles", true, false, 2), Entry("cartpole-three_poles", true, false, 3)};
}

}  // namespace pompc::dmc
