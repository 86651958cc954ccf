#include "learner/service/reanalyzer.h"

#include <string>

#include "common/base/check.h"
#include "common/config/config.h"
#include "gtest/gtest.h"
#include "learner/client/row.h"
#include "learner/service/testing.h"

namespace pompc {
namespace {

constexpr int64_t kTransitions = 3, kWindows = 5, kPlanned = 2;

v1::RunConfig SmallConfig() {
  v1::RunConfig config = DefaultRunConfig();
  config.mutable_model()->set_latent_dim(16);
  config.mutable_model()->set_encoder_dim(8);
  config.mutable_model()->set_mlp_dim(8);
  config.mutable_planner()->set_num_samples(16);
  config.mutable_planner()->set_num_policy_samples(4);
  config.mutable_planner()->set_num_elites(4);
  config.mutable_learning()->set_reanalyze_windows(kPlanned);
  return config;
}

// Of observations [T + 1, B, 4] and zeros.
ColumnBatch Columns(const at::Tensor& obs) {
  constexpr size_t kRows = (kTransitions + 1) * kWindows;
  ColumnBatch columns;
  columns.columns.assign(kNumRowColumns, std::string(kRows * sizeof(float), '\0'));
  const auto column = [&](RowColumn c) -> std::string& {
    return columns.columns[static_cast<size_t>(c)];
  };
  column(RowColumn::kObservation)
      .assign(static_cast<const char*>(obs.const_data_ptr()), obs.nbytes());
  for (const RowColumn c : {RowColumn::kAction, RowColumn::kPriorMean, RowColumn::kPriorStd}) {
    column(c).resize(kRows * 2 * sizeof(float));
  }
  return columns;
}

TEST(ReanalyzerTest, PlansTheFirstWindowsWithTheParametersOfItsStart) {
  const v1::RunConfig config = SmallConfig();
  const BatchShape shape = {kTransitions, kWindows, testing::TestSizes()};
  auto reanalyzer = Reanalyzer::Create(config, shape, at::kCPU, RealClock());
  ASSERT_TRUE(reanalyzer.ok()) << reanalyzer.status();
  const auto parameters =
      Parameters::Create(ModelSpec::FromConfig(config, 4, 2), ParameterUse::kActing);
  ASSERT_TRUE(parameters.ok());
  MppiOptions planning = MppiOptions::FromConfig(config, shape.sizes.episode_decisions());
  planning.precision = config.actor().matmul_precision();
  const auto planner = MppiPlanner::Create(
      planning, std::make_shared<const WorldModel>(*parameters, WorldModel::Gradients::kNone));
  ASSERT_TRUE(planner.ok());
  for (uint64_t seed = 1; seed < 4; ++seed) {
    (*parameters)->Initialise(seed);
    GeneratorNoise noise(seed);
    const at::Tensor obs = noise.Normal({kTransitions + 1, kWindows, 4});
    const at::Tensor planned =
        obs.narrow(0, 0, kTransitions).narrow(1, 0, kPlanned).reshape({-1, 4});
    noise.Seed(seed);
    const auto expected =
        (*planner)->Plan({.obs = planned, .mode = PlanMode::kReanalyze}, noise, nullptr);
    ASSERT_TRUE(expected.ok()) << expected.status();
    const at::Tensor mean = expected->prior_mean.clone(), std = expected->prior_std.clone();

    ColumnBatch columns = Columns(obs);
    ASSERT_TRUE((*reanalyzer)->Start(**parameters, columns, seed).ok());
    (*parameters)->flat().zero_();
    columns = ColumnBatch();
    const auto result = (*reanalyzer)->Finish();
    ASSERT_TRUE(result.ok()) << result.status();
    EXPECT_TRUE(at::equal(result->prior.mean, mean.view({kTransitions, kPlanned, 2})));
    EXPECT_TRUE(at::equal(result->prior.std, std.view({kTransitions, kPlanned, 2})));
    EXPECT_GE(result->duration, absl::ZeroDuration());
  }
}

TEST(ReanalyzerTest, SaysWhenABatchDoesNotFit) {
  const BatchShape shape = {kTransitions, kWindows, testing::TestSizes()};
  const auto reanalyzer = Reanalyzer::Create(SmallConfig(), shape, at::kCPU, RealClock());
  ASSERT_TRUE(reanalyzer.ok()) << reanalyzer.status();
  const auto parameters =
      Parameters::Create(ModelSpec::FromConfig(SmallConfig(), 4, 2), ParameterUse::kActing);
  ColumnBatch columns = Columns(at::zeros({kTransitions, kWindows, 4}));  // A row short.
  EXPECT_EQ((*reanalyzer)->Start(**parameters, columns, 1).code(), absl::StatusCode::kInternal);
}

}  // namespace
}  // namespace pompc
