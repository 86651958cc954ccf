#include "common/config/validate.h"

#include <cmath>
#include <limits>
#include <regex>
#include <vector>

#include "absl/strings/str_split.h"
#include "common/config/config.h"
#include "common/config/schema.h"
#include "gmock/gmock.h"
#include "google/protobuf/descriptor.h"
#include "gtest/gtest.h"
#include "proto/pompc/v1/options.pb.h"

namespace pompc {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using testing::ElementsAre;
using testing::HasSubstr;
using v1::RunConfig;

// The defaults with one field, given by its path, set to a number.
RunConfig With(const std::string& path, double value) {
  RunConfig config = DefaultRunConfig();
  Message* holder = &config;
  const FieldDescriptor* field = nullptr;
  for (const std::string& part : std::vector<std::string>(absl::StrSplit(path, '.'))) {
    if (field != nullptr) holder = holder->GetReflection()->MutableMessage(holder, field);
    field = holder->GetDescriptor()->FindFieldByName(part);
  }
  const auto* reflection = holder->GetReflection();
  if (field->cpp_type() == FieldDescriptor::CPPTYPE_DOUBLE) {
    reflection->SetDouble(holder, field, value);
  } else if (field->cpp_type() == FieldDescriptor::CPPTYPE_INT64) {
    reflection->SetInt64(holder, field, static_cast<int64_t>(value));
  } else {
    reflection->SetInt32(holder, field, static_cast<int32_t>(value));
  }
  return config;
}

// Those of Mistakes() that are about the range of one field.
std::vector<std::string> RangeMistakes(const RunConfig& config) {
  std::vector<std::string> result;
  for (const std::string& mistake : Mistakes(config)) {
    if (std::regex_search(mistake,
                          std::regex("^[a-z_.]+ = [^,]*: must be (in|at|greater|finite)"))) {
      result.push_back(mistake);
    }
  }
  return result;
}

void ExpectRefused(const std::string& path, double value) {
  const absl::Status status = Validate(With(path, value));
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << path << " = " << value;
  EXPECT_THAT(std::string(status.message()), HasSubstr(path + " = ")) << value;
  EXPECT_THAT(RangeMistakes(With(path, value)), testing::SizeIs(1)) << path << " = " << value;
}

void ExpectInRange(const std::string& path, double value) {
  EXPECT_THAT(RangeMistakes(With(path, value)), ElementsAre()) << path << " = " << value;
}

TEST(MistakesTest, EveryRangeHoldsAtItsEndsAndIsEnforcedBeyondThem) {
  int ranges = 0;
  ForEachField(
      RunConfig(), [&](const std::string& path, const Message&, const FieldDescriptor& field) {
        if (!field.options().HasExtension(v1::range)) return;
        ++ranges;
        const v1::Range& range = field.options().GetExtension(v1::range);
        const bool is_double = field.cpp_type() == FieldDescriptor::CPPTYPE_DOUBLE;
        const double infinity = std::numeric_limits<double>::infinity();
        if (range.open_min()) {
          ExpectRefused(path, range.min());
          ExpectInRange(path, std::nextafter(range.min(), infinity));
        } else {
          ExpectInRange(path, range.min());
          ExpectRefused(path, is_double ? std::nextafter(range.min(), -infinity) : range.min() - 1);
        }
        if (range.has_max()) {
          ExpectInRange(path, range.max());
          ExpectRefused(path, is_double ? std::nextafter(range.max(), infinity) : range.max() + 1);
        }
      });
  EXPECT_GT(ranges, 60);
}

TEST(MistakesTest, EveryNumberHasARangeAndMustBeFinite) {
  ForEachField(
      RunConfig(), [&](const std::string& path, const Message&, const FieldDescriptor& field) {
        const auto type = field.cpp_type();
        if (type == FieldDescriptor::CPPTYPE_DOUBLE || type == FieldDescriptor::CPPTYPE_INT32 ||
            type == FieldDescriptor::CPPTYPE_INT64) {
          EXPECT_TRUE(field.options().HasExtension(v1::range)) << path;
        }
        if (type == FieldDescriptor::CPPTYPE_DOUBLE) {
          ExpectRefused(path, std::numeric_limits<double>::quiet_NaN());
          ExpectRefused(path, std::numeric_limits<double>::infinity());
          ExpectRefused(path, -std::numeric_limits<double>::infinity());
        }
      });
}

TEST(MistakesTest, MessageNamesPathValueAndWhatIsAllowed) {
  EXPECT_THAT(RangeMistakes(With("learning.rho", 0)),
              ElementsAre("learning.rho = 0: must be in (0, 1]"));
  EXPECT_THAT(RangeMistakes(With("learning.reward_weight", -0.25)),
              ElementsAre("learning.reward_weight = -0.25: must be at least 0"));
  EXPECT_THAT(RangeMistakes(With("learning.target_kl", 0)),
              ElementsAre("learning.target_kl = 0: must be greater than 0"));
}

// Each case: changes to the defaults that break one rule, and part of its message.
struct RuleCase {
  std::vector<std::string> sets;
  std::string message;
};

TEST(MistakesTest, EveryRuleIsEnforcedAlone) {
  const std::vector<RuleCase> cases = {
      {{"model.latent_dim=500"}, "model.latent_dim = 500, model.simnorm_dim = 8: latent_dim must"},
      {{"model.bin_min=10"}, "bin_min must be less"},
      {{"model.log_std_min=1"}, "log_std_min must be less"},
      {{"planner.num_policy_samples=513"}, "num_policy_samples must be at most"},
      {{"planner.num_elites=513"}, "num_elites must be at most"},
      {{"planner.min_std=2.5"}, "min_std must be at most"},
      {{"planner.proposal_mix=0.5", "learning.prior_source=REANALYZED"},
       "only a LEARNED prior can propose"},
      {{"model.value_kind=V"}, "value_kind Q goes with"},
      {{"learning.td_horizon=2"}, "only V_MODEL_BASED looks further"},
      {{"learning.discount_min=0.999"}, "discount_min must be at most"},
      {{"learning.return_weight=0", "learning.kl_weight=0", "planner.proposal_mix=0.5"},
       "the policy learns nothing"},
      {{"learning.policy_objective=BC", "learning.kl_weight=0", "model.policy_form=SQUASHED",
        "learning.prior_source=REPLAY", "learning.reanalyze_windows=0"},
       "BC needs a kl_weight"},
      {{"learning.policy_objective=BC", "learning.target_kl=1", "model.policy_form=SQUASHED",
        "learning.prior_source=REPLAY", "learning.reanalyze_windows=0"},
       "only a REGULARISED policy has a KL to tune"},
      {{"learning.policy_objective=AWAC", "model.policy_form=SQUASHED",
        "learning.prior_source=REANALYZED"},
       "that is not REGULARISED needs prior_source REPLAY"},
      {{"learning.policy_objective=AWAC", "learning.prior_source=REPLAY",
        "learning.reanalyze_windows=0"},
       "needs policy_form SQUASHED and Q heads"},
      {{"learning.policy_objective=AWAC", "learning.prior_source=REPLAY",
        "model.policy_form=SQUASHED", "learning.reanalyze_windows=0",
        "learning.policy_loss_on_last_latent=true"},
       "neither a replayed action nor a planner prior"},
      {{"learning.kl_weight_final=1"}, "kl_weight_steps = unset: set both"},
      {{"learning.kl_weight_steps=1"},
       "kl_weight_final = unset, learning.kl_weight_steps = 1: set"},
      {{"learning.target_kl=1", "learning.kl_weight_final=1", "learning.kl_weight_steps=1"},
       "either tuned to a target or scheduled"},
      {{"learning.target_kl=1", "learning.kl_weight=0"}, "tuning starts from kl_weight"},
      {{"learning.divergence=CROSS_ENTROPY", "model.policy_form=SQUASHED",
        "learning.return_weight=0", "learning.prior_source=REPLAY", "learning.reanalyze_windows=0"},
       "return_weight must be greater than 0"},
      {{"learning.divergence=CROSS_ENTROPY", "model.policy_form=SQUASHED",
        "learning.prior_source=REANALYZED"},
       "CROSS_ENTROPY needs prior_source REPLAY"},
      {{"learning.divergence=CROSS_ENTROPY", "learning.prior_source=REPLAY",
        "learning.reanalyze_windows=0"},
       "CROSS_ENTROPY needs policy_form SQUASHED"},
      {{"learning.divergence=CROSS_ENTROPY", "learning.prior_source=REPLAY",
        "learning.reanalyze_windows=0", "model.policy_form=SQUASHED", "learning.target_kl=1"},
       "a cross entropy has no target"},
      {{"model.policy_form=SQUASHED", "learning.prior_source=REANALYZED"},
       "closed form for policy_form TANH_MEAN only"},
      {{"learning.entropy_tanh_correction=true"}, "correction is for policy_form SQUASHED only"},
      {{"learning.kl_weight=0"}, "nothing uses the LEARNED prior"},
      {{"learning.kl_weight=0", "planner.proposal_mix=0.5", "model.policy_form=SQUASHED"},
       "a LEARNED prior needs policy_form TANH_MEAN"},
      {{"learning.policy_loss_on_last_latent=true", "learning.prior_source=REANALYZED"},
       "the last latent has no planner prior"},
      {{"learning.batch_size=16"}, "reanalyze_windows must be at most batch_size"},
      {{"learning.prior_source=REANALYZED", "learning.reanalyze_windows=0"},
       "REANALYZED needs windows"},
      {{"learning.prior_source=REPLAY"}, "REPLAY keeps the prior as stored"},
      {{"learning.reanalyze_log_std_min=1"}, "reanalyze_log_std_min must be less"},
      {{"learning.window=5", "environment.episode_steps=8"}, "an episode of 4 decisions holds no"},
      {{"total_decisions=2500"}, "the run would end in its seed phase of 2500 decisions"},
      {{"replay.capacity_rows=2505"}, "must hold the 2506 rows of the seed phase"},
      {{"learner.publish_every=2001"}, "publish_every must be at most"},
      {{"actor.max_parameter_lag_updates=0"},
       "replay.rate_tolerance_updates = 200: lock-step (lag 0) needs segment_rows 1"},
      {{"actor.max_parameter_lag_updates=0", "actor.segment_rows=1",
        "replay.rate_tolerance_updates=1", "actor.environments_per_actor=2"},
       "actor.environments_per_actor = 2: lock-step (lag 0) is for one environment"},
      {{"actor.max_parameter_lag_updates=0", "actor.segment_rows=1",
        "replay.rate_tolerance_updates=1", "learning.seed_decisions=3", "learning.seed_episodes=0"},
       "the seed phase of 3 decisions must fill a window"},
      {{"actor.groups=3", "actor.environments_per_actor=2"},
       "actor.groups = 3, actor.environments_per_actor = 2: each group needs an environment"},
      {{"actor.segment_rows=401"}, "one segment is worth 401 updates"},
      {{"actor.device=gpu"}, "actor.device = \"gpu\": must be cpu, cuda or cuda:N"},
      {{"learner.device=cuda:"}, "learner.device = \"cuda:\": must be"},
      {{"learner.data_parallel=3"},
       "learner.data_parallel = 3, learning.batch_size = 256: each GPU has an equal part"},
      {{"learner.data_parallel=2", "learner.device=cuda"},
       "learner.data_parallel = 2, learner.device = \"cuda\": the first of several GPUs"},
      {{"learner.reanalyze_ahead=true", "learner.reanalyze_device=gpu"},
       "learner.reanalyze_device = \"gpu\": must be cpu, cuda or cuda:N"},
      {{"learner.reanalyze_device=cuda:1"}, "only windows that are planned ahead"},
      {{"learner.reanalyze_ahead=true", "replay.rate_tolerance_updates=1", "actor.segment_rows=1"},
       "one batch is drawn ahead of its update"},
      {{"learner.matmul_precision=BF16"},
       "learner.matmul_precision = BF16: updates are computed in FP32 or TF32"},
      {{"reanalyze.device=gpu"}, "reanalyze.device = \"gpu\": must be cpu, cuda or cuda:N"},
      {{"reanalyze.num_workers=1", "learning.prior_source=REPLAY", "learning.reanalyze_windows=0"},
       "no worker may re-plan it"},
      {{"reanalyze.num_workers=1", "actor.max_parameter_lag_updates=0", "actor.segment_rows=1",
        "replay.rate_tolerance_updates=1"},
       "a run in lock-step has no workers"},
      {{"environment.task="}, "must name a task"},
  };
  for (const RuleCase& c : cases) {
    const absl::Status status = LoadRunConfig("pompc", "", c.sets).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << c.message;
    const std::string message(status.message());
    EXPECT_THAT(message, HasSubstr(c.message));
    EXPECT_EQ(message.find('\n'), std::string::npos) << message;
  }
}

TEST(ValidateTest, ReportsRangesAndRulesTogetherOneALine) {
  RunConfig config = With("learning.rho", 2);
  config.mutable_planner()->set_num_elites(600);
  config.mutable_model()->set_simnorm_dim(0);
  const std::vector<std::string> lines =
      absl::StrSplit(std::string(Validate(config).message()), '\n');
  EXPECT_THAT(lines, ElementsAre(HasSubstr("model.simnorm_dim = 0: must be in [2, 128]"),
                                 HasSubstr("learning.rho = 2"), HasSubstr("num_elites must")));
}

TEST(ValidateTest, ARuleWhoseFieldIsOutOfRangeSaysNothing) {
  // What a weight below 0 should have been is unknown: it may not be called "no weight" either.
  RunConfig config = With("learning.kl_weight", -1);
  config.mutable_learning()->set_return_weight(0);
  EXPECT_THAT(Mistakes(config),
              ElementsAre(HasSubstr("learning.kl_weight = -1: must be at least 0")));
  // Every rule survives every field at its wildest.
  ForEachField(
      RunConfig(), [&](const std::string& path, const Message&, const FieldDescriptor& field) {
        if (!field.options().HasExtension(v1::range)) return;
        const bool is_double = field.cpp_type() == FieldDescriptor::CPPTYPE_DOUBLE;
        const double big = is_double                                            ? 1e308
                           : field.cpp_type() == FieldDescriptor::CPPTYPE_INT64 ? 9e18
                                                                                : 2147483647;
        EXPECT_THAT(Mistakes(With(path, -big)), testing::Contains(HasSubstr(path + " = "))) << path;
        Mistakes(With(path, big));
      });
}

TEST(ValidateTest, EmptyMessageMeansTheDefaults) { EXPECT_TRUE(Validate(RunConfig()).ok()); }

}  // namespace
}  // namespace pompc
