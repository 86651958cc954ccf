// Point mass: move to the middle of the arena; in `hard` along random directions of actuation.
//
// Source: dm_control 1.0.50 suite/point_mass.py (physics :61-68, reset :86-108, observation
// :110-115, reward :117-126).
#include <algorithm>
#include <array>
#include <cmath>
#include <memory>
#include <vector>

#include "actor/env/numerics.h"
#include "actor/env/tasks/tasks.h"
#include "actor/env/tolerance.h"

namespace pompc::dmc {
namespace {

using Direction = std::array<double, 2>;

Direction RandomDirection(RandomState& random) {
  Direction direction;
  random.Randn(absl::MakeSpan(direction));
  const double norm = Norm(direction);
  return {direction[0] / norm, direction[1] / norm};
}

class PointMass : public Task {
 public:
  PointMass(Physics& physics, bool randomize_gains)
      : randomize_gains_(randomize_gains),
        mass_(physics.Geom("pointmass")),
        target_(physics.Geom("target")),
        near_target_({.upper = physics.model().geom_size[3 * target_],
                      .margin = physics.model().geom_size[3 * target_]}) {}

  absl::Status InitializeEpisode(Physics& physics, RandomState& random) override {
    RandomizeLimitedAndRotationalJoints(physics, random);
    if (!randomize_gains_) return absl::OkStatus();
    const Direction first = RandomDirection(random);
    Direction second;
    do {
      second = RandomDirection(random);
    } while (std::abs(Dot(first, second)) > 0.9);
    mjtNum* gains = physics.editable_model().wrap_prm;
    std::copy(first.begin(), first.end(), gains);
    std::copy(second.begin(), second.end(), gains + 2);
    return absl::OkStatus();
  }

  void Observe(const Physics& physics, ObservationWriter& out) const override {
    out.Slice("position");
    out.Put(physics.qpos());
    out.Slice("velocity");
    out.Put(physics.qvel());
  }

  double Reward(const Physics& physics) const override {
    const mjData& d = physics.data();
    const double near_target =
        near_target_(Norm(Subtract(d.geom_xpos + 3 * target_, d.geom_xpos + 3 * mass_)));
    return near_target * ((small_control_.Mean(physics.ctrl()) + 4) / 5);
  }

  std::vector<absl::Span<double>> ModelEdits(Physics& physics) const override {
    if (!randomize_gains_) return {};
    return {{physics.editable_model().wrap_prm, 4}};
  }

 private:
  const bool randomize_gains_;
  const int mass_, target_;  // Geoms.
  const Tolerance near_target_;
  const Tolerance small_control_{
      {.margin = 1, .sigmoid = Sigmoid::kQuadratic, .value_at_margin = 0}};
};

TaskEntry Entry(const char* name, bool randomize_gains) {
  return {.name = name,
          .file = "point_mass.xml",
          .edits_model = randomize_gains,
          .make = [randomize_gains](Physics& physics) {
            return std::make_unique<PointMass>(physics, randomize_gains);
          }};
}

}  // namespace

std::vector<TaskEntry> PointMassTasks() {
  return {Entry("point_mass-easy", false), Entry("point_mass-hard", true)};
}

}  // namespace pompc::dmc
