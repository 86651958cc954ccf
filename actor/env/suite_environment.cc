#include "actor/env/suite_environment.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "actor/env/model.h"
#include "actor/env/mujoco_errors.h"
#include "actor/env/tasks/tasks.h"
#include "common/base/spelling.h"
#include "common/base/status_macros.h"

namespace pompc {
namespace dmc {
namespace {

constexpr int64_t kEpisodeSteps = 1000;

absl::StatusOr<const TaskEntry*> FindTask(std::string_view name) {
  for (const TaskEntry& entry : AllTasks()) {
    if (entry.name == name) return &entry;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("no task '", std::string(name), "', did you mean ",
                   absl::StrJoin(NearestNames(name, TaskNames(), 3), ", "),
                   "? All tasks (`pompc inspect tasks`): ", absl::StrJoin(TaskNames(), ", ")));
}

int Substeps(const TaskEntry& entry, const mjModel& model) {
  if (entry.control_timestep_seconds == 0) return 1;
  return static_cast<int>(std::lround(entry.control_timestep_seconds / model.opt.timestep));
}

EnvironmentSpec MakeSpec(const TaskEntry& entry, const EnvironmentOptions& options,
                         const mjModel& m) {
  EnvironmentSpec spec;
  spec.task = entry.name;
  spec.action_dim = m.nu;
  for (int i = 0; i < m.nu; ++i) {
    const bool limited = m.actuator_ctrllimited[i];
    spec.action_min.push_back(limited ? m.actuator_ctrlrange[2 * i] : -1);
    spec.action_max.push_back(limited ? m.actuator_ctrlrange[2 * i + 1] : 1);
  }
  spec.control_timestep_seconds = m.opt.timestep * Substeps(entry, m);
  spec.episode_steps = options.episode_steps.value_or(kEpisodeSteps);
  spec.can_terminate = entry.can_terminate;
  return spec;
}

}  // namespace

absl::StatusOr<std::unique_ptr<SuiteEnvironment>> SuiteEnvironment::Create(
    const EnvironmentOptions& options) {
  POMPC_ASSIGN_OR_RETURN(const TaskEntry* entry, FindTask(options.task));
  if (options.action_repeat < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("action_repeat must be >= 1, is ", options.action_repeat));
  }
  if (options.episode_steps.value_or(1) < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("episode_steps must be >= 1, is ", *options.episode_steps));
  }
  POMPC_ASSIGN_OR_RETURN(std::shared_ptr<const mjModel> model,
                         LoadModel(entry->file, entry->variant, entry->edit,
                                   options.visuals ? Visuals::kKeep : Visuals::kDrop));
  std::unique_ptr<SuiteEnvironment> environment(
      new SuiteEnvironment(*entry, options, std::move(model)));
  POMPC_RETURN_IF_ERROR(environment->physics_.lookup_status());
  environment->Seed(options.seed);
  environment->physics_.Reset();
  std::vector<double> values;
  ObservationWriter writer(&values, &environment->spec_.observation);
  environment->task_->Observe(environment->physics_, writer);
  writer.End();
  environment->spec_.observation_dim = static_cast<int64_t>(values.size());
  environment->last_observation_.resize(values.size());
  return environment;
}

SuiteEnvironment::SuiteEnvironment(const TaskEntry& entry, const EnvironmentOptions& options,
                                   std::shared_ptr<const mjModel> model)
    : spec_(MakeSpec(entry, options, *model)),
      action_repeat_(options.action_repeat),
      substeps_(Substeps(entry, *model)),
      physics_(std::move(model), entry.edits_model),
      random_(options.seed),
      task_(entry.make(physics_)),
      controls_(spec_.action_dim) {}

void SuiteEnvironment::Seed(uint32_t seed) {
  random_ = RandomState(seed);
  physics_.RestoreModel();
  task_->Build(physics_, random_);
  episode_over_ = true;
}

absl::Status SuiteEnvironment::CheckObservationSize(size_t size) const {
  if (size == static_cast<size_t>(spec_.observation_dim)) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("observation of ", spec_.task, " has ",
                                                 spec_.observation_dim, " elements, not ", size));
}

absl::Status SuiteEnvironment::Reset(absl::Span<float> observation) {
  POMPC_RETURN_IF_ERROR(CheckObservationSize(observation.size()));
  episode_over_ = true;
  physics_.ClearUnstable();
  physics_.Reset();
  if (absl::Status status = task_->InitializeEpisode(physics_, random_); !status.ok()) {
    return absl::InternalError(absl::StrCat(spec_.task, ": ", status.message()));
  }
  physics_.ForwardWithoutActuation();
  if (physics_.unstable()) {
    return absl::InternalError(
        absl::StrCat(spec_.task, ": unstable initial state; ", LastMujocoError()));
  }
  episode_step_ = 0;
  episode_over_ = false;
  WriteObservation(observation);
  return absl::OkStatus();
}

StepResult SuiteEnvironment::ControlStep(absl::Span<const double> controls) {
  std::copy(controls.begin(), controls.end(), physics_.data().ctrl);
  physics_.ClearUnstable();
  physics_.Step(substeps_);
  ++episode_step_;
  StepResult result;
  if (physics_.unstable()) {
    ++unstable_episodes_;
    result.truncated = true;
  } else {
    result.reward = task_->Reward(physics_);
    result.truncated = episode_step_ >= spec_.episode_steps;
    // dm_control asks for termination only before the time limit.
    result.terminated = !result.truncated && task_->Terminated(physics_);
  }
  episode_over_ = result.terminated || result.truncated;
  return result;
}

absl::StatusOr<StepResult> SuiteEnvironment::Step(absl::Span<const float> action,
                                                  absl::Span<float> observation) {
  POMPC_RETURN_IF_ERROR(CheckObservationSize(observation.size()));
  if (action.size() != controls_.size()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "action of ", spec_.task, " has ", controls_.size(), " elements, not ", action.size()));
  }
  if (episode_over_) {
    return absl::FailedPreconditionError(
        absl::StrCat(spec_.task, ": no episode in progress; call Reset() first"));
  }
  for (size_t i = 0; i < action.size(); ++i) {
    if (!(std::abs(action[i]) <= 1)) {  // Also catches NaN.
      return absl::InvalidArgumentError(
          absl::StrCat("action[", i, "] of ", spec_.task, " is ", action[i], ", not in [-1, 1]"));
    }
    const double low = spec_.action_min[i];
    const double scale = (spec_.action_max[i] - low) / 2;
    controls_[i] = low + scale * (static_cast<double>(action[i]) + 1);
  }
  StepResult sum;
  for (int i = 0; i < action_repeat_ && !episode_over_; ++i) {
    const StepResult result = ControlStep(controls_);
    sum.reward += result.reward;
    sum.terminated = result.terminated;
    sum.truncated = result.truncated;
  }
  WriteObservation(observation);
  return sum;
}

const std::vector<double>& SuiteEnvironment::ObservePrecisely() const {
  precise_observation_.clear();
  ObservationWriter writer(&precise_observation_, nullptr);
  task_->Observe(physics_, writer);
  return precise_observation_;
}

void SuiteEnvironment::WriteObservation(absl::Span<float> observation) const {
  if (!physics_.unstable()) {
    const std::vector<double>& precise = ObservePrecisely();
    for (size_t i = 0; i < precise.size(); ++i)
      last_observation_[i] = static_cast<float>(precise[i]);
  }
  std::copy(last_observation_.begin(), last_observation_.end(), observation.begin());
}

absl::Status SuiteEnvironment::Observe(absl::Span<float> observation) const {
  POMPC_RETURN_IF_ERROR(CheckObservationSize(observation.size()));
  WriteObservation(observation);
  return absl::OkStatus();
}

void SuiteEnvironment::SaveState(EnvironmentState* state) const {
  const mjModel& m = physics_.model();
  const int size = mj_stateSize(&m, mjSTATE_INTEGRATION);
  state->physics.resize(size + m.nsensordata);
  mj_getState(&m, &physics_.data(), state->physics.data(), mjSTATE_INTEGRATION);
  const absl::Span<const double> sensors = physics_.sensors(0, static_cast<int>(m.nsensordata));
  std::copy(sensors.begin(), sensors.end(), state->physics.begin() + size);

  state->model_edits.clear();
  // The task only hands out where its edits are; nothing is changed through it here.
  Physics& physics = const_cast<Physics&>(physics_);
  for (const absl::Span<double> edit : task_->ModelEdits(physics)) {
    state->model_edits.insert(state->model_edits.end(), edit.begin(), edit.end());
  }
  const absl::Span<float> heightfield = task_->HeightfieldEdit(physics);
  state->model_edits.insert(state->model_edits.end(), heightfield.begin(), heightfield.end());

  random_.Save(&state->random);
  state->episode_step = episode_step_;
  state->episode_over = episode_over_;
}

absl::Status SuiteEnvironment::LoadState(const EnvironmentState& state) {
  const mjModel& m = physics_.model();
  const size_t size = mj_stateSize(&m, mjSTATE_INTEGRATION);
  const std::vector<absl::Span<double>> edits = task_->ModelEdits(physics_);
  const absl::Span<float> heightfield = task_->HeightfieldEdit(physics_);
  size_t num_edits = heightfield.size();
  for (const absl::Span<double> edit : edits) num_edits += edit.size();
  if (state.physics.size() != size + m.nsensordata || state.model_edits.size() != num_edits ||
      state.episode_step < 0 || !random_.Load(state.random)) {
    return absl::InvalidArgumentError(absl::StrCat("not a state of ", spec_.task));
  }
  auto edit_values = state.model_edits.begin();
  for (const absl::Span<double> edit : edits) {
    std::copy_n(edit_values, edit.size(), edit.begin());
    edit_values += edit.size();
  }
  std::transform(edit_values, state.model_edits.end(), heightfield.begin(),
                 [](double height) { return static_cast<float>(height); });

  // Derived quantities have to be those of the operation that ended the saved Reset() or Step():
  // the next step starts from them. The warm start and the sensors of the acceleration stage, which
  // that operation read or left behind, are put back after it.
  physics_.ClearUnstable();
  mj_resetData(&m, &physics_.data());
  mj_setState(&m, &physics_.data(), state.physics.data(), mjSTATE_INTEGRATION);
  if (state.episode_step == 0) {
    physics_.ForwardWithoutActuation();
  } else {
    physics_.SyncPositionsAndVelocities();
  }
  mj_setState(&m, &physics_.data(), state.physics.data(), mjSTATE_INTEGRATION);
  std::copy(state.physics.begin() + size, state.physics.end(), physics_.data().sensordata);
  episode_step_ = state.episode_step;
  episode_over_ = state.episode_over;
  return absl::OkStatus();
}

}  // namespace dmc

absl::StatusOr<std::unique_ptr<Environment>> CreateEnvironment(const EnvironmentOptions& options) {
  return dmc::SuiteEnvironment::Create(options);
}

std::vector<std::string> TaskNames() {
  std::vector<std::string> names;
  for (const dmc::TaskEntry& entry : dmc::AllTasks()) names.push_back(entry.name);
  return names;
}

absl::StatusOr<EnvironmentSpec> FindSpec(std::string_view task) {
  POMPC_ASSIGN_OR_RETURN(std::unique_ptr<Environment> environment,
                         CreateEnvironment({.task = std::string(task)}));
  return environment->spec();
}

}  // namespace pompc
