#include "actor/env/physics.h"

#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "actor/env/mujoco_errors.h"
#include "common/base/check.h"

namespace pompc::dmc {
namespace {

mjModel WithoutActuation(const mjModel& model) {
  mjModel copy = model;
  copy.opt.disableflags |= mjDSBL_ACTUATION;
  return copy;
}

}  // namespace

Physics::Physics(std::shared_ptr<const mjModel> shared_model, bool edits_model)
    : shared_model_(std::move(shared_model)),
      own_model_(edits_model ? mj_copyModel(nullptr, shared_model_.get()) : nullptr),
      model_(edits_model ? own_model_.get() : shared_model_.get()),
      model_without_actuation_(WithoutActuation(*model_)),
      data_(mj_makeData(model_)) {
  POMPC_CHECK(data_ != nullptr) << "out of memory";
}

mjModel& Physics::editable_model() {
  POMPC_CHECK(own_model_ != nullptr);
  return *own_model_;
}

void Physics::RestoreModel() {
  if (own_model_ != nullptr) mj_copyModel(own_model_.get(), shared_model_.get());
}

void Physics::Reset() {
  mj_resetData(model_, data_.get());
  ForwardWithoutActuation();
}

void Physics::ForwardWithoutActuation() {
  const mjModel* m = &model_without_actuation_;
  mjData* d = data_.get();
  if (!RunMujoco([m, d] { mj_forward(m, d); })) failed_ = true;
}

void Physics::ForwardPositions() {
  const mjModel* m = &model_without_actuation_;
  mjData* d = data_.get();
  if (!RunMujoco([m, d] {
        mj_kinematics(m, d);
        mj_comPos(m, d);
        mj_collision(m, d);
      })) {
    failed_ = true;
  }
}

void Physics::Step(int steps) {
  const mjModel* m = model_;
  mjData* d = data_.get();
  if (!RunMujoco([m, d, steps] {
        int left = steps;
        if (m->opt.integrator != mjINT_RK4) {
          mj_step2(m, d);
          --left;
        }
        for (; left > 0; --left) mj_step(m, d);
        mj_step1(m, d);
      })) {
    failed_ = true;
  }
}

void Physics::SyncPositionsAndVelocities() {
  const mjModel* m = model_;
  mjData* d = data_.get();
  if (!RunMujoco([m, d] { mj_step1(m, d); })) failed_ = true;
}

bool Physics::unstable() const {
  if (failed_) return true;
  for (const mjWarningStat& warning : data_->warning) {
    if (warning.number != 0) return true;
  }
  return false;
}

void Physics::ClearUnstable() {
  std::memset(data_->warning, 0, sizeof(data_->warning));
  failed_ = false;
}

int Physics::Id(mjtObj type, const char* name) {
  const int id = mj_name2id(model_, type, name);
  if (id >= 0) return id;
  lookup_status_.Update(absl::FailedPreconditionError(absl::StrCat(
      "the model has no ", mju_type2Str(type), " '", name, "': not dm_control 1.0.50?")));
  return 0;
}

int Physics::Qpos(const char* joint) { return model_->jnt_qposadr[Joint(joint)]; }

int Physics::Qvel(const char* joint) { return model_->jnt_dofadr[Joint(joint)]; }

int Physics::SensorData(const char* name) {
  const int id = Id(mjOBJ_SENSOR, name);
  return model_->nsensor == 0 ? 0 : model_->sensor_adr[id];
}

}  // namespace pompc::dmc
