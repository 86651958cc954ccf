// One simulation: a model, its data, and the four operations of dm_control's Physics that tasks
// use.
//
// Source: dm_control 1.0.50 mujoco/engine.py:147-176 (step), 306-343 (reset, forward).
// Units: MuJoCo's (m, rad, s, kg). Thread-safety: one thread at a time; the shared model is only
// read. Errors: an operation during which MuJoCo raises an error or warning makes unstable() true
// until the next ClearUnstable(); the data stays usable after the next Reset().
#ifndef POMPC_ACTOR_ENV_PHYSICS_H_
#define POMPC_ACTOR_ENV_PHYSICS_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "mujoco/mujoco.h"

namespace pompc::dmc {

class Physics {
 public:
  // edits_model: resets of this task change entries of the model, so it gets a copy of its own.
  Physics(std::shared_ptr<const mjModel> shared_model, bool edits_model);

  const mjModel& model() const { return *model_; }
  const mjData& data() const { return *data_; }
  mjData& data() { return *data_; }
  // The own copy. Only for Physics that was made with edits_model.
  mjModel& editable_model();
  // Undoes all edits.
  void RestoreModel();

  // Default state; then as ForwardWithoutActuation(). Python: Physics.reset().
  void Reset();
  // All derived quantities of the present state without actuation. Python: Physics.after_reset().
  void ForwardWithoutActuation();
  // Positions and contacts of the present state only.
  void ForwardPositions();
  // Advances by `steps` physics steps; positions and velocities then are those of the new state,
  // accelerations and the sensors made of them are one physics step old. Python: Physics.step().
  void Step(int steps);
  // Recomputes what Step() leaves in sync.
  void SyncPositionsAndVelocities();

  bool unstable() const;
  void ClearUnstable();

  // Ids and addresses by name. A missing name gives 0 and is remembered in lookup_status().
  int Body(const char* name) { return Id(mjOBJ_BODY, name); }
  int Geom(const char* name) { return Id(mjOBJ_GEOM, name); }
  int Site(const char* name) { return Id(mjOBJ_SITE, name); }
  int Joint(const char* name) { return Id(mjOBJ_JOINT, name); }
  int Qpos(const char* joint);       // Address in qpos.
  int Qvel(const char* joint);       // Address in qvel.
  int SensorData(const char* name);  // Address in sensordata.
  // FAILED_PRECONDITION: some name was missing, so the model is not the one the task is written
  // for.
  const absl::Status& lookup_status() const { return lookup_status_; }

  absl::Span<const double> ctrl() const { return {data_->ctrl, static_cast<size_t>(model_->nu)}; }
  absl::Span<double> qpos() { return {data_->qpos, static_cast<size_t>(model_->nq)}; }
  absl::Span<double> qvel() { return {data_->qvel, static_cast<size_t>(model_->nv)}; }
  absl::Span<const double> qpos() const { return {data_->qpos, static_cast<size_t>(model_->nq)}; }
  absl::Span<const double> qvel() const { return {data_->qvel, static_cast<size_t>(model_->nv)}; }
  absl::Span<const double> act() const { return {data_->act, static_cast<size_t>(model_->na)}; }
  absl::Span<const double> sensors(int address, int size) const {
    return {data_->sensordata + address, static_cast<size_t>(size)};
  }

 private:
  int Id(mjtObj type, const char* name);

  struct DeleteModel {
    void operator()(mjModel* m) const { mj_deleteModel(m); }
  };
  struct DeleteData {
    void operator()(mjData* d) const { mj_deleteData(d); }
  };

  const std::shared_ptr<const mjModel> shared_model_;
  const std::unique_ptr<mjModel, DeleteModel> own_model_;  // Null unless the task edits it.
  const mjModel* const model_;
  // Same arrays, actuation disabled: dm_control toggles the flag, which a shared model forbids.
  const mjModel model_without_actuation_;
  const std::unique_ptr<mjData, DeleteData> data_;
  bool failed_ = false;  // MuJoCo raised an error.
  absl::Status lookup_status_;
};

// Indices into the nine elements of a rotation matrix, as dm_control names them: kXz is row x,
// column z.
enum MatrixElement { kXx = 0, kXy, kXz, kYx, kYy, kYz, kZx, kZy, kZz };

}  // namespace pompc::dmc

#endif  // POMPC_ACTOR_ENV_PHYSICS_H_
