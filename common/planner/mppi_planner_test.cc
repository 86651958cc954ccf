// Latent MPPI against recorded planner calls of the references, and its own promises.
//
// Tolerances: 10 times what an independent re-implementation needs (README.md of the fixtures).
#include "common/planner/mppi_planner.h"

#include <limits>

#include "common/model/algorithm_fixture.h"
#include "common/model/fused_layers.h"

namespace pompc {
namespace {

struct PlannerUnderTest {
  std::shared_ptr<Parameters> parameters;
  std::shared_ptr<const WorldModel> model;
  std::unique_ptr<MppiPlanner> planner;
};

PlannerUnderTest MakePlanner(const ModelSpec& spec, const MppiOptions& options,
                             const at::TensorOptions& tensor = at::kFloat) {
  PlannerUnderTest t;
  t.parameters = *Parameters::Create(spec, ParameterUse::kActing, tensor);
  t.model = std::make_shared<const WorldModel>(t.parameters, WorldModel::Gradients::kNone);
  t.planner = *MppiPlanner::Create(options, t.model);
  return t;
}

class MppiFixtureTest : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    MppiOptions options = MppiOptions::FromConfig(fixture_.RunConfig(), 0);
    options.discount = fixture_["discount"].item<double>();
    test_ = MakePlanner(fixture_.Spec(), options, fixture_.options());
    fixture_.LoadWeights(*test_.parameters);
  }

  // The recorded draws of the call `c`, in the order of the README. `executed`: with act_noise.
  ReplayNoise Draws(const std::string& c, bool executed) const {
    ReplayNoise noise;
    const auto add = [&](const std::string& key) {
      if (fixture_.Has(c + "noise/" + key)) noise.Add(fixture_[c + "noise/" + key]);
    };
    for (int t = 0; t < fixture_.Config("horizon"); ++t) add("pi_eps/" + std::to_string(t));
    for (int i = 0; i < test_.planner->iterations(); ++i) {
      const std::string iteration = "iter" + std::to_string(i) + "/";
      add(iteration + "sample");
      add(iteration + "term_eps");
      add(iteration + "qidx");
    }
    add("gumbel_exp");
    add("select_u");
    if (executed) add("act_noise");
    return noise;
  }

  testing::AssertionResult Matches(const at::Tensor& actual, const std::string& key) const {
    return CloseAbsolute(actual, fixture_[key], fixture_.is_double() ? 1e-12 : 4e-4);
  }
  testing::AssertionResult ValueMatches(const at::Tensor& actual, const std::string& key) const {
    return Close(actual, fixture_[key], fixture_.is_double() ? 1e-12 : 1.3e-4);
  }

  const AlgorithmFixture fixture_{GetParam()};
  PlannerUnderTest test_;
};

INSTANTIATE_TEST_SUITE_P(Fixtures, MppiFixtureTest, testing::ValuesIn(FixtureCases("_plan_")),
                         [](const auto& info) { return info.param; });

TEST_P(MppiFixtureTest, PlansLikeTheReference) {
  for (const std::string c : {"c0/", "c1/", "c2/", "c3/"}) {
    SCOPED_TRACE(c);
    const bool evaluate = fixture_[c + "in/eval_mode"].item<int64_t>() != 0;
    ReplayNoise noise = Draws(c, !evaluate);
    PlannerState state = {fixture_[c + "in/prev_mean"].unsqueeze(0)};
    PlanRequest request;
    request.obs = fixture_[c + "in/obs"].unsqueeze(0);
    request.reset = (fixture_[c + "in/t0"] != 0).view({1});
    request.mode = evaluate ? PlanMode::kEvaluate : PlanMode::kAct;
    const auto plan = test_.planner->Plan(request, noise, &state);
    ASSERT_TRUE(plan.ok()) << plan.status();
    EXPECT_TRUE(noise.empty());
    EXPECT_EQ(plan->num_nonfinite, 0);
    EXPECT_TRUE(Matches(plan->action, c + "out/action"));
    EXPECT_TRUE(Matches(state.mean, c + "out/prev_mean"));
    EXPECT_TRUE(at::equal(plan->mean, state.mean.select(1, 0)));
    if (fixture_.Has(c + "out/action_dist")) {
      EXPECT_TRUE(Matches(at::cat({plan->prior_mean, plan->prior_std}, -1), c + "out/action_dist"));
      EXPECT_TRUE(ValueMatches(plan->value, c + "out/action_value"));
    }
    if (fixture_.Has(c + "out/mu")) {
      EXPECT_TRUE(Matches(plan->prior_mean, c + "out/mu"));
      EXPECT_TRUE(Matches(plan->prior_std, c + "out/std"));
    }
  }
}

class ReanalyzeFixtureTest : public MppiFixtureTest {};

INSTANTIATE_TEST_SUITE_P(Fixtures, ReanalyzeFixtureTest,
                         testing::ValuesIn(FixtureCases("bmpc_.*_plan_")),
                         [](const auto& info) { return info.param; });

TEST_P(ReanalyzeFixtureTest, ReanalyzesLikeTheReference) {
  ReplayNoise noise = Draws("r/", /*executed=*/false);
  PlannerState state = {at::ones({6, 3, static_cast<int64_t>(fixture_.Config("action_dim"))})};
  const at::Tensor before = state.mean.clone();
  const auto plan =
      test_.planner->Plan({fixture_["r/in/obs"], {}, PlanMode::kReanalyze}, noise, &state);
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_TRUE(noise.empty());
  EXPECT_TRUE(Matches(at::cat({plan->prior_mean, plan->prior_std}, -1), "r/out/action_dist"));
  EXPECT_TRUE(ValueMatches(plan->value, "r/out/action_value"));
  EXPECT_TRUE(at::equal(state.mean, before));
}

// Each iteration by itself, from the recorded candidates: no error is carried over.
TEST_P(MppiFixtureTest, EstimatesAndRefitsLikeTheReference) {
  const at::NoGradGuard no_grad;
  for (const std::string c : {"c0/", "c1/", "c2/", "c3/"}) {
    for (int i = 0; i < test_.planner->iterations(); ++i) {
      const std::string key = c + "iter" + std::to_string(i) + "/";
      if (!fixture_.Has(key + "actions")) continue;
      SCOPED_TRACE(key);
      const std::string draws = c + "noise/iter" + std::to_string(i) + "/";
      ReplayNoise noise;
      if (fixture_.Has(draws + "term_eps")) noise.Add(fixture_[draws + "term_eps"]);
      noise.Add(fixture_[draws + "qidx"]);
      const at::Tensor z = test_.model->Encode(fixture_[c + "in/obs"].unsqueeze(0));
      const at::Tensor actions = fixture_[key + "actions"].unsqueeze(0);
      const at::Tensor value =
          EstimateValue(*test_.model, z, actions, test_.planner->options().discount, 0, noise);
      EXPECT_TRUE(ValueMatches(value, key + "value"));
      const Refit refit = RefitToElites(fixture_[key + "value"].unsqueeze(0), actions,
                                        test_.planner->options().config);
      EXPECT_TRUE(at::equal(refit.elite_index.squeeze(0), fixture_[key + "elite_idx"]));
      EXPECT_TRUE(Matches(refit.score, key + "score"));
      EXPECT_TRUE(Matches(refit.mean, key + "mean"));
      EXPECT_TRUE(Matches(refit.std, key + "std"));
    }
  }
}

// --- Promises of our own, on a small model with random weights. ---

ModelSpec SmallSpec() {
  ModelSpec spec;
  spec.config.set_latent_dim(16);
  spec.config.set_encoder_dim(16);
  spec.config.set_mlp_dim(32);
  spec.obs_dim = 5;
  spec.action_dim = 2;
  return spec;
}

MppiOptions SmallOptions() {
  MppiOptions options;
  options.config.set_num_samples(32);
  options.config.set_num_policy_samples(4);
  options.config.set_num_elites(8);
  options.config.set_iterations(3);
  return options;
}

PlannerUnderTest SmallPlanner(const MppiOptions& options = SmallOptions(),
                              const ModelSpec& spec = SmallSpec()) {
  PlannerUnderTest t = MakePlanner(spec, options);
  // Larger weights than the initial ones, so that values differ between actions.
  GeneratorNoise noise(3);
  t.parameters->flat().copy_(noise.Normal({t.parameters->layout().size()}) * 0.3);
  return t;
}

TEST(MppiPlannerTest, EqualSeedsGiveEqualPlans) {
  const PlannerUnderTest t = SmallPlanner();
  const at::Tensor obs = GeneratorNoise(1).Normal({3, 5});
  at::Tensor actions[2];
  for (at::Tensor& action : actions) {
    GeneratorNoise noise(7);
    PlannerState state;
    ASSERT_TRUE(t.planner->Plan({obs, {}, PlanMode::kAct}, noise, &state).ok());
    action = t.planner->Plan({obs, {}, PlanMode::kAct}, noise, &state)->action;
  }
  EXPECT_TRUE(at::equal(actions[0], actions[1]));
}

TEST(MppiPlannerTest, KernelsPlanLikeOperators) {
  for (const auto kind : {v1::ModelConfig::Q, v1::ModelConfig::V}) {
    for (const double dropout : {0.0, 0.3}) {
      ModelSpec spec = SmallSpec();
      spec.intermediate_prior = true;
      spec.config.set_value_kind(kind);
      spec.config.set_predict_termination(true);
      MppiOptions options = SmallOptions();
      options.config.set_num_samples(150);  // More than a block.
      options.config.set_proposal_mix(0.5);
      options.dropout = dropout;
      const PlannerUnderTest t = SmallPlanner(options, spec);
      const at::Tensor obs = GeneratorNoise(1).Normal({3, 5});
      for (const PlanMode mode : {PlanMode::kAct, PlanMode::kEvaluate, PlanMode::kReanalyze}) {
        const auto plan = [&] {
          GeneratorNoise noise(7);
          PlannerState state = {at::full({3, 3, 2}, 0.2)};
          return *t.planner->Plan({obs, {}, mode}, noise, &state);
        };
        const PlanResult on_kernels = plan();
        const OperatorsOnly operators;
        const PlanResult on_operators = plan();
        EXPECT_TRUE(CloseAbsolute(on_kernels.action, on_operators.action, 1e-4));
        EXPECT_TRUE(CloseAbsolute(on_kernels.mean, on_operators.mean, 1e-4));
        EXPECT_TRUE(CloseAbsolute(on_kernels.prior_std, on_operators.prior_std, 1e-4));
        EXPECT_TRUE(Close(on_kernels.value, on_operators.value, 1e-4));
      }
    }
  }
}

TEST(MppiPlannerTest, HandsOutTheCandidatesThatItsEliteIsOneOf) {
  const PlannerUnderTest t = SmallPlanner();
  const at::Tensor obs = GeneratorNoise(1).Normal({3, 5});
  const auto plan = [&](bool keep) {
    GeneratorNoise noise(7);
    return *t.planner->Plan({.obs = obs, .mode = PlanMode::kEvaluate, .keep_candidates = keep},
                            noise, nullptr);
  };
  const auto expect_elite_among = [](const PlanResult& result) {
    ASSERT_EQ(result.candidates.sizes(), at::IntArrayRef({3, SmallOptions().config.num_samples(),
                                                          SmallOptions().config.horizon(), 2}));
    for (int64_t b = 0; b < 3; ++b) {
      // Where the values are the drawn elite's, one of the first actions is, too.
      const at::Tensor same =
          result.candidate_value[b]
              .eq(result.value[b])
              .logical_and(result.candidates[b].select(1, 0).eq(result.elite[b]).all(1));
      EXPECT_GE(same.sum().item<int64_t>(), 1) << "observation " << b;
    }
  };
  const PlanResult on_kernels = plan(true);
  expect_elite_among(on_kernels);
  EXPECT_FALSE(plan(false).candidates.defined());
  const OperatorsOnly operators;
  const PlanResult on_operators = plan(true);
  expect_elite_among(on_operators);
  EXPECT_TRUE(CloseAbsolute(on_kernels.candidates, on_operators.candidates, 1e-4));
}

// Values of one sequence for each of many observations, the same in every precision.
at::Tensor ValuesOfSequences(const ModelSpec& spec, v1::MatmulPrecision precision) {
  MppiOptions options;
  options.config.set_num_samples(1);
  options.config.set_num_policy_samples(0);
  options.config.set_num_elites(1);
  options.config.set_iterations(1);
  options.precision = precision;
  const PlannerUnderTest t = MakePlanner(spec, options);
  t.parameters->Initialise(3);
  // Larger weights than the initial ones, so that values differ between actions.
  t.parameters->flat().add_(GeneratorNoise(4).Normal({t.parameters->layout().size()}), 0.08);
  GeneratorNoise noise(5);
  const at::Tensor obs = noise.Normal({1000, spec.obs_dim});
  return t.planner->Plan({obs, {}, PlanMode::kEvaluate}, noise, nullptr)->value;
}

// bfloat16 rounds factors to 2^-8, and what several layers make of it averages out: errors reach
// 0.033 standard deviations of all values, a third of what is allowed.
TEST(MppiPlannerTest, Bfloat16ChangesValuesLittleAndOnlyWhereTheProcessorHasIt) {
  struct Size {
    int latent, simnorm, encoder, mlp, action;
  };
  for (const Size& size : {Size{128, 8, 64, 256, 6}, Size{32, 8, 96, 96, 1},
                           Size{15, 5, 33, 65, 3}}) {  // Odd numbers of inputs and outputs.
    for (const auto kind : {v1::ModelConfig::Q, v1::ModelConfig::V}) {
      SCOPED_TRACE(testing::Message() << "latent " << size.latent << " kind " << kind);
      ModelSpec spec;
      spec.obs_dim = 13;
      spec.action_dim = size.action;
      spec.config.set_latent_dim(size.latent);
      spec.config.set_simnorm_dim(size.simnorm);
      spec.config.set_encoder_dim(size.encoder);
      spec.config.set_mlp_dim(size.mlp);
      spec.config.set_value_kind(kind);
      const at::Tensor exact = ValuesOfSequences(spec, v1::FP32);
      EXPECT_TRUE(at::equal(ValuesOfSequences(spec, v1::TF32), exact));
      const at::Tensor rounded = ValuesOfSequences(spec, v1::BF16);
      EXPECT_EQ(at::equal(rounded, exact), !HasBFloat16Products());
      const at::Tensor error = (rounded - exact).abs() / exact.std();
      EXPECT_LE(error.max().item<float>(), 0.1);
      EXPECT_LE(error.mean().item<float>(), 0.03);
      std::printf(
          "latent %d kind %d: error of values %.2g at most, %.2g in the mean, in standard "
          "deviations of all\n",
          size.latent, kind, error.max().item<float>(), error.mean().item<float>());
    }
  }
}

TEST(MppiPlannerTest, PlansWithTheParametersAsTheyAre) {
  const PlannerUnderTest t = SmallPlanner();
  const at::Tensor obs = GeneratorNoise(1).Normal({2, 5});
  const auto value = [&](PlanMode mode) {
    GeneratorNoise noise(7);
    return t.planner->Plan({obs, {}, mode}, noise, nullptr)->value;
  };
  const at::Tensor acting = value(PlanMode::kAct), replanned = value(PlanMode::kReanalyze);
  EXPECT_TRUE(at::equal(value(PlanMode::kAct), acting));
  t.parameters->flat().mul_(1.1);
  EXPECT_FALSE(at::equal(value(PlanMode::kReanalyze), replanned));
  EXPECT_FALSE(at::equal(value(PlanMode::kAct), acting));
}

TEST(MppiPlannerTest, TakesResultsAgainOnlyWhenNobodyHoldsThem) {
  const PlannerUnderTest t = SmallPlanner();
  GeneratorNoise noise(7);
  const at::Tensor obs = noise.Normal({2, 5});
  PlannerState state;
  const auto plan = [&] { return *t.planner->Plan({obs, {}, PlanMode::kAct}, noise, &state); };
  const void* const action = plan().action.const_data_ptr();
  const void* const mean = state.mean.const_data_ptr();
  const PlanResult held = plan();
  EXPECT_EQ(held.action.const_data_ptr(), action);
  EXPECT_EQ(state.mean.const_data_ptr(), mean);
  const at::Tensor before = held.action.clone();
  const at::Tensor row_of_mean = state.mean[0];
  EXPECT_NE(plan().action.const_data_ptr(), action);
  EXPECT_NE(state.mean.const_data_ptr(), mean);
  EXPECT_TRUE(at::equal(held.action, before));
}

TEST(MppiPlannerTest, ResetsOnlyTheEnvironmentsThatStartAnEpisode) {
  const PlannerUnderTest t = SmallPlanner();
  const at::Tensor obs = GeneratorNoise(1).Normal({2, 5});
  const auto plan = [&](const at::Tensor& mean, const at::Tensor& reset) {
    GeneratorNoise noise(7);
    PlannerState state = {mean};
    return t.planner->Plan({obs, reset, PlanMode::kEvaluate}, noise, &state)->mean;
  };
  const at::Tensor previous = at::full({2, 3, 2}, 0.7);
  const at::Tensor cold = plan({}, {}), warm = plan(previous, {});
  const at::Tensor mixed = plan(previous, at::tensor({1, 0}).to(at::kBool));
  EXPECT_FALSE(at::allclose(cold, warm));
  EXPECT_TRUE(at::equal(mixed[0], cold[0]));
  EXPECT_TRUE(at::equal(mixed[1], warm[1]));
}

TEST(MppiPlannerTest, KeepsBothCentresAndStoresTheConfiguredOne) {
  for (const auto centre : {v1::PlannerConfig::ELITE, v1::PlannerConfig::MEAN}) {
    MppiOptions options = SmallOptions();
    options.config.set_prior_centre(centre);
    options.config.set_evaluation_action(centre);
    const PlannerUnderTest t = SmallPlanner(options);
    GeneratorNoise noise(7);
    const PlanResult plan =
        *t.planner->Plan({noise.Normal({4, 5}), {}, PlanMode::kEvaluate}, noise, nullptr);
    EXPECT_FALSE(at::equal(plan.elite, plan.mean));
    const at::Tensor& expected = centre == v1::PlannerConfig::MEAN ? plan.mean : plan.elite;
    EXPECT_TRUE(at::equal(plan.prior_mean, expected));
    EXPECT_TRUE(at::equal(plan.action, expected));
  }
}

TEST(MppiPlannerTest, RejectedSequencesNeverBecomeElites) {
  MppiOptions options = SmallOptions();
  const at::Tensor value = at::arange(32, at::kFloat).view({1, 32}) - 100;
  value.narrow(1, 4, 28).fill_(-std::numeric_limits<float>::infinity());
  const at::Tensor actions = at::full({1, 3, 32, 2}, std::numeric_limits<float>::quiet_NaN());
  actions.narrow(2, 0, 4).fill_(0.25);
  const Refit refit = RefitToElites(value, actions, options.config);
  EXPECT_TRUE(CloseAbsolute(refit.mean, at::full({1, 3, 2}, 0.25), 1e-6));
  EXPECT_EQ(refit.score.narrow(1, 4, 4).abs().max().item<float>(), 0);
}

TEST(MppiPlannerTest, RejectsAndCountsSequencesWithoutAFiniteValue) {
  ModelSpec spec = SmallSpec();
  spec.intermediate_prior = true;
  MppiOptions options = SmallOptions();
  options.config.set_proposal_mix(0.5);
  const PlannerUnderTest t = SmallPlanner(options, spec);
  t.parameters->layout()
      .range(ParameterGroup::kPrior)
      .Of(t.parameters->flat())
      .fill_(std::numeric_limits<float>::quiet_NaN());
  GeneratorNoise noise(7);
  const auto plan = t.planner->Plan({noise.Normal({2, 5}), {}, PlanMode::kAct}, noise, nullptr);
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(plan->num_nonfinite, 2 * 2 * 3);  // Observations, proposals of the prior, iterations.
  EXPECT_TRUE(at::isfinite(plan->action).all().item<bool>());
  EXPECT_TRUE(at::isfinite(plan->prior_std).all().item<bool>());
}

TEST(MppiPlannerTest, FailsWhenNoSequenceIsLeft) {
  const PlannerUnderTest t = SmallPlanner();
  GeneratorNoise noise(7);
  at::Tensor obs = noise.Normal({2, 5});
  obs[1].fill_(std::numeric_limits<float>::quiet_NaN());
  PlannerState state;
  const auto plan = t.planner->Plan({obs, {}, PlanMode::kAct}, noise, &state);
  EXPECT_EQ(plan.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_FALSE(state.mean.defined());
}

TEST(MppiPlannerTest, PriorProposesItsShareOfTheSequences) {
  ModelSpec spec = SmallSpec();
  spec.intermediate_prior = true;
  MppiOptions options = SmallOptions();
  options.config.set_proposal_mix(0.5);
  // All samples and elites are proposals: what is planned is what was proposed.
  options.config.set_num_samples(4);
  options.config.set_num_elites(4);
  options.config.set_inverse_temperature(1e-6);
  const PlannerUnderTest t = SmallPlanner(options, spec);
  const auto planned_mean = [&](double policy, double prior) {
    for (const auto& [name, bias] : {std::pair{"policy.2", policy}, std::pair{"prior.2", prior}}) {
      t.parameters->View(std::string(name) + ".weight").zero_();
      t.parameters->View(std::string(name) + ".bias").fill_(-10);  // log_std at its minimum.
      t.parameters->View(std::string(name) + ".bias").narrow(0, 0, 2).fill_(bias);
    }
    GeneratorNoise noise(7);
    return t.planner->Plan({at::zeros({1, 5}), {}, PlanMode::kEvaluate}, noise, nullptr)
        ->mean.mean()
        .item<double>();
  };
  EXPECT_NEAR(planned_mean(0.5, 0.5), std::tanh(0.5), 0.05);
  EXPECT_NEAR(planned_mean(0.5, -0.5), 0, 0.05);
}

TEST(MppiPlannerTest, RejectsWrongShapesAndOptions) {
  const PlannerUnderTest t = SmallPlanner();
  GeneratorNoise noise(7);
  EXPECT_EQ(
      t.planner->Plan({at::zeros({2, 4}), {}, PlanMode::kAct}, noise, nullptr).status().code(),
      absl::StatusCode::kInvalidArgument);
  PlannerState other_batch = {at::zeros({3, 3, 2})};
  EXPECT_EQ(
      t.planner->Plan({at::zeros({2, 5}), {}, PlanMode::kAct}, noise, &other_batch).status().code(),
      absl::StatusCode::kInvalidArgument);
  MppiOptions options = SmallOptions();
  options.config.set_num_elites(33);
  EXPECT_EQ(MppiPlanner::Create(options, t.model).status().code(),
            absl::StatusCode::kInvalidArgument);
  options = SmallOptions();
  options.config.set_proposal_mix(0.5);
  EXPECT_EQ(MppiPlanner::Create(options, t.model).status().code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace pompc
