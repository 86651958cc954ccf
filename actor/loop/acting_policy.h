// ActingPolicy: from observations to actions, with the newest parameters it was given.
//
// Plans for a group of environments in one batch. Before the first trained snapshot, and in the
// decision after a plan that failed, actions are uniform random with planner prior N(0, 1).
//
// Shapes: E environments of a group, O observation size, A action size. All tensors are float32 on
//   the CPU; planning happens on ActingOptions.device.
// Thread-safety: none; one thread owns an ActingPolicy.
// Determinism: on CPU, equal (seed, options, snapshots, observations, steps) => bit-equal results.
//   A random action depends on the environment alone; a plan's draws belong to the group's first
//   environment, so how environments are grouped matters for plans.
#ifndef POMPC_ACTOR_LOOP_ACTING_POLICY_H_
#define POMPC_ACTOR_LOOP_ACTING_POLICY_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/rng.h"
#include "common/model/noise.h"
#include "common/model/tensor.h"
#include "common/planner/mppi_planner.h"
#include "proto/pompc/v1/config.pb.h"
#include "proto/pompc/v1/learner.pb.h"

namespace pompc {

struct ActingOptions {
  PlanMode mode = PlanMode::kAct;
  RngRole planner_stream = RngRole::kPlanner;  // Of the planner's draws.
  // Index among the run's environments of this policy's first: of all its streams.
  uint32_t first_environment = 0;
  std::string device = "cpu";    // As ActorConfig.device.
  bool keep_candidates = false;  // Fill Decision.candidates, as PlanRequest's.
};

struct Decision {
  at::Tensor action;      // [E, A] in [-1, 1].
  at::Tensor prior_mean;  // [E, A] planner prior to store.
  at::Tensor prior_std;   // [E, A]
  bool planned = false;   // Else the actions are random.
  // Every sequence of some environment had a value that is not finite; all acted at random.
  bool plan_failed = false;
  int64_t num_nonfinite = 0;  // Rejected sequences; of a plan that failed, those of one iteration.
  // As PlanResult's, with ActingOptions.keep_candidates and if planned; undefined otherwise.
  at::Tensor candidates, candidate_value;
};

class ActingPolicy {
 public:
  // INVALID_ARGUMENT: sizes, planner settings or device that cannot be.
  static absl::StatusOr<std::unique_ptr<ActingPolicy>> Create(const v1::RunConfig& config,
                                                              const v1::TaskSizes& sizes,
                                                              const ActingOptions& options);

  // Uses `snapshot` from the next Act() on. The version that is held costs nothing; an older one is
  // taken too: a learner that was restarted counts on from its checkpoint.
  // INVALID_ARGUMENT: its data does not fit the config; the old parameters stay in use.
  absl::Status Load(const v1::ParameterSnapshot& snapshot);

  // One decision for every environment of a group. obs: [E, O]. reset: bool [E], episodes that
  // start with this observation. step: names the decision's random draws; never use one twice for a
  // group. first: which of the policy's environments is the group's first.
  // Blocks for a whole plan. INVALID_ARGUMENT: wrong shape. INTERNAL: LibTorch failed.
  absl::StatusOr<Decision> Act(const at::Tensor& obs, const at::Tensor& reset, uint64_t step,
                               uint32_t first = 0);

  // Of the newest snapshot; -1 and 0 before the first.
  int64_t version() const { return version_; }
  int64_t updates() const { return updates_; }
  bool trained() const { return trained_; }
  at::Device device() const { return tensor_options_.device(); }

 private:
  ActingPolicy(const v1::RunConfig& config, const v1::TaskSizes& sizes,
               const ActingOptions& options);

  Decision RandomDecision(int64_t environments, uint64_t step, uint32_t first) const;

  const ActingOptions options_;
  const uint64_t seed_;
  const int64_t obs_dim_, action_dim_, num_samples_;
  at::TensorOptions tensor_options_;
  std::shared_ptr<Parameters> parameters_;
  std::unique_ptr<MppiPlanner> planner_;
  std::unique_ptr<GeneratorNoise> noise_;
  std::map<uint32_t, PlannerState> states_;  // Of each group, by its first environment.
  int64_t version_ = -1;
  int64_t updates_ = 0;
  bool trained_ = false;
};

}  // namespace pompc

#endif  // POMPC_ACTOR_LOOP_ACTING_POLICY_H_
