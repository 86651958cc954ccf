#include "common/model/parameters.h"

#include <cmath>
#include <limits>

#include "common/model/world_model.h"
#include "gtest/gtest.h"

namespace pompc {
namespace {

ModelSpec SmallSpec() {
  ModelSpec spec;
  spec.config.set_latent_dim(16);
  spec.config.set_encoder_dim(12);
  spec.config.set_mlp_dim(20);
  spec.obs_dim = 5;
  spec.action_dim = 2;
  spec.intermediate_prior = true;
  return spec;
}

std::shared_ptr<Parameters> Make(ParameterUse use, const ModelSpec& spec = SmallSpec()) {
  return *Parameters::Create(spec, use);
}

TEST(ParametersTest, GroupsAreContiguousAndTensorsAligned) {
  const std::shared_ptr<Parameters> p = Make(ParameterUse::kActing);
  int64_t end = 0;
  ParameterGroup group = ParameterGroup::kEncoder;
  for (const NamedParameter& named : p->layout().parameters()) {
    EXPECT_EQ(named.offset % 16, 0) << named.name;
    EXPECT_GE(named.offset, end) << named.name;
    EXPECT_GE(named.group, group) << named.name;
    end = named.offset + named.size;
    group = named.group;
  }
  EXPECT_EQ(p->layout().range(ParameterGroup::kPrior).end, p->layout().size());
  EXPECT_EQ(p->layout().range(ParameterGroup::kTermination).size(), 0);
  EXPECT_EQ(p->layout().model_range().end, p->layout().range(ParameterGroup::kPolicy).begin);
}

TEST(ParametersTest, BackwardFillsTheFlatGradientInPlace) {
  const std::shared_ptr<Parameters> p = Make(ParameterUse::kTraining);
  p->Initialise(1);
  const WorldModel model(p, WorldModel::Gradients::kTracked);
  const at::Tensor obs = at::ones({3, 5});
  const at::Tensor weights = at::arange(16, at::kFloat);
  for (int i = 1; i <= 2; ++i) {
    (model.Encode(obs) * weights).sum().backward();
    EXPECT_EQ(p->Leaf("encoder.0.weight").grad().const_data_ptr(),
              p->grad().const_data_ptr<float>() + p->layout().Find("encoder.0.weight").offset);
  }
  const at::Tensor twice = p->grad().clone();
  p->grad().zero_();
  (model.Encode(obs) * weights).sum().backward();
  EXPECT_TRUE(at::allclose(twice, 2 * p->grad()));
  EXPECT_GT(p->layout().range(ParameterGroup::kEncoder).Of(p->grad()).abs().max().item<float>(), 0);
  EXPECT_EQ(p->layout().range(ParameterGroup::kDynamics).Of(p->grad()).abs().max().item<float>(),
            0);
}

TEST(ParametersTest, InitialisesAsTheReferenceDoes) {
  const std::shared_ptr<Parameters> p = Make(ParameterUse::kTraining);
  p->Initialise(1);
  EXPECT_NEAR(p->View("value.1.weight").std().item<double>(), 0.02, 0.001);
  EXPECT_EQ(p->View("value.1.bias").abs().max().item<float>(), 0);
  EXPECT_EQ(p->View("value.2.weight").abs().max().item<float>(), 0);
  EXPECT_EQ(p->View("reward.2.weight").abs().max().item<float>(), 0);
  EXPECT_GT(p->View("policy.2.weight").abs().max().item<float>(), 0);
  EXPECT_EQ(p->View("dynamics.2.ln.weight").min().item<float>(), 1);
  EXPECT_TRUE(at::equal(p->TargetView("value.0.weight"), p->View("value.0.weight")));
}

TEST(ParametersTest, UniformInitialisationReachesValueHeadsOnly) {
  ModelSpec spec = SmallSpec();
  spec.config.set_value_init(v1::ModelConfig::UNIFORM_FAN_IN);
  const std::shared_ptr<Parameters> p = Make(ParameterUse::kTraining, spec);
  p->Initialise(1);
  const float bound = 1 / std::sqrt(20.0f);
  for (const char* name : {"value.1.weight", "value.1.bias", "value.2.bias"}) {
    const float largest = p->View(name).abs().max().item<float>();
    EXPECT_LE(largest, bound) << name;
    EXPECT_GT(largest, 0.8f * bound) << name;
  }
  EXPECT_EQ(p->View("value.2.weight").abs().max().item<float>(), 0);
  EXPECT_NEAR(p->View("reward.1.weight").std().item<double>(), 0.02, 0.003);
}

TEST(ParametersTest, EqualSeedsGiveEqualParameters) {
  const std::shared_ptr<Parameters> a = Make(ParameterUse::kActing),
                                    b = Make(ParameterUse::kActing),
                                    c = Make(ParameterUse::kActing);
  a->Initialise(7);
  b->Initialise(7);
  c->Initialise(8);
  EXPECT_TRUE(at::equal(a->flat(), b->flat()));
  EXPECT_FALSE(at::equal(a->flat(), c->flat()));
}

TEST(ParametersTest, SnapshotMovesAllParametersToAnActor) {
  const std::shared_ptr<Parameters> learner = Make(ParameterUse::kTraining);
  const std::shared_ptr<Parameters> actor = Make(ParameterUse::kActing);
  learner->Initialise(7);
  ASSERT_TRUE(actor->LoadSnapshot(learner->Snapshot()).ok());
  EXPECT_TRUE(at::equal(actor->flat(), learner->flat()));
}

TEST(ParametersTest, RefusesDamagedSnapshotsAndKeepsItsValues) {
  const std::shared_ptr<Parameters> p = Make(ParameterUse::kActing);
  p->Initialise(7);
  const at::Tensor before = p->flat().clone();
  std::string bytes = p->Snapshot();
  EXPECT_EQ(p->LoadSnapshot(bytes + "more").code(), absl::StatusCode::kInvalidArgument);
  for (const float bad :
       {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::infinity()}) {
    std::string damaged = bytes;
    damaged.replace(40, sizeof(bad), reinterpret_cast<const char*>(&bad), sizeof(bad));
    EXPECT_EQ(p->LoadSnapshot(damaged).code(), absl::StatusCode::kInvalidArgument);
  }
  EXPECT_TRUE(at::equal(p->flat(), before));
}

TEST(ParametersTest, RefusesLatentsThatDoNotDivideIntoSimplices) {
  ModelSpec spec = SmallSpec();
  spec.config.set_latent_dim(20);
  EXPECT_EQ(Parameters::Create(spec, ParameterUse::kActing).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(ModelSpecTest, HasAnIntermediatePriorOnlyWhereItIsUsed) {
  v1::RunConfig config;
  EXPECT_TRUE(ModelSpec::FromConfig(config, 5, 2).intermediate_prior);
  config.mutable_learning()->set_kl_weight(0);
  EXPECT_FALSE(ModelSpec::FromConfig(config, 5, 2).intermediate_prior);
  config.mutable_learning()->set_kl_weight(1);
  config.mutable_learning()->set_prior_source(v1::LearningConfig::REANALYZED);
  EXPECT_FALSE(ModelSpec::FromConfig(config, 5, 2).intermediate_prior);
  config.mutable_planner()->set_proposal_mix(0.5);
  EXPECT_TRUE(ModelSpec::FromConfig(config, 5, 2).intermediate_prior);
}

}  // namespace
}  // namespace pompc
