// Forward passes of every network against the references.
//
// Tolerances: 10 times what an independent re-implementation needs (README.md of the fixtures).
#include "common/model/world_model.h"

#include "common/model/algorithm_fixture.h"

namespace pompc {
namespace {

class WorldModelTest : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    parameters_ = *Parameters::Create(fixture_.Spec(), ParameterUse::kTraining, fixture_.options());
    fixture_.LoadWeights(*parameters_);
  }

  at::Tensor Input(const std::string& name) const { return fixture_["in/" + name]; }
  testing::AssertionResult Matches(const at::Tensor& actual, const std::string& name) const {
    return Close(actual, fixture_["out/" + name], fixture_.is_double() ? 1e-13 : 1e-5);
  }

  void ExpectPolicy(const PolicyDistribution& policy, const std::string& name) const {
    const at::Tensor eps = Input(name + "_eps");
    EXPECT_TRUE(Matches(policy.mean, name + "_mean"));
    EXPECT_TRUE(Matches(policy.log_std, name + "_log_std"));
    EXPECT_TRUE(Matches(policy.Sample(eps), name + "_action"));
    const at::Tensor log_prob = GaussianLogProb(eps, policy.log_std);
    if (fixture_.algorithm() != "tdmpc_square") {
      EXPECT_TRUE(Matches(-static_cast<double>(eps.size(-1)) * log_prob, name + "_scaled_entropy"));
    }
  }

  const AlgorithmFixture fixture_{GetParam()};
  std::shared_ptr<Parameters> parameters_;
};

INSTANTIATE_TEST_SUITE_P(Fixtures, WorldModelTest, testing::ValuesIn(FixtureCases("_network_")),
                         [](const auto& info) { return info.param; });

TEST_P(WorldModelTest, MatchesTheReference) {
  for (const auto gradients : {WorldModel::Gradients::kNone, WorldModel::Gradients::kTracked}) {
    const WorldModel model(parameters_, gradients);
    EXPECT_TRUE(Matches(model.Encode(Input("obs")), "encode"));
    EXPECT_TRUE(Matches(model.Encode(Input("obs_seq")), "encode_seq"));
    const at::Tensor za = model.Join(Input("z"), Input("a"));
    const at::Tensor za_seq = model.Join(Input("z_seq"), Input("a_seq"));
    EXPECT_TRUE(Matches(model.Next(za), "next"));
    EXPECT_TRUE(Matches(model.Next(za_seq), "next_seq"));
    EXPECT_TRUE(Matches(model.RewardLogits(za), "reward_logits"));
    EXPECT_TRUE(Matches(model.RewardLogits(za_seq), "reward_logits_seq"));
    EXPECT_TRUE(Matches(model.Reward(za), "reward"));
    ExpectPolicy(model.Policy(Input("z")), "pi");
    ExpectPolicy(model.Policy(Input("z_seq")), "seq_pi");
    if (fixture_.Has("in/expl_pi_eps")) {
      ExpectPolicy(model.Policy(Input("z"), {fixture_.Config("expl_log_std_min"),
                                             fixture_.Config("expl_log_std_max")}),
                   "expl_pi");
    }
    const at::Tensor input = model.values_take_actions() ? za_seq : Input("z_seq");
    for (const bool target : {false, true}) {
      const std::string name = target ? "target_" : "";
      const auto set = target ? WorldModel::Heads::kTarget : WorldModel::Heads::kOnline;
      EXPECT_TRUE(Matches(model.ValueLogits(input, set, {}), name + "value_all"));
      const auto values = [&](const std::string& reduction) {
        return model.Decode(model.ValueLogits(input, set, Input(name + reduction + "_qidx")));
      };
      EXPECT_TRUE(Matches(values("avg").mean(0), name + "value_avg"));
      EXPECT_TRUE(Matches(values("min").amin(0), name + "value_min"));
    }
  }
}

}  // namespace
}  // namespace pompc
