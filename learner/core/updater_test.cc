#include "learner/core/updater.h"

#include <cmath>
#include <filesystem>

#include "common/model/algorithm_fixture.h"
#include "common/model/device.h"
#include "learner/core/testing.h"

namespace pompc {
namespace {

using ::pompc::testing::FamilyConfig;
using ::pompc::testing::kActions;
using ::pompc::testing::kFamily;
using ::pompc::testing::kObs;
using ::pompc::testing::kSteps;
using ::pompc::testing::RandomBatch;
using ::pompc::testing::SmallConfig;

constexpr int64_t kWindows = 8;

std::unique_ptr<Updater> MakeUpdater(const v1::RunConfig& config) {
  UpdaterOptions options;
  options.obs_dim = kObs;
  options.action_dim = kActions;
  options.episode_decisions = 500;
  options.seed = 4;
  return *Updater::Create(config, options);
}

// Update number `i` of a run: its batch and noise follow from the number.
UpdateResult Step(Updater& updater, int i, UpdateRequest request = {}) {
  request.want_stats = true;
  Batch batch = RandomBatch(kWindows, 100 + i);
  GeneratorNoise noise(200 + i);
  return *updater.Update(request, batch, noise);
}

double Get(const UpdateResult& result, Stat stat) {
  return result.stats->Read()[static_cast<size_t>(stat)];
}

at::Tensor Group(const Updater& updater, ParameterGroup group) {
  return updater.parameters()->layout().range(group).Of(updater.parameters()->flat()).clone();
}

TEST(UpdaterTest, EqualRunsAreBitEqual) {
  const std::unique_ptr<Updater> a = MakeUpdater(SmallConfig()), b = MakeUpdater(SmallConfig());
  for (int i = 0; i < 4; ++i) {
    Step(*a, i);
    Step(*b, i);
  }
  EXPECT_TRUE(at::equal(a->parameters()->flat(), b->parameters()->flat()));
  EXPECT_TRUE(at::equal(a->parameters()->target(), b->parameters()->target()));
}

TEST(UpdaterTest, OnAGpuRecordedUpdatesEqualThoseMadeKernelByKernel) {
  const auto device = FindDevice("this test", "cuda");
  if (!device.ok()) GTEST_SKIP() << device.status();
  UpdaterOptions options;
  options.obs_dim = kObs;
  options.action_dim = kActions;
  options.episode_decisions = 500;
  options.tensor = at::TensorOptions(at::kFloat).device(*device);
  const std::unique_ptr<Updater> recorded = *Updater::Create(SmallConfig(), options);
  options.record = false;
  const std::unique_ptr<Updater> one_by_one = *Updater::Create(SmallConfig(), options);
  GeneratorNoise noise(0, options.tensor);
  for (int i = 0; i < 20; ++i) {
    UpdateRequest request;
    request.want_stats = true;
    request.kind = i < 6 ? UpdateKind::kModelOnly : UpdateKind::kFull;
    std::vector<at::Tensor> stats;
    for (Updater* updater : {recorded.get(), one_by_one.get()}) {
      Batch batch = RandomBatch(kWindows, 100 + i);
      for (at::Tensor* t : {&batch.obs, &batch.action, &batch.reward, &batch.terminated,
                            &batch.prior_mean, &batch.prior_std}) {
        *t = t->to(*device);
      }
      noise.Seed(200 + i);
      stats.push_back(updater->Update(request, batch, noise)->stats->values);
    }
    EXPECT_TRUE(CloseAbsolute(stats[0], stats[1], 0)) << "statistics of update " << i;
    EXPECT_TRUE(CloseAbsolute(recorded->parameters()->flat(), one_by_one->parameters()->flat(), 0))
        << "parameters after update " << i;
  }
  EXPECT_TRUE(
      CloseAbsolute(recorded->parameters()->target(), one_by_one->parameters()->target(), 0));
}

TEST(UpdaterTest, ContinuesFromACheckpointAsIfNothingHappened) {
  for (const bool stale_clip : {false, true}) {
    v1::RunConfig config = SmallConfig();
    config.mutable_learning()->set_clip_with_stale_policy_gradient(stale_clip);
    config.mutable_learning()->set_gradient_clip_norm(0.01);
    config.mutable_learning()->set_target_kl(0.1);
    const std::unique_ptr<Updater> a = MakeUpdater(config), b = MakeUpdater(config);
    for (int i = 0; i < 3; ++i) Step(*a, i);
    const std::string path =
        (std::filesystem::path(::testing::TempDir()) / "updater_test.safetensors").string();
    ASSERT_TRUE(SaveCheckpoint(a->Save(), path).ok());
    ASSERT_TRUE(b->Restore(*LoadCheckpoint(path)).ok());
    EXPECT_EQ(b->updates(), 3);
    EXPECT_EQ(b->full_updates(), 3);
    for (int i = 3; i < 6; ++i) {
      Step(*a, i);
      Step(*b, i);
    }
    EXPECT_TRUE(at::equal(a->parameters()->flat(), b->parameters()->flat()));
    EXPECT_TRUE(at::equal(a->parameters()->target(), b->parameters()->target()));
  }
}

TEST(UpdaterTest, RefusesACheckpointOfAnotherModel) {
  const std::unique_ptr<Updater> a = MakeUpdater(SmallConfig());
  Checkpoint checkpoint = a->Save();
  checkpoint.tensors["policy.2.bias"] = at::zeros({6});
  EXPECT_EQ(a->Restore(checkpoint).code(), absl::StatusCode::kInvalidArgument);
  checkpoint.tensors.erase("policy.2.bias");
  EXPECT_EQ(a->Restore(checkpoint).code(), absl::StatusCode::kInvalidArgument);
}

TEST(UpdaterTest, ModelOnlyUpdatesLeavePolicyAndPriorAlone) {
  const std::unique_ptr<Updater> updater = MakeUpdater(SmallConfig());
  const at::Tensor policy = Group(*updater, ParameterGroup::kPolicy),
                   prior = Group(*updater, ParameterGroup::kPrior),
                   model = Group(*updater, ParameterGroup::kDynamics);
  UpdateRequest request;
  request.kind = UpdateKind::kModelOnly;
  for (int i = 0; i < 3; ++i) EXPECT_FALSE(Step(*updater, i, request).reanalyzed.has_value());
  EXPECT_TRUE(at::equal(policy, Group(*updater, ParameterGroup::kPolicy)));
  EXPECT_TRUE(at::equal(prior, Group(*updater, ParameterGroup::kPrior)));
  EXPECT_FALSE(at::equal(model, Group(*updater, ParameterGroup::kDynamics)));
  EXPECT_EQ(updater->updates(), 3);
  EXPECT_EQ(updater->full_updates(), 0);
  Step(*updater, 3);
  EXPECT_FALSE(at::equal(policy, Group(*updater, ParameterGroup::kPolicy)));
  EXPECT_FALSE(at::equal(prior, Group(*updater, ParameterGroup::kPrior)));
}

TEST(UpdaterTest, ReanalyzesAtItsIntervalAndUsesTheResult) {
  const std::unique_ptr<Updater> updater = MakeUpdater(SmallConfig());
  for (int i = 0; i < 4; ++i) {
    Batch batch = RandomBatch(kWindows, i);
    const at::Tensor before = batch.prior_mean.clone();
    GeneratorNoise noise(i);
    const UpdateResult result = *updater->Update({}, batch, noise);
    ASSERT_EQ(result.reanalyzed.has_value(), i % 2 == 1);
    if (!result.reanalyzed.has_value()) continue;
    EXPECT_EQ(result.reanalyzed->mean.sizes(), (std::vector<int64_t>{kSteps, 3, kActions}));
    EXPECT_TRUE(at::equal(batch.prior_mean.narrow(1, 0, 3), result.reanalyzed->mean));
    EXPECT_TRUE(at::equal(batch.prior_std.narrow(1, 0, 3), result.reanalyzed->std));
    EXPECT_TRUE(at::equal(batch.prior_mean.narrow(1, 3, 5), before.narrow(1, 3, 5)));
  }
}

TEST(UpdaterTest, UsesWindowsThatWerePlannedAlreadyAsItsOwn) {
  const std::unique_ptr<Updater> updater = MakeUpdater(SmallConfig()),
                                 told = MakeUpdater(SmallConfig());
  EXPECT_FALSE(updater->ReanalyzeDue());
  Step(*updater, 0);
  Step(*told, 0);
  EXPECT_TRUE(updater->ReanalyzeDue());
  Batch batch = RandomBatch(kWindows, 1), other = RandomBatch(kWindows, 1);
  UpdateRequest request;
  GeneratorNoise plans(7), noise(8), same_noise(8);
  request.reanalyzed = *told->Reanalyze(batch, 3, plans);
  const UpdateResult result = *told->Update(request, batch, noise);
  EXPECT_TRUE(at::equal(batch.prior_mean.narrow(1, 0, 3), request.reanalyzed->mean));
  EXPECT_TRUE(at::equal(result.reanalyzed->std, request.reanalyzed->std));
  EXPECT_FALSE(at::equal(batch.prior_mean, other.prior_mean));

  // The same update without re-planning, of a batch that holds these priors already.
  v1::RunConfig never = SmallConfig();
  never.mutable_learning()->set_reanalyze_windows(0);
  const std::unique_ptr<Updater> expected = MakeUpdater(never);
  Step(*expected, 0);
  ASSERT_TRUE(expected->Update({}, batch, same_noise).ok());
  EXPECT_TRUE(at::equal(told->parameters()->flat(), expected->parameters()->flat()));
}

TEST(UpdaterTest, LearnedPriorConvergesToAFixedGaussian) {
  v1::RunConfig config = SmallConfig();
  config.mutable_learning()->set_reanalyze_windows(0);
  config.mutable_learning()->set_learning_rate(3e-3);
  const std::unique_ptr<Updater> updater = MakeUpdater(config);
  const at::Tensor mean = at::tensor({0.4, -0.6}, at::kFloat),
                   std = at::tensor({0.2, 0.8}, at::kFloat);
  double loss = 0;
  for (int i = 0; i < 300; ++i) {
    Batch batch = RandomBatch(kWindows, i);
    batch.prior_mean = mean.expand_as(batch.action).clone();
    batch.prior_std = std.expand_as(batch.action).clone();
    GeneratorNoise noise(i);
    UpdateRequest request;
    request.want_stats = true;
    loss = Get(*updater->Update(request, batch, noise), Stat::kPriorLoss);
  }
  EXPECT_LT(loss, 1e-3);
  const PolicyDistribution prior =
      updater->model()->Prior(updater->model()->Encode(RandomBatch(kWindows, 999).obs[0]));
  EXPECT_TRUE(CloseAbsolute(prior.mean, mean.expand_as(prior.mean), 0.03));
  EXPECT_TRUE(CloseAbsolute(at::exp(prior.log_std), std.expand_as(prior.mean), 0.05));
}

TEST(UpdaterTest, KlWeightFollowsItsSchedule) {
  v1::RunConfig config = SmallConfig();
  config.mutable_learning()->set_kl_weight(2);
  EXPECT_DOUBLE_EQ(Get(Step(*MakeUpdater(config), 0), Stat::kKlWeight), 2);
  config.mutable_learning()->set_kl_weight_final(0.5);
  config.mutable_learning()->set_kl_weight_steps(1000);
  const std::unique_ptr<Updater> updater = MakeUpdater(config);
  for (const auto& [env_steps, weight] :
       {std::pair<int64_t, double>{0, 2}, {500, 1.25}, {1000, 0.5}, {5000, 0.5}}) {
    UpdateRequest request;
    request.env_steps = env_steps;
    EXPECT_NEAR(Get(Step(*updater, 0, request), Stat::kKlWeight), weight, 1e-6);
  }
}

TEST(UpdaterTest, DualAscentMovesTheKlWeightTowardsTheTarget) {
  for (const double target : {1e-6, 1e6}) {
    v1::RunConfig config = SmallConfig();
    config.mutable_learning()->set_kl_weight(1);
    config.mutable_learning()->set_target_kl(target);
    const std::unique_ptr<Updater> updater = MakeUpdater(config);
    const double first = Get(Step(*updater, 0), Stat::kKlWeight);
    EXPECT_NEAR(first, 1, 1e-6);
    const double second = Get(Step(*updater, 1), Stat::kKlWeight);
    // KL above its target: pull harder; below: let go.
    EXPECT_NEAR(second, std::exp(target < 1 ? 1e-3 : -1e-3), 1e-6);
  }
}

TEST(UpdaterTest, EveryPresetLearnsToPredictRewards) {
  for (const char* preset : kFamily) {
    SCOPED_TRACE(preset);
    v1::RunConfig config = FamilyConfig(preset);
    config.mutable_learning()->set_learning_rate(3e-3);
    const std::unique_ptr<Updater> updater = MakeUpdater(config);
    Batch batch = RandomBatch(kWindows, 1);
    double first = 0, last = 0;
    for (int i = 0; i < 60; ++i) {
      GeneratorNoise noise(i);
      UpdateRequest request;
      request.want_stats = true;
      const auto result = updater->Update(request, batch, noise);
      ASSERT_TRUE(result.ok()) << result.status();
      last = Get(*result, Stat::kRewardLoss);
      if (i == 0) first = last;
      for (const double value : result->stats->Read()) ASSERT_TRUE(std::isfinite(value));
    }
    EXPECT_LT(last, 0.5 * first);
  }
}

TEST(UpdaterTest, RefusesPlannerSettingsThatCannotBe) {
  v1::RunConfig config = SmallConfig();
  config.mutable_planner()->set_num_elites(1000);
  const UpdaterOptions options = {
      .obs_dim = kObs, .action_dim = kActions, .episode_decisions = 500};
  EXPECT_EQ(Updater::Create(config, options).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(UpdaterTest, WeightsOfOneChangeNothingAndAddTheTdErrors) {
  const auto plain = MakeUpdater(SmallConfig()), weighted = MakeUpdater(SmallConfig());
  for (int i = 0; i < 4; ++i) {
    EXPECT_FALSE(Step(*plain, i).td_error.defined());
    Batch batch = RandomBatch(kWindows, 100 + i);
    batch.weights = at::ones({kWindows});
    GeneratorNoise noise(200 + i);
    const UpdateResult result = *weighted->Update({.want_stats = true}, batch, noise);
    ASSERT_EQ(result.td_error.sizes(), at::IntArrayRef{kWindows});
    EXPECT_TRUE((result.td_error > 0).all().item<bool>());
  }
  EXPECT_TRUE(at::equal(plain->parameters()->flat(), weighted->parameters()->flat()));
}

TEST(UpdaterTest, TheModelsErrorsMakeUpTheConsistencyLoss) {
  const v1::RunConfig config = SmallConfig();
  const std::unique_ptr<Updater> updater = MakeUpdater(config);
  for (const bool weighted : {false, true}) {  // TD errors follow in the same tensor.
    Batch batch = RandomBatch(kWindows, 1);
    if (weighted) batch.weights = at::ones({kWindows});
    GeneratorNoise noise(2);
    const UpdateResult result = *updater->Update({.want_stats = true}, batch, noise);
    const std::vector<double> errors = result.stats->ReadModelError();
    ASSERT_EQ(errors.size(), static_cast<size_t>(kSteps));
    double loss = 0;
    for (int t = 0; t < kSteps; ++t) {
      loss += std::pow(config.learning().rho(), t) * errors[t] / kSteps;
    }
    EXPECT_NEAR(loss / Get(result, Stat::kConsistencyLoss), 1, 1e-5);
  }
}

TEST(UpdaterTest, AWindowOfWeightZeroTeachesNothing) {
  const auto without = MakeUpdater(SmallConfig()), other = MakeUpdater(SmallConfig());
  for (Updater* const updater : {without.get(), other.get()}) {
    Batch batch = RandomBatch(kWindows, 1);
    batch.weights = at::ones({kWindows});
    batch.weights[2] = 0;
    if (updater == other.get()) batch.reward.select(1, 2).fill_(9);
    GeneratorNoise noise(2);
    ASSERT_TRUE(updater->Update({.kind = UpdateKind::kModelOnly}, batch, noise).ok());
  }
  EXPECT_TRUE(at::equal(without->parameters()->flat(), other->parameters()->flat()));
}

TEST(UpdaterTest, RefusesABatchWhoseShapesDoNotFit) {
  const std::unique_ptr<Updater> updater = MakeUpdater(SmallConfig());
  Batch batch = RandomBatch(kWindows, 1);
  batch.reward = batch.reward.unsqueeze(-1);
  GeneratorNoise noise(1);
  EXPECT_EQ(updater->Update({}, batch, noise).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(updater->updates(), 0);
}

}  // namespace
}  // namespace pompc
