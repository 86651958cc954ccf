#include "common/model/parameters.h"

#include <cmath>
#include <limits>
#include <utility>

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

TEST(ParametersTest, Bfloat16SnapshotsTakeHalfTheBytesAndRoundByAtMostOnePartIn256) {
  const std::shared_ptr<Parameters> learner = Make(ParameterUse::kTraining);
  const std::shared_ptr<Parameters> actor = Make(ParameterUse::kActing);
  learner->Initialise(7);
  const std::string bytes = learner->Snapshot(v1::LearnerConfig::BFLOAT16);
  EXPECT_EQ(2 * (bytes.size() - 16), learner->Snapshot().size() - 16);
  ASSERT_TRUE(actor->LoadSnapshot(bytes).ok());
  const at::Tensor error = (actor->flat() - learner->flat()).abs();
  EXPECT_TRUE((error <= learner->flat().abs() / 256).all().item<bool>());
  EXPECT_GT(error.max().item<float>(), 0);
  // What was rounded once stays as it is.
  EXPECT_EQ(actor->Snapshot(v1::LearnerConfig::BFLOAT16), bytes);
}

TEST(ParametersTest, RefusesDamagedSnapshotsAndKeepsItsValues) {
  const std::shared_ptr<Parameters> p = Make(ParameterUse::kActing);
  p->Initialise(7);
  const at::Tensor before = p->flat().clone();
  const auto refuses = [&](const std::string& bytes) {
    return p->LoadSnapshot(bytes).code() == absl::StatusCode::kInvalidArgument;
  };
  for (const auto dtype : {v1::LearnerConfig::FLOAT32, v1::LearnerConfig::BFLOAT16}) {
    const std::string bytes = p->Snapshot(dtype);
    EXPECT_TRUE(refuses(""));
    EXPECT_TRUE(refuses(bytes.substr(0, 16)));
    EXPECT_TRUE(refuses(bytes.substr(0, bytes.size() - 2)));
    EXPECT_TRUE(refuses(bytes + "more"));
    // Magic, format version, dtype (to the other and to an unknown one), number of elements.
    for (const auto& [position, value] :
         {std::pair{0, 'x'}, {4, '\2'}, {6, static_cast<char>(3 - dtype)}, {6, '\7'}, {8, '\1'}}) {
      std::string damaged = bytes;
      ASSERT_NE(damaged[position], value);
      damaged[position] = value;
      EXPECT_TRUE(refuses(damaged)) << position;
    }
  }
  for (const float bad :
       {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::infinity()}) {
    std::string damaged = p->Snapshot();
    damaged.replace(40, sizeof(bad), reinterpret_cast<const char*>(&bad), sizeof(bad));
    EXPECT_TRUE(refuses(damaged));
  }
  EXPECT_TRUE(at::equal(p->flat(), before));
}

TEST(ParametersTest, InPlaceOperatorsChangeTheVersion) {
  const std::shared_ptr<Parameters> p = Make(ParameterUse::kTraining);
  uint32_t last = p->version();
  const auto changed = [&] { return std::exchange(last, p->version()) != p->version(); };
  EXPECT_FALSE(changed());
  p->Initialise(7);
  EXPECT_TRUE(changed());
  const std::string snapshot = p->Snapshot();
  EXPECT_FALSE(changed());
  ASSERT_TRUE(p->LoadSnapshot(snapshot).ok());
  EXPECT_TRUE(changed());
  p->View("policy.0.bias").fill_(1);
  EXPECT_TRUE(changed());
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

TEST(AllFiniteTest, SeesEachValueThatIsNotAndNoneWhereAllAre) {
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16, at::kDouble}) {
    const at::Tensor values = at::full({1000}, 3e38, type);  // Their float32 sum is not finite.
    EXPECT_TRUE(AllFinite(values)) << type;
    for (const double wrong : {NAN, INFINITY, -INFINITY}) {
      at::Tensor some = values.clone();
      some[7].fill_(wrong);
      EXPECT_FALSE(AllFinite(some)) << type << " " << wrong;
      some[8].fill_(-wrong);
      EXPECT_FALSE(AllFinite(some)) << type << " " << wrong;
    }
  }
  EXPECT_TRUE(AllFinite(at::full({}, 7, at::kLong)));
}

}  // namespace
}  // namespace pompc
