// Stacker: stack two or four boxes at a target.
//
// Source: dm_control 1.0.50 suite/stacker.py (models :41-52, physics :85-113, reset :142-178,
// observation :180-191, reward :193-204).
#include <algorithm>
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

constexpr int kMaxBoxes = 4;

absl::Status RemoveBoxes(ModelSpec& spec, int num_boxes) {
  for (int box = num_boxes; box < kMaxBoxes; ++box) {
    POMPC_RETURN_IF_ERROR(spec.Delete(mjOBJ_BODY, absl::StrCat("box", box).c_str()));
  }
  return absl::OkStatus();
}

class Stacker : public Task {
 public:
  Stacker(Physics& physics, int num_boxes)
      : arm_(physics),
        hand_(physics.Body("hand")),
        target_(physics.Body("target")),
        grasp_site_(physics.Site("grasp")),
        target_site_(physics.Site("target")),
        box_size_(physics.model().geom_size[3 * physics.Geom("target")]),
        box_is_close_({.margin = 2 * box_size_}) {
    for (int i = 0; i < num_boxes; ++i) {
      const std::string name = absl::StrCat("box", i);
      Box box;
      box.body = physics.Body(name.c_str());
      box.site = physics.Site(name.c_str());
      for (int axis = 0; axis < 3; ++axis) {
        const std::string joint = absl::StrCat(name, "_", std::string(1, "xyz"[axis]));
        box.qpos[axis] = physics.Qpos(joint.c_str());
        box.qvel[axis] = physics.Qvel(joint.c_str());
      }
      boxes_.push_back(box);
    }
  }

  absl::Status InitializeEpisode(Physics& physics, RandomState& random) override {
    return RandomizeUntilNoContact(physics, [&] { Randomize(physics, random); });
  }

  void Observe(const Physics& physics, ObservationWriter& out) const override {
    const mjData& d = physics.data();
    arm_.Observe(physics, out);
    out.Slice("touch");
    for (int i = 0; i < physics.model().nsensordata; ++i) out.Put(std::log1p(d.sensordata[i]));
    out.Slice("hand_pos");
    ObservePose(physics, hand_, out);
    out.Slice("box_pos");
    for (const Box& box : boxes_) ObservePose(physics, box.body, out);
    out.Slice("box_vel");
    for (const Box& box : boxes_) {
      for (const int joint : box.qvel) out.Put(d.qvel[joint]);
    }
    out.Slice("target_pos");
    out.Put(d.xpos[3 * target_]);
    out.Put(d.xpos[3 * target_ + 2]);
  }

  double Reward(const Physics& physics) const override {
    double distance = kInfinity;
    for (const Box& box : boxes_) {
      distance = std::min(distance, SiteDistance(physics, box.site, target_site_));
    }
    return box_is_close_(distance) * hand_is_far_(SiteDistance(physics, grasp_site_, target_site_));
  }

  std::vector<absl::Span<double>> ModelEdits(Physics& physics) const override {
    return {{physics.editable_model().body_pos + 3 * target_, 3}};
  }

 private:
  struct Box {
    int body, site;
    int qpos[3], qvel[3];  // Addresses: x, angle (named y), z.
  };

  void Randomize(Physics& physics, RandomState& random) const {
    arm_.Randomize(physics, random);
    double* target = physics.editable_model().body_pos + 3 * target_;
    const int target_height = 2 * static_cast<int>(random.Randint(boxes_.size())) + 1;
    target[2] = box_size_ * target_height;
    target[0] = random.Uniform(-.37, .37);
    for (const Box& box : boxes_) {
      physics.qpos()[box.qpos[0]] = random.Uniform(.1, .3);
      physics.qpos()[box.qpos[2]] = random.Uniform(0, .7);
      physics.qpos()[box.qpos[1]] = random.Uniform(0, 2 * M_PI);
    }
  }

  const PlanarArm arm_;
  const int hand_, target_;  // Bodies.
  const int grasp_site_, target_site_;
  const double box_size_;  // m
  std::vector<Box> boxes_;
  const Tolerance box_is_close_;
  const Tolerance hand_is_far_{{.lower = .1, .upper = kInfinity, .margin = kClose}};
};

TaskEntry Entry(const char* name, int num_boxes) {
  return {.name = name,
          .file = "stacker.xml",
          .control_timestep_seconds = .01,
          .edits_model = true,
          .make = [num_boxes](
                      Physics& physics) { return std::make_unique<Stacker>(physics, num_boxes); },
          .variant = absl::StrCat(num_boxes, " boxes"),
          .edit = [num_boxes](ModelSpec& spec) { return RemoveBoxes(spec, num_boxes); }};
}

}  // namespace

std::vector<TaskEntry> StackerTasks() {
  return {Entry("stacker-stack_2", 2), Entry("stacker-stack_4", 4)};
}

}  // namespace pompc::dmc
