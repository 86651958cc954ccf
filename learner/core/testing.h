// What tests of updates share: small networks of each member of the family, and batches.
#ifndef POMPC_LEARNER_CORE_TESTING_H_
#define POMPC_LEARNER_CORE_TESTING_H_

#include <cstdint>
#include <string_view>

#include "learner/core/losses.h"
#include "proto/pompc/v1/config.pb.h"

namespace pompc::testing {

inline constexpr int64_t kSteps = 3, kObs = 5, kActions = 2;

// PO-MPC; every second full update re-plans 3 windows.
inline v1::RunConfig SmallConfig() {
  v1::RunConfig config;
  config.mutable_model()->set_latent_dim(16);
  config.mutable_model()->set_encoder_dim(12);
  config.mutable_model()->set_mlp_dim(24);
  config.mutable_planner()->set_num_samples(16);
  config.mutable_planner()->set_num_policy_samples(4);
  config.mutable_planner()->set_num_elites(4);
  config.mutable_planner()->set_iterations(2);
  config.mutable_learning()->set_reanalyze_interval(2);
  config.mutable_learning()->set_reanalyze_windows(3);
  return config;
}

inline constexpr const char* kFamily[] = {"tdmpc2", "bmpc",         "tdmpc_square",
                                          "pompc",  "pompc_direct", "pompc_v"};

// SmallConfig() with the losses of a preset, one of kFamily.
inline v1::RunConfig FamilyConfig(std::string_view preset) {
  v1::RunConfig config = SmallConfig();
  v1::LearningConfig& learning = *config.mutable_learning();
  if (preset == "tdmpc2" || preset == "tdmpc_square") {
    config.mutable_model()->set_policy_form(v1::ModelConfig::SQUASHED);
    config.mutable_model()->set_log_std_min(-10);
    config.mutable_model()->set_log_std_max(2);
  }
  if (preset == "tdmpc2") learning.set_kl_weight(0);
  if (preset == "tdmpc2") learning.set_policy_loss_on_last_latent(true);
  if (preset == "tdmpc2") learning.set_entropy_tanh_correction(true);
  if (preset == "tdmpc_square") {
    learning.set_divergence(v1::LearningConfig::CROSS_ENTROPY);
    learning.set_prior_source(v1::LearningConfig::REPLAY);
    learning.set_dropout_everywhere(true);
    learning.set_clip_with_stale_policy_gradient(true);
    learning.set_entropy_tanh_correction(true);
  }
  if (preset == "bmpc" || preset == "pompc_direct") {
    learning.set_divergence(v1::LearningConfig::REVERSE);
    learning.set_kl_action_scaling(false);
    learning.set_prior_source(v1::LearningConfig::REANALYZED);
  }
  if (preset == "bmpc") learning.set_return_weight(0);
  if (preset == "bmpc" || preset == "pompc_v") {
    config.mutable_model()->set_value_kind(v1::ModelConfig::V);
    config.mutable_model()->set_num_value_heads(2);
    learning.set_value_target(v1::LearningConfig::V_MODEL_BASED);
    learning.set_target_reduction(v1::LearningConfig::AVERAGE);
  }
  return config;
}

// On the CPU, in float32.
inline Batch RandomBatch(int64_t windows, uint64_t seed) {
  GeneratorNoise noise(seed);
  Batch batch;
  batch.obs = noise.Normal({kSteps + 1, windows, kObs});
  batch.action = noise.Normal({kSteps, windows, kActions}).clamp(-1, 1);
  batch.reward = noise.Normal({kSteps, windows});
  batch.terminated = at::zeros({kSteps, windows});
  batch.prior_mean = noise.Normal({kSteps, windows, kActions}).tanh();
  batch.prior_std = noise.Normal({kSteps, windows, kActions}).sigmoid();
  return batch;
}

}  // namespace pompc::testing

#endif  // POMPC_LEARNER_CORE_TESTING_H_
