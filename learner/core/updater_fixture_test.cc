// Updates against recorded ones of the references: losses, gradients, and weights afterwards; on
// the CPU and, where there is one, on a GPU in float32 products, kernel by kernel and as a CUDA
// graph.
//
// Tolerances: 10 times what an independent re-implementation needs (README.md of the fixtures).
// In float64 what depends on the policy's entropy is looser: the references write it in a form
// whose 1e-8 guard differs from ours by at most 1e-6 of the entropy, 2e-7 of the gradient.
#include <algorithm>
#include <string>
#include <tuple>

#include "absl/strings/str_cat.h"
#include "common/model/algorithm_fixture.h"
#include "common/model/device.h"
#include "learner/core/updater.h"

namespace pompc {
namespace {

struct Tolerances {
  double loss, gradient, policy_gradient, model_weight, policy_weight, target_weight, policy;
};
constexpr Tolerances kFloat = {1e-5, 1.1e-4, 1.1e-4, 6e-5, 3e-6, 3e-6, 1e-4};
constexpr Tolerances kDouble = {1e-12, 1e-12, 3e-6, 1e-12, 1e-8, 1e-12, 3e-6};

struct Place {
  const char* name;
  at::DeviceType device;
  bool record;
};
constexpr Place kPlaces[] = {
    {"cpu", at::kCPU, false}, {"gpu", at::kCUDA, false}, {"gpu_graph", at::kCUDA, true}};

class UpdaterFixtureTest : public testing::TestWithParam<std::tuple<std::string, Place>> {
 protected:
  void SetUp() override {
    const Place& place = std::get<Place>(GetParam());
    if (place.device != at::kCPU) {
      const auto device = FindDevice("this test", "cuda");
      if (!device.ok()) GTEST_SKIP() << device.status();
    }
    config_ = fixture_.RunConfig();
    config_.mutable_learner()->set_matmul_precision(v1::FP32);
    config_.mutable_actor()->set_matmul_precision(v1::FP32);  // Of reanalyze.
    UpdaterOptions options;
    options.obs_dim = fixture_.Config("obs_dim");
    options.action_dim = fixture_.Config("action_dim");
    options.episode_decisions = fixture_.Config("episode_length");
    options.tensor = fixture_.options().device(place.device);
    options.record = place.record;
    updater_ = *Updater::Create(config_, options);
    Checkpoint start = updater_->Save();
    if (place.record) MakeUpdatesUntilRecorded();
    start.tensors["return_scale"] = fixture_["scale_init"].squeeze(0);
    start.tensors["kl_scale"] = fixture_["scale_init"].squeeze(0);
    ASSERT_TRUE(updater_->Restore(start).ok());
    fixture_.LoadWeights(*updater_->parameters());
  }

  // Of both kinds, with anything.
  void MakeUpdatesUntilRecorded() {
    Batch batch = LoadBatch("u0/");
    GeneratorNoise noise(1, fixture_.options().device(at::kCUDA));
    for (const UpdateKind kind : {UpdateKind::kFull, UpdateKind::kModelOnly}) {
      UpdateRequest request;
      request.kind = kind;
      for (int i = 0; i < 6; ++i) {
        const auto result = updater_->Update(request, batch, noise);
        ASSERT_TRUE(result.ok()) << result.status();
      }
    }
  }

  Batch LoadBatch(const std::string& u) const {
    Batch batch = LoadBatchOnCpu(u);
    const at::DeviceType device = std::get<Place>(GetParam()).device;
    for (at::Tensor* t : {&batch.obs, &batch.action, &batch.reward, &batch.terminated,
                          &batch.prior_mean, &batch.prior_std}) {
      *t = t->to(device);
    }
    return batch;
  }

  Batch LoadBatchOnCpu(const std::string& u) const {
    Batch batch;
    batch.obs = fixture_[u + "batch/obs"];
    batch.action = fixture_[u + "batch/action"];
    batch.reward = fixture_[u + "batch/reward"].squeeze(-1);
    batch.terminated = fixture_.Has(u + "batch/terminated")
                           ? fixture_[u + "batch/terminated"].squeeze(-1)
                           : at::zeros_like(batch.reward);
    batch.prior_mean = at::zeros_like(batch.action);
    batch.prior_std = at::ones_like(batch.action);
    if (fixture_.Has(u + "batch/expert_action_dist")) {
      const auto halves = fixture_[u + "batch/expert_action_dist"].chunk(2, -1);
      // The reference stores NaN for random actions, we N(0, 1).
      const at::Tensor random = halves[0].isnan();
      batch.prior_mean = at::where(random, batch.prior_mean, halves[0]);
      batch.prior_std = at::where(random, batch.prior_std, halves[1]);
    } else if (fixture_.Has(u + "batch/mu")) {
      batch.prior_mean = fixture_[u + "batch/mu"];
      batch.prior_std = fixture_[u + "batch/std"];
    }
    return batch;
  }

  ReplayNoise LoadDraws(const std::string& u) const {
    ReplayNoise noise(std::get<Place>(GetParam()).device);
    const auto add = [&](const std::string& key) {
      if (fixture_.Has(u + "noise/" + key)) noise.Add(fixture_[u + "noise/" + key]);
    };
    for (int t = 0; t < fixture_.Config("horizon"); ++t) {
      add("reanalyze/pi_eps/" + std::to_string(t));
    }
    for (int i = 0; i < fixture_.Config("iterations"); ++i) {
      const std::string iteration = "reanalyze/iter" + std::to_string(i) + "/";
      add(iteration + "sample");
      add(iteration + "term_eps");
      add(iteration + "qidx");
    }
    for (const char* key : {"reanalyze/gumbel_exp", "td_eps", "td_qidx", "pi_eps", "pi_qidx"}) {
      add(key);
    }
    return noise;
  }

  void ExpectInfo(const std::string& u, const UpdateStats& stats) const {
    // From the second update on, targets depend on the policy after its first.
    const double loss =
        u == "u0/" ? tolerances_.loss : std::max(tolerances_.loss, tolerances_.policy_weight);
    const struct {
      const char* key;
      Stat stat;
      double tolerance;
    } infos[] = {
        {"consistency_loss", Stat::kConsistencyLoss, loss},
        {"reward_loss", Stat::kRewardLoss, loss},
        {"value_loss", Stat::kValueLoss, loss},
        {"termination_loss", Stat::kTerminationLoss, loss},
        {"total_loss", Stat::kTotalLoss, loss},
        {"grad_norm", Stat::kModelGradientNorm, tolerances_.policy_gradient},
        {"pi_loss", Stat::kPolicyLoss, tolerances_.policy},
        {"pi_grad_norm", Stat::kPolicyGradientNorm, tolerances_.policy_gradient},
        {"pi_scaled_entropy", Stat::kPolicyEntropy, tolerances_.policy},
    };
    for (const auto& info : infos) {
      if (!fixture_.Has(u + "info/" + info.key)) continue;
      EXPECT_TRUE(Close(stats.values[static_cast<int>(info.stat)], fixture_[u + "info/" + info.key],
                        info.tolerance))
          << info.key;
    }
    if (fixture_.Has(u + "mid/td_targets")) {
      EXPECT_TRUE(Close(stats.values[static_cast<int>(Stat::kValueTarget)],
                        fixture_[u + "mid/td_targets"].mean(), loss));
    }
    const bool by_kl = fixture_.algorithm() == "bmpc";
    if (fixture_.Has(u + "scale_after") && fixture_.Has(u + "info/pi_loss")) {
      EXPECT_TRUE(Close(stats.values[static_cast<int>(by_kl ? Stat::kKlScale : Stat::kReturnScale)],
                        fixture_[u + "scale_after"], tolerances_.policy));
    }
  }

  // Recorded gradients are those before clipping, ours are clipped.
  void ExpectGradients(const std::string& u, const UpdateStats& stats) const {
    const double clip = config_.learning().gradient_clip_norm();
    int compared = 0;
    for (const NamedParameter& p : updater_->parameters()->layout().parameters()) {
      const bool policy = p.group == ParameterGroup::kPolicy;
      const at::Tensor expected =
          fixture_.Parameter(u + (policy ? "pi_grad/" : "grad/"), p.name, false);
      if (!expected.defined()) continue;
      const at::Tensor norm = stats.values[static_cast<int>(policy ? Stat::kPolicyGradientNorm
                                                                   : Stat::kModelGradientNorm)];
      const at::Tensor unclipped =
          updater_->parameters()->Leaf(p.name).grad() * ((norm + 1e-6) / clip).clamp_min(1);
      EXPECT_TRUE(
          Close(unclipped, expected, policy ? tolerances_.policy_gradient : tolerances_.gradient))
          << p.name;
      ++compared;
    }
    EXPECT_GT(compared, 20);
  }

  // Returns the number of compared tensors.
  int ExpectWeights(const std::string& u) const {
    int compared = 0;
    for (const NamedParameter& p : updater_->parameters()->layout().parameters()) {
      const at::Tensor expected = fixture_.Parameter(u + "after/", p.name, false);
      if (!expected.defined()) continue;
      EXPECT_TRUE(CloseAbsolute(updater_->parameters()->View(p.name), expected,
                                p.group == ParameterGroup::kPolicy ? tolerances_.policy_weight
                                                                   : tolerances_.model_weight))
          << p.name;
      ++compared;
      if (p.group != ParameterGroup::kValue) continue;
      EXPECT_TRUE(CloseAbsolute(updater_->parameters()->TargetView(p.name),
                                fixture_.Parameter(u + "after/", p.name, true),
                                tolerances_.target_weight))
          << "target of " << p.name;
    }
    return compared;
  }

  const AlgorithmFixture fixture_{std::get<std::string>(GetParam())};
  const Tolerances tolerances_ = fixture_.is_double() ? kDouble : kFloat;
  v1::RunConfig config_;
  std::unique_ptr<Updater> updater_;
};

INSTANTIATE_TEST_SUITE_P(Fixtures, UpdaterFixtureTest,
                         testing::Combine(testing::ValuesIn(FixtureCases("_update_")),
                                          testing::ValuesIn(kPlaces)),
                         [](const auto& info) {
                           return absl::StrCat(std::get<std::string>(info.param), "_on_",
                                               std::get<Place>(info.param).name);
                         });

TEST_P(UpdaterFixtureTest, UpdatesLikeTheReference) {
  int num_weights = 0;
  for (int k = 0; fixture_.Has("u" + std::to_string(k) + "/batch/obs"); ++k) {
    const std::string u = "u" + std::to_string(k) + "/";
    SCOPED_TRACE(u);
    UpdateRequest request;
    request.want_stats = true;
    request.kind = fixture_.Has(u + "noise/pi_eps") ? UpdateKind::kFull : UpdateKind::kModelOnly;
    Batch batch = LoadBatch(u);
    ReplayNoise noise = LoadDraws(u);
    const auto result = updater_->Update(request, batch, noise);
    ASSERT_TRUE(result.ok()) << result.status();
    EXPECT_TRUE(noise.empty());
    ExpectInfo(u, *result->stats);
    if (fixture_.Has(u + "mid/zs") && k == 0) ExpectGradients(u, *result->stats);
    num_weights += ExpectWeights(u);
    EXPECT_EQ(result->reanalyzed.has_value(), fixture_.Has(u + "noise/reanalyze/gumbel_exp"));
    if (!result->reanalyzed.has_value()) continue;
    // The prior that goes back to replay, at the rows of the re-planned windows.
    const int64_t windows = result->reanalyzed->mean.size(1);
    const at::Tensor rows =
        fixture_[u + "batch/index"].narrow(0, 1, batch.action.size(0)).narrow(1, 0, windows);
    const at::Tensor stored =
        fixture_[u + "replay/expert_action_dist_after"].index_select(0, rows.flatten());
    const at::Tensor ours = at::cat({result->reanalyzed->mean, result->reanalyzed->std}, -1);
    EXPECT_TRUE(CloseAbsolute(ours.flatten(0, 1), stored, 4e-4));
    EXPECT_TRUE(CloseAbsolute(batch.prior_mean.narrow(1, 0, windows), result->reanalyzed->mean, 0));
  }
  EXPECT_GT(num_weights, 20);
}

// The policy loss by itself, in all modes of TD-M(PC)^2's published code.
class ActorModeFixtureTest : public testing::TestWithParam<std::string> {};

INSTANTIATE_TEST_SUITE_P(Fixtures, ActorModeFixtureTest,
                         testing::Values("sac", "residual", "bc_sac", "bc", "awac"));

TEST_P(ActorModeFixtureTest, PolicyLossLikeTheReference) {
  for (const std::string& name : FixtureCases("_actor_modes_")) {
    const AlgorithmFixture fixture(name);
    const std::string mode = "mode_" + GetParam() + "/";
    v1::RunConfig config = fixture.RunConfig();
    v1::LearningConfig& learning = *config.mutable_learning();
    if (GetParam() == "sac") learning.set_kl_weight(0);
    if (GetParam() == "bc_sac") learning.set_policy_objective(v1::LearningConfig::BC_SAC);
    if (GetParam() == "bc") learning.set_policy_objective(v1::LearningConfig::BC);
    if (GetParam() == "awac") learning.set_policy_objective(v1::LearningConfig::AWAC);
    const std::shared_ptr<Parameters> parameters =
        *Parameters::Create(fixture.Spec(), ParameterUse::kTraining, fixture.options());
    fixture.LoadWeights(*parameters);
    const WorldModel tracked(parameters, WorldModel::Gradients::kTracked);
    const WorldModel model(parameters, WorldModel::Gradients::kNone);
    Batch batch;
    batch.action = fixture["in/action"];
    batch.prior_mean = fixture["in/mu"];
    batch.prior_std = fixture["in/std"];
    ReplayNoise noise;
    noise.Add(fixture[mode + "noise/pi_eps"]);
    noise.Add(fixture[mode + "noise/pi_qidx"]);
    if (GetParam() == "awac") noise.Add(fixture[mode + "noise/v_qidx"]);
    RunningScale return_scale(config.learning().scale_rate(), fixture.options());
    RunningScale kl_scale(config.learning().scale_rate(), fixture.options());
    return_scale.value().copy_(fixture["scale_init"].squeeze());
    const PolicyLossOptions options = {
        config.learning(), RunDiscount(config.learning(), fixture.Config("episode_length")),
        config.planner().min_std(), at::ones({}, fixture.options())};
    const PolicyDraw draw =
        DrawPolicy(tracked, model, options, batch, fixture["in/zs"], kl_scale, noise);
    const PolicyLoss loss = ComputePolicyLoss(model, options, batch, draw, return_scale, noise);
    EXPECT_TRUE(Close(loss.loss, fixture[mode + "info/pi_loss"], 1e-4));
    EXPECT_TRUE(Close(return_scale.value(), fixture[mode + "scale_after"], 1e-5));
    loss.loss.backward();
    int compared = 0;
    for (const NamedParameter& p : parameters->layout().parameters()) {
      const at::Tensor expected = fixture.Parameter(mode + "pi_grad/", p.name, false);
      if (p.group != ParameterGroup::kPolicy || !expected.defined()) continue;
      EXPECT_TRUE(Close(parameters->Leaf(p.name).grad(), expected, 1.1e-4)) << p.name;
      ++compared;
    }
    EXPECT_EQ(compared, 10);
  }
}

}  // namespace
}  // namespace pompc
