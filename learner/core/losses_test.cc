// The policy loss in its limits, and its parts against independent computations.
#include "learner/core/losses.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/model/algorithm_fixture.h"
#include "learner/core/adam.h"

namespace pompc {
namespace {

constexpr int64_t kSteps = 3, kWindows = 6, kObs = 5, kActions = 2;

v1::RunConfig SmallConfig() {
  v1::RunConfig config;
  config.mutable_model()->set_latent_dim(16);
  config.mutable_model()->set_encoder_dim(12);
  config.mutable_model()->set_mlp_dim(20);
  config.mutable_model()->set_dropout(0);
  return config;
}

// A model of random weights in float64, a window of random latents, and the loss on them.
class PolicyLossTest : public testing::Test {
 protected:
  void Build(int64_t actions = kActions) {
    parameters_ = *Parameters::Create(ModelSpec::FromConfig(config_, kObs, actions),
                                      ParameterUse::kTraining, at::kDouble);
    GeneratorNoise noise(11, at::kDouble);
    // Small enough that no sampled action is clamped, where the loss has kinks.
    parameters_->flat().copy_(noise.Normal({parameters_->layout().size()}) * 0.2);
    latents_ = at::softmax(noise.Normal({kSteps + 1, kWindows, 16}), -1);
    batch_.action = noise.Normal({kSteps, kWindows, actions}).clamp(-1, 1);
    batch_.prior_mean = noise.Normal({kSteps, kWindows, actions}).tanh();
    batch_.prior_std = noise.Normal({kSteps, kWindows, actions}).sigmoid() + 0.05;
  }

  // With constant scales of 1.
  PolicyLoss Loss(double kl_weight, Noise& noise) {
    const WorldModel tracked(parameters_, WorldModel::Gradients::kTracked);
    const WorldModel model(parameters_, WorldModel::Gradients::kNone);
    RunningScale return_scale(0, at::kDouble), kl_scale(0, at::kDouble);
    const PolicyLossOptions options = {config_.learning(), 0.99, 0.05,
                                       at::full({}, kl_weight, at::kDouble)};
    const PolicyDraw draw = DrawPolicy(tracked, model, options, batch_, latents_, kl_scale, noise);
    return ComputePolicyLoss(model, options, batch_, draw, return_scale, noise);
  }
  PolicyLoss Loss(double kl_weight) {
    GeneratorNoise noise(12, at::kDouble);
    return Loss(kl_weight, noise);
  }

  v1::RunConfig config_ = SmallConfig();
  std::shared_ptr<Parameters> parameters_;
  at::Tensor latents_;
  Batch batch_;
};

TEST_F(PolicyLossTest, WithoutKlItIsTheObjectiveOfTdMpc2) {
  config_.mutable_learning()->set_kl_weight(0);
  Build();
  const double loss = Loss(0).loss.item<double>();

  const WorldModel model(parameters_, WorldModel::Gradients::kNone);
  GeneratorNoise noise(12, at::kDouble);
  const at::Tensor eps = noise.Normal({kSteps, kWindows, kActions});
  const at::Tensor heads = noise.Heads(5);
  double expected = 0;
  for (int64_t t = 0; t < kSteps; ++t) {
    const PolicyDistribution policy = model.Policy(latents_[t]);
    const at::Tensor za = model.Join(latents_[t], policy.Sample(eps[t]));
    const at::Tensor values =
        model.Decode(model.ValueLogits(za, WorldModel::Heads::kOnline, heads));
    const at::Tensor entropy = -kActions * GaussianLogProb(eps[t], policy.log_std);
    expected -= std::pow(0.5, t) / kSteps *
                (0.5 * (values[0] + values[1]) + 1e-4 * entropy).mean().item<double>();
  }
  EXPECT_NEAR(loss, expected, 1e-12);
}

TEST_F(PolicyLossTest, WithoutReturnItIsTheObjectiveOfBmpc) {
  config_.mutable_learning()->set_return_weight(0);
  config_.mutable_learning()->set_divergence(v1::LearningConfig::REVERSE);
  config_.mutable_learning()->set_prior_source(v1::LearningConfig::REANALYZED);
  Build();
  const double loss = Loss(1).loss.item<double>();

  const WorldModel model(parameters_, WorldModel::Gradients::kNone);
  GeneratorNoise noise(12, at::kDouble);
  const at::Tensor eps = noise.Normal({kSteps, kWindows, kActions});
  double expected = 0;
  for (int64_t t = 0; t < kSteps; ++t) {
    const PolicyDistribution policy = model.Policy(latents_[t]);
    const at::Tensor kl =
        GaussianKl(policy.mean, at::exp(policy.log_std), batch_.prior_mean[t], batch_.prior_std[t]);
    const at::Tensor entropy = -kActions * GaussianLogProb(eps[t], policy.log_std);
    expected += std::pow(0.5, t) / kSteps * (kl.mean(-1) - 1e-4 * entropy).mean().item<double>();
  }
  EXPECT_NEAR(loss, expected, 1e-12);
}

TEST_F(PolicyLossTest, ReturnAndDivergenceAddUp) {
  config_.mutable_learning()->set_entropy_weight(0);
  Build();
  const double both = Loss(0.7).loss.item<double>(), only_return = Loss(0).loss.item<double>();
  config_.mutable_learning()->set_return_weight(0);
  const double only_divergence = Loss(1).loss.item<double>();
  EXPECT_GT(only_divergence, 0);
  EXPECT_NEAR(both, only_return + 0.7 * only_divergence, 1e-12);
}

// The KL has to hold a policy that is wider than its prior against the entropy, whose weight grows
// with the number of actions; tasks have 1 to 56, TD-M(PC)^2's up to 61.
class WidePolicyTest : public PolicyLossTest {
 protected:
  // d loss / d (what log std is computed from), where the policy is twice as wide as the prior.
  double Gradient(int64_t actions, double kl_weight) {
    config_.mutable_learning()->set_return_weight(0);
    Build(actions);
    for (const auto& [group, std] : {std::pair{"policy", 1.0}, {"prior", 0.5}}) {
      Slice(absl::StrCat(group, ".2.weight")).zero_();
      Slice(absl::StrCat(group, ".2.bias")).zero_();
      // log std = -3 + 2 (tanh x + 1).
      Slice(absl::StrCat(group, ".2.bias"))
          .narrow(0, actions, actions)
          .fill_(std::atanh((std::log(std) + 3) / 2 - 1));
    }
    parameters_->grad().zero_();
    Loss(kl_weight).loss.backward();
    const NamedParameter& bias = parameters_->layout().Find("policy.2.bias");
    return parameters_->grad().narrow(0, bias.offset + actions, actions).mean().item<double>();
  }

 private:
  at::Tensor Slice(std::string_view name) {
    const NamedParameter& p = parameters_->layout().Find(name);
    return parameters_->flat().detach().narrow(0, p.offset, p.size);
  }
};

TEST_F(WidePolicyTest, BeyondSixActionsTheKlCountsASixthOfThemTimes) {
  for (const v1::LearningConfig::Divergence divergence :
       {v1::LearningConfig::FORWARD, v1::LearningConfig::REVERSE}) {
    config_.mutable_learning()->set_divergence(divergence);
    for (const int64_t actions : {1, 6, 9, 38}) {
      const auto pull = [&](bool scaling) {
        config_.mutable_learning()->set_kl_action_scaling(scaling);
        return Gradient(actions, 1) - Gradient(actions, 0);
      };
      EXPECT_NEAR(pull(true) / pull(false), std::max(1.0, static_cast<double>(actions) / 6), 1e-9);
    }
  }
}

TEST_F(WidePolicyTest, IsPulledToThePriorWhateverTheNumberOfActions) {
  const double kl_weight = config_.learning().kl_weight();  // Of PO-MPC.
  for (const int64_t actions : {1, 6, 21, 38, 61}) {
    EXPECT_GT(Gradient(actions, kl_weight), 0) << actions;
  }
  // The mean over dimensions holds 6, not 38.
  config_.mutable_learning()->set_kl_action_scaling(false);
  EXPECT_GT(Gradient(6, kl_weight), 0);
  EXPECT_LT(Gradient(38, kl_weight), 0);
}

// d loss / d parameter by central differences, for every member of the family.
class PolicyGradientTest : public PolicyLossTest,
                           public testing::WithParamInterface<std::string> {};

INSTANTIATE_TEST_SUITE_P(Presets, PolicyGradientTest,
                         testing::Values("tdmpc2", "bmpc", "tdmpc_square", "pompc", "pompc_direct",
                                         "pompc_v"),
                         [](const auto& info) { return info.param; });

TEST_P(PolicyGradientTest, EqualsTheNumericalOne) {
  v1::LearningConfig& learning = *config_.mutable_learning();
  learning.set_entropy_weight(0.1);  // Visible beside the other terms.
  if (GetParam() == "tdmpc2" || GetParam() == "tdmpc_square") {
    config_.mutable_model()->set_policy_form(v1::ModelConfig::SQUASHED);
  }
  if (GetParam() == "tdmpc2") {
    learning.set_kl_weight(0);
    learning.set_policy_loss_on_last_latent(true);
  } else if (GetParam() == "tdmpc_square") {
    learning.set_divergence(v1::LearningConfig::CROSS_ENTROPY);
    learning.set_prior_source(v1::LearningConfig::REPLAY);
    learning.set_cross_entropy_threshold(0.5);  // The scale is 1 here.
    learning.set_entropy_tanh_correction(true);
  } else if (GetParam() == "bmpc" || GetParam() == "pompc_direct") {
    learning.set_divergence(v1::LearningConfig::REVERSE);
    learning.set_prior_source(v1::LearningConfig::REANALYZED);
  }
  if (GetParam() == "bmpc") learning.set_return_weight(0);
  if (GetParam() == "bmpc" || GetParam() == "pompc_v") {
    config_.mutable_model()->set_value_kind(v1::ModelConfig::V);
    config_.mutable_model()->set_num_value_heads(2);
  }
  Build();
  const auto loss = [&] {
    ReplayNoise noise;  // Small draws keep actions inside the clamp.
    const int64_t steps = kSteps + (learning.policy_loss_on_last_latent() ? 1 : 0);
    noise.Add(GeneratorNoise(12, at::kDouble).Normal({steps, kWindows, kActions}) * 0.1);
    noise.Add(at::tensor({1, 0}, at::kLong));
    return Loss(learning.kl_weight(), noise).loss;
  };
  parameters_->grad().zero_();
  loss().backward();
  const at::Tensor analytic = parameters_->grad().clone();
  const ParameterRange policy = parameters_->layout().range(ParameterGroup::kPolicy);
  // Nothing but the policy is trained by this loss.
  EXPECT_EQ(analytic.narrow(0, 0, policy.begin).abs().max().item<double>(), 0);
  for (const char* name :
       {"policy.0.weight", "policy.1.ln.weight", "policy.2.weight", "policy.2.bias"}) {
    const NamedParameter& p = parameters_->layout().Find(name);
    for (const int64_t i : {p.offset, p.offset + p.size - 1}) {
      const at::Tensor value = parameters_->flat()[i];
      const double start = value.item<double>(), step = 1e-6;
      value.fill_(start + step);
      const double above = loss().item<double>();
      value.fill_(start - step);
      const double below = loss().item<double>();
      value.fill_(start);
      const double numeric = (above - below) / (2 * step), expected = analytic[i].item<double>();
      EXPECT_NEAR(numeric, expected, 1e-8 + 1e-5 * std::abs(expected)) << name;
      EXPECT_NE(expected, 0) << name;
    }
  }
}

TEST(GaussianKlTest, EqualsItsMonteCarloEstimate) {
  const at::Tensor p_mean = at::tensor({0.2, -0.7}, at::kDouble);
  const at::Tensor p_std = at::tensor({0.5, 0.1}, at::kDouble);
  const at::Tensor q_mean = at::tensor({-0.1, -0.6}, at::kDouble);
  const at::Tensor q_std = at::tensor({0.8, 0.3}, at::kDouble);
  const at::Tensor x = p_mean + p_std * GeneratorNoise(1, at::kDouble).Normal({200000, 2});
  const at::Tensor ratio = -0.5 * ((x - p_mean) / p_std).square() - at::log(p_std) +
                           0.5 * ((x - q_mean) / q_std).square() + at::log(q_std);
  // Four standard errors of the larger one.
  EXPECT_TRUE(CloseAbsolute(ratio.mean(0), GaussianKl(p_mean, p_std, q_mean, q_std), 0.008));
}

class OptimiserFixtureTest : public testing::TestWithParam<std::string> {
 protected:
  const AlgorithmFixture fixture_{GetParam()};
};

INSTANTIATE_TEST_SUITE_P(Fixtures, OptimiserFixtureTest,
                         testing::ValuesIn(FixtureCases("_primitives_")),
                         [](const auto& info) { return info.param; });

// Tolerance: the fused kernel orders its operations in its own way.
TEST_P(OptimiserFixtureTest, AdamStepsLikeTheReference) {
  for (const auto& [name, epsilon] :
       {std::pair<std::string, double>{"adam_model/", 1e-8}, {"adam_pi/", 1e-5}}) {
    const double tolerance = fixture_.is_double() ? 1e-14 : 1e-6;
    at::Tensor values = fixture_[name + "p0"].clone();
    Adam adam({{{0, values.numel()}, 3e-4, epsilon}}, fixture_.options());
    for (int64_t i = 0; i < fixture_[name + "grad"].size(0); ++i) {
      at::Tensor grad = fixture_[name + "grad"][i].clone();
      adam.Step(values, grad, grad.norm(), 1e9);
      EXPECT_TRUE(Close(values, fixture_[name + "p"][i], tolerance)) << name << i;
    }
    EXPECT_TRUE(Close(adam.first_moment, fixture_[name + "exp_avg"], tolerance));
    EXPECT_TRUE(Close(adam.second_moment, fixture_[name + "exp_avg_sq"], tolerance));
  }
}

TEST_P(OptimiserFixtureTest, RunningScaleFollowsTheReference) {
  for (const std::string size : {"running_scale/b8/", "running_scale/b256/"}) {
    RunningScale scale(0.01, fixture_.options());
    for (int64_t i = 0; i < fixture_[size + "x"].size(0); ++i) {
      scale.Update(fixture_[size + "x"][i].squeeze(-1));
      EXPECT_TRUE(
          Close(scale.value(), fixture_[size + "value"][i], fixture_.is_double() ? 1e-13 : 1e-5));
    }
  }
}

TEST(AdamTest, ClipsTheGradientAndGivesRangesTheirOwnRate) {
  at::Tensor values = at::zeros({32}), grad = at::full({32}, 3.0);
  Adam adam({{{0, 16}, 1e-3, 1e-8}, {{16, 32}, 1e-2, 1e-8}}, at::kFloat);
  const at::Tensor norm = grad.norm();
  adam.Step(values, grad, norm, 1.0);
  adam.StepRest(values, grad, norm, 1.0);
  EXPECT_NEAR(grad.norm().item<double>(), 1, 1e-5);
  EXPECT_NEAR(values[0].item<double>(), -1e-3, 1e-6);
  EXPECT_NEAR(values[31].item<double>(), -1e-2, 1e-5);
}

// Planners pack weights once for each version.
TEST(AdamTest, AStepIsANewVersionOfTheValues) {
  at::Tensor values = at::zeros({16});
  Adam adam({{{0, 16}, 1e-3, 1e-8}}, at::kFloat);
  const auto before = values._version();
  adam.Step(values, at::ones({16}), at::ones({}), 1.0);
  EXPECT_NE(values._version(), before);
}

}  // namespace
}  // namespace pompc
