// Control tasks as the actor sees them: normalised actions in, float observations and rewards out.
//
// The tasks are the 51 of dm_control's suite and the 11 extra ones of TD-MPC2, written in C++ on
// MuJoCo's C API. With the same libmujoco they give bit for bit what dm_control gives: model,
// seeded reset, observation and reward (see suite_fixture_test.cc).
//
// Source: dm_control 1.0.50, suite/ and rl/control.py; nicklashansen/tdmpc2@e9f5932
//   tdmpc2/envs/dmcontrol.py (action repeat, time limit, observation order, action scaling).
// Deviations: (1) an unstable simulation truncates the episode; dm_control raises PhysicsError.
//   (2) LQR tasks, which have no limits in dm_control, get a time limit of 1000 control steps, and
//   actions in [-1, 1] go to their unbounded controls as they are.
// Shapes: O observation size, A action size.
// Units: a control step is dm_control's environment step; a decision is `action_repeat` of them.
// Thread-safety: one Environment is used by one thread at a time; different ones are independent.
// Determinism: equal (task, seed, actions) => bit-equal results; the random stream runs on across
//   episodes as dm_control's RandomState does.
#ifndef POMPC_ACTOR_ENV_ENVIRONMENT_H_
#define POMPC_ACTOR_ENV_ENVIRONMENT_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace pompc {

// A named part of the observation: elements [offset, offset + size).
struct ObservationSlice {
  std::string name;
  int64_t offset = 0;
  int64_t size = 0;
};

struct EnvironmentSpec {
  std::string task;                           // dm_control's "domain-task".
  int64_t observation_dim = 0;                // O.
  int64_t action_dim = 0;                     // A.
  std::vector<ObservationSlice> observation;  // In order, without gaps.
  std::vector<double> action_min;             // [A] control that action -1 stands for.
  std::vector<double> action_max;             // [A] control that action +1 stands for.
  double control_timestep_seconds = 0;
  int64_t episode_steps = 0;   // Time limit in control steps.
  bool can_terminate = false;  // Whether an episode may end other than by truncation.
};

struct StepResult {
  double reward = 0;        // Sum over the control steps of the decision.
  bool terminated = false;  // The MDP ended: nothing to bootstrap from.
  bool truncated = false;   // Time limit reached or simulation unstable: bootstrap.
};

// Everything that decides an environment's future. Restoring it in an environment of the same task
// continues bit for bit. Plain data, so that a checkpoint can hold it.
struct EnvironmentState {
  std::vector<double> physics;      // Time, qpos, qvel, act, warm start, ..., then sensor data.
  std::vector<double> model_edits;  // Entries of the model that resets change.
  std::vector<uint32_t> random;     // Random stream.
  int64_t episode_step = 0;         // Control steps done in the episode.
  bool episode_over = true;         // Only Reset() is allowed.
};

class Environment {
 public:
  virtual ~Environment() = default;

  virtual const EnvironmentSpec& spec() const = 0;

  // Restarts the random stream, as a new environment with this seed. Call Reset() next.
  virtual void Seed(uint32_t seed) = 0;

  // Starts an episode. observation: [O], written on success.
  // INVALID_ARGUMENT: wrong size. INTERNAL: no valid initial state found.
  virtual absl::Status Reset(absl::Span<float> observation) = 0;

  // One decision. action: [A] in [-1, 1], mapped to the control limits. observation: [O], the state
  // after it; the last valid one when the simulation became unstable (that control step then has
  // reward 0). After `terminated` or `truncated` only Reset() is allowed.
  // INVALID_ARGUMENT: wrong size, or an action that is not finite or out of range; nothing changes.
  // FAILED_PRECONDITION: the episode is over or was never started.
  virtual absl::StatusOr<StepResult> Step(absl::Span<const float> action,
                                          absl::Span<float> observation) = 0;

  // Copies the whole state; `state` keeps its memory between calls.
  virtual void SaveState(EnvironmentState* state) const = 0;
  // Continues from `state`. INVALID_ARGUMENT: not a state of this task; nothing changes.
  virtual absl::Status LoadState(const EnvironmentState& state) = 0;
  // observation: [O] of the present state, e.g. after LoadState(). INVALID_ARGUMENT: wrong size.
  virtual absl::Status Observe(absl::Span<float> observation) const = 0;

  // Episodes ended because MuJoCo reported an unstable simulation or ran out of memory for it.
  virtual int64_t unstable_episodes() const = 0;
};

struct EnvironmentOptions {
  std::string task;
  int action_repeat = 2;  // Control steps per decision. >= 1.
  uint32_t seed = 0;      // Of numpy's RandomState.
  // Replaces the task's time limit, in control steps. >= 1.
  std::optional<int64_t> episode_steps = std::nullopt;
  // Keeps textures and skins of the model, which only a renderer needs and most memory goes to.
  bool visuals = false;
};

// INVALID_ARGUMENT: bad option, or no such task (the message lists those that exist).
// NOT_FOUND: the task's model files are missing. They are looked for in $POMPC_DM_CONTROL, then in
// ../share/pompc/dm_control next to the program, then where `make setup` put them.
absl::StatusOr<std::unique_ptr<Environment>> CreateEnvironment(const EnvironmentOptions& options);

// All tasks, sorted.
std::vector<std::string> TaskNames();

// The spec of a task with default options. Errors as CreateEnvironment().
absl::StatusOr<EnvironmentSpec> FindSpec(std::string_view task);

}  // namespace pompc

#endif  // POMPC_ACTOR_ENV_ENVIRONMENT_H_
