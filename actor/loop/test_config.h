// A run small enough for unit tests: tiny networks and planner, short episodes.
#ifndef POMPC_ACTOR_LOOP_TEST_CONFIG_H_
#define POMPC_ACTOR_LOOP_TEST_CONFIG_H_

#include <cstdint>
#include <vector>

#include "common/base/check.h"
#include "common/base/rng.h"
#include "common/config/config.h"
#include "common/model/parameters.h"
#include "proto/pompc/v1/config.pb.h"
#include "proto/pompc/v1/learner.pb.h"

namespace pompc {

// cartpole-swingup, episodes of 6 decisions, 3 rows a segment.
inline v1::RunConfig TestConfig() {
  v1::RunConfig config = DefaultRunConfig();
  config.set_seed(7);
  config.mutable_environment()->set_episode_steps(12);
  v1::ModelConfig& model = *config.mutable_model();
  model.set_latent_dim(16);
  model.set_encoder_dim(16);
  model.set_mlp_dim(16);
  model.set_num_bins(11);
  v1::PlannerConfig& planner = *config.mutable_planner();
  planner.set_iterations(2);
  planner.set_num_samples(16);
  planner.set_num_policy_samples(4);
  planner.set_num_elites(4);
  config.mutable_actor()->set_segment_rows(3);
  config.mutable_actor()->set_max_parameter_lag_updates(100);
  config.mutable_evaluation()->set_episodes(2);
  config.mutable_evaluation()->set_every_decisions(100);
  return config;
}

inline v1::TaskSizes CartpoleSizes() {
  v1::TaskSizes sizes;
  sizes.set_observation_dim(5);
  sizes.set_action_dim(1);
  sizes.set_episode_decisions(6);
  return sizes;
}

// A trained snapshot whose networks follow from `seed`.
inline v1::ParameterSnapshot TrainedSnapshot(const v1::RunConfig& config, int64_t version,
                                             int64_t decisions, uint64_t seed = 1) {
  const v1::TaskSizes sizes = CartpoleSizes();
  auto parameters =
      Parameters::Create(ModelSpec::FromConfig(config, sizes.observation_dim(), sizes.action_dim()),
                         ParameterUse::kActing);
  POMPC_CHECK(parameters.ok());
  (*parameters)->Initialise(seed);
  // Initial networks value everything at 0; these do not.
  Rng rng(seed, RngRole::kTest, 0, 0);
  for (const NamedParameter& p : (*parameters)->layout().parameters()) {
    std::vector<float> noise(p.size);
    rng.FillNormal(absl::MakeSpan(noise));
    (*parameters)->View(p.name).view({-1}).add_(at::tensor(noise), 0.3);
  }
  v1::ParameterSnapshot snapshot;
  snapshot.set_version(version);
  snapshot.set_updates(10 * version);
  snapshot.set_decisions(decisions);
  snapshot.set_trained(true);
  snapshot.set_data((*parameters)->Snapshot());
  return snapshot;
}

}  // namespace pompc

#endif  // POMPC_ACTOR_LOOP_TEST_CONFIG_H_
