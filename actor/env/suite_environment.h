// The Environment of dm_control's tasks; internal to actor/env, its tests and benchmarks.
//
// Source: dm_control 1.0.50 rl/control.py:76-133 (reset, step),
// suite/wrappers/action_scale.py:73-77. Thread-safety, determinism, errors: as Environment.
#ifndef POMPC_ACTOR_ENV_SUITE_ENVIRONMENT_H_
#define POMPC_ACTOR_ENV_SUITE_ENVIRONMENT_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "actor/env/environment.h"
#include "actor/env/physics.h"
#include "actor/env/random_state.h"
#include "actor/env/task.h"

namespace pompc::dmc {

class SuiteEnvironment : public Environment {
 public:
  // Errors as CreateEnvironment().
  static absl::StatusOr<std::unique_ptr<SuiteEnvironment>> Create(
      const EnvironmentOptions& options);

  const EnvironmentSpec& spec() const override { return spec_; }
  void Seed(uint32_t seed) override;
  absl::Status Reset(absl::Span<float> observation) override;
  absl::StatusOr<StepResult> Step(absl::Span<const float> action,
                                  absl::Span<float> observation) override;
  void SaveState(EnvironmentState* state) const override;
  absl::Status LoadState(const EnvironmentState& state) override;
  absl::Status Observe(absl::Span<float> observation) const override;
  int64_t unstable_episodes() const override { return unstable_episodes_; }

  // One control step with MuJoCo controls [A] as they are: Step() without action scaling, repeat
  // and observation. Only within an episode.
  StepResult ControlStep(absl::Span<const double> controls);

  // Observation of the present state in double precision, as dm_control has it; valid until the
  // next call.
  const std::vector<double>& ObservePrecisely() const;
  double Reward() const { return task_->Reward(physics_); }
  Physics& physics() { return physics_; }
  RandomState& random() { return random_; }
  int substeps() const { return substeps_; }

 private:
  SuiteEnvironment(const TaskEntry& entry, const EnvironmentOptions& options,
                   std::shared_ptr<const mjModel> model);

  // Observes and converts; gives the last valid observation when the simulation is unstable.
  void WriteObservation(absl::Span<float> observation) const;
  absl::Status CheckObservationSize(size_t size) const;

  EnvironmentSpec spec_;
  const int action_repeat_;
  const int substeps_;  // Physics steps per control step.
  Physics physics_;
  RandomState random_;
  const std::unique_ptr<Task> task_;

  int64_t episode_step_ = 0;
  bool episode_over_ = true;
  int64_t unstable_episodes_ = 0;
  std::vector<double> controls_;                     // [A], of the decision.
  mutable std::vector<double> precise_observation_;  // Scratch.
  mutable std::vector<float> last_observation_;      // [O], the last valid one.
};

}  // namespace pompc::dmc

#endif  // POMPC_ACTOR_ENV_SUITE_ENVIRONMENT_H_
