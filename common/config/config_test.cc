#include "common/config/config.h"

#include <filesystem>

#include "common/base/file.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace pompc {
namespace {

using testing::HasSubstr;
using testing::IsSupersetOf;
using testing::StartsWith;
using v1::LearningConfig;
using v1::ModelConfig;
using v1::RunConfig;

// What `pompc config --preset bmpc` prints: every field with a default is there.
constexpr char kGolden[] = "common/config/testdata/bmpc.golden.textproto";

// The message of a load that must fail.
std::string Mistakes(const std::string& preset, const std::string& file,
                     const std::vector<std::string>& sets) {
  const absl::StatusOr<RunConfig> config = LoadRunConfig(preset, file, sets);
  EXPECT_EQ(config.status().code(), absl::StatusCode::kInvalidArgument) << config.status();
  return std::string(config.status().message());
}

class ConfigFileTest : public testing::Test {
 protected:
  ~ConfigFileTest() override { std::filesystem::remove(path_); }
  void Write(const std::string& text) { ASSERT_TRUE(WriteFileAtomically(path_, text).ok()); }

  const std::string path_ = testing::TempDir() + "config_test.textproto";
};

TEST(PresetTest, EveryPresetLoadsValidatesAndSaysItsName) {
  EXPECT_THAT(PresetNames(),
              IsSupersetOf({"bmpc", "pompc", "pompc-direct", "pompc-v", "tdmpc2", "tdmpc_square"}));
  for (const std::string& name : PresetNames()) {
    const absl::StatusOr<RunConfig> config = LoadRunConfig(name, "", {});
    ASSERT_TRUE(config.ok()) << name << "\n" << config.status();
    EXPECT_EQ(config->preset(), name);
  }
}

TEST(PresetTest, EveryHardwareFileFitsEveryPreset) {
  int files = 0;
  for (const auto& file : std::filesystem::directory_iterator("configs/hardware")) {
    ++files;
    for (const std::string& name : PresetNames()) {
      const absl::Status status = LoadRunConfig(name, file.path().string(), {}).status();
      EXPECT_TRUE(status.ok()) << name << " with " << file.path() << "\n" << status;
    }
  }
  EXPECT_GE(files, 2);
}

TEST(PresetTest, PompcIsTheDefaults) {
  EXPECT_EQ(ConfigToText(LoadRunConfig("pompc", "", {}).value()), ConfigToText(DefaultRunConfig()));
}

TEST(PresetTest, UnknownNameListsWhatThereIs) {
  EXPECT_THAT(Mistakes("dreamer", "", {}), HasSubstr("unknown preset dreamer; available: bmpc, "));
}

// The table of docs/algorithm.md, section 4.
TEST(PresetTest, MembersOfTheFamilyFollowTheTable) {
  struct Row {
    std::string name;
    LearningConfig::ValueTarget target;
    int heads;
    double return_weight, kl_weight;
    bool kl_action_scaling;
    LearningConfig::Divergence divergence;
    LearningConfig::PriorSource source;
    ModelConfig::PolicyForm form;
  };
  using L = LearningConfig;
  using M = ModelConfig;
  for (const Row& row : {
           Row{"tdmpc2", L::Q_MODEL_FREE, 5, 1, 0, true, L::FORWARD, L::REPLAY, M::SQUASHED},
           Row{"bmpc", L::V_MODEL_BASED, 2, 0, 1, false, L::REVERSE, L::REANALYZED, M::TANH_MEAN},
           Row{"tdmpc_square", L::Q_MODEL_FREE, 5, 1, 1, true, L::CROSS_ENTROPY, L::REPLAY,
               M::SQUASHED},
           Row{"pompc", L::Q_MODEL_FREE, 5, 1, 0.1, true, L::FORWARD, L::LEARNED, M::TANH_MEAN},
           Row{"pompc-direct", L::Q_MODEL_FREE, 5, 1, 1, false, L::REVERSE, L::REANALYZED,
               M::TANH_MEAN},
           Row{"pompc-v", L::V_MODEL_BASED, 2, 1, 0.1, true, L::FORWARD, L::LEARNED, M::TANH_MEAN},
       }) {
    const RunConfig config = LoadRunConfig(row.name, "", {}).value();
    const LearningConfig& l = config.learning();
    EXPECT_EQ(l.value_target(), row.target) << row.name;
    EXPECT_EQ(config.model().num_value_heads(), row.heads) << row.name;
    EXPECT_EQ(l.return_weight(), row.return_weight) << row.name;
    EXPECT_EQ(l.kl_weight(), row.kl_weight) << row.name;
    EXPECT_EQ(l.kl_action_scaling(), row.kl_action_scaling) << row.name;
    EXPECT_EQ(l.divergence(), row.divergence) << row.name;
    EXPECT_EQ(l.prior_source(), row.source) << row.name;
    EXPECT_EQ(config.model().policy_form(), row.form) << row.name;
    EXPECT_EQ(l.entropy_tanh_correction(), row.form == M::SQUASHED) << row.name;
    EXPECT_EQ(config.model().log_std_min(), row.form == M::SQUASHED ? -10 : -3) << row.name;
    EXPECT_EQ(config.model().log_std_max(), row.form == M::SQUASHED ? 2 : 1) << row.name;
  }
}

TEST(LoadRunConfigTest, PrintedConfigIsCompleteAndReadsBackToItself) {
  const RunConfig config = LoadRunConfig("bmpc", "", {}).value();
  const std::string text = ConfigToText(config);
  const std::string printed = testing::TempDir() + "printed.textproto";
  ASSERT_TRUE(WriteFileAtomically(printed, text).ok());
  EXPECT_EQ(text, ReadFile(kGolden).value())
      << "If this is meant: cp " << printed << " " << kGolden;
  EXPECT_EQ(ConfigToText(LoadRunConfig("pompc", kGolden, {}).value()), text);
}

TEST(LoadRunConfigTest, SetsTakeNumbersEnumsBoolsAndStringsAndTheLastWins) {
  const RunConfig config =
      LoadRunConfig(
          "pompc", "",
          {"learning.batch_size=64", "learning.batch_size=128", "learning.divergence=REVERSE",
           "learning.pretrain_policy=true", "learning.learning_rate=1e-3",
           "environment.task=walker-run", "actor.device=\"cuda:1\"", "seed=18446744073709551615"})
          .value();
  EXPECT_EQ(config.learning().batch_size(), 128);
  EXPECT_EQ(config.learning().divergence(), LearningConfig::REVERSE);
  EXPECT_TRUE(config.learning().pretrain_policy());
  EXPECT_EQ(config.learning().learning_rate(), 1e-3);
  EXPECT_EQ(config.environment().task(), "walker-run");
  EXPECT_EQ(config.actor().device(), "cuda:1");
  EXPECT_EQ(config.seed(), 18446744073709551615u);
}

TEST(LoadRunConfigTest, MistakenSetsSayWhatWasMeant) {
  EXPECT_THAT(Mistakes("pompc", "", {"learning.batchsize=3"}),
              HasSubstr("unknown field learning.batchsize, did you mean learning.batch_size?"));
  EXPECT_THAT(Mistakes("pompc", "", {"batch_size=3"}),
              HasSubstr("did you mean learning.batch_size?"));
  EXPECT_THAT(Mistakes("pompc", "", {"planner.batch_size=3"}),
              HasSubstr("did you mean learning.batch_size?"));
  EXPECT_THAT(Mistakes("pompc", "", {"seed.x=3"}), HasSubstr("unknown field seed.x"));
  EXPECT_EQ(Mistakes("pompc", "", {"quite.something.else=3"}),
            "--set quite.something.else=3: unknown field quite.something.else");
  EXPECT_THAT(Mistakes("pompc", "", {"learning=3"}), HasSubstr("learning is a section"));
  EXPECT_THAT(Mistakes("pompc", "", {"seed"}), HasSubstr("expected path=value"));
  EXPECT_THAT(Mistakes("pompc", "", {"seed="}), HasSubstr("--set seed=: "));
  EXPECT_THAT(Mistakes("pompc", "", {"seed=1 total_decisions: 2"}), HasSubstr("one value"));
  EXPECT_THAT(Mistakes("pompc", "", {"learning.batch_size=many"}), HasSubstr("many"));
  EXPECT_THAT(Mistakes("pompc", "", {"learning.divergence=SIDEWAYS"}),
              HasSubstr("Allowed: FORWARD, REVERSE, CROSS_ENTROPY."));
}

TEST_F(ConfigFileTest, FileOverlaysPresetAndSetsOverlayFile) {
  Write("learning { batch_size: 32 updates_per_decision: 0.5 }\nenvironment { task: 'dog-run' }");
  const RunConfig config = LoadRunConfig("pompc-direct", path_, {"learning.batch_size=48"}).value();
  EXPECT_EQ(config.learning().divergence(), LearningConfig::REVERSE);
  EXPECT_EQ(config.learning().updates_per_decision(), 0.5);
  EXPECT_EQ(config.environment().task(), "dog-run");
  EXPECT_EQ(config.learning().batch_size(), 48);
}

TEST_F(ConfigFileTest, AllMistakesComeAtOnceWithTheirPlaces) {
  Write(
      "learning {\n  batchsize: 32\n  window: 0\n}\nplaner { horizon: 3 }\n"
      "model { value_kind: W }\n");
  const std::string message =
      Mistakes("pompc", path_, {"actor.num_actors=0", "planner.horizon=1000"});
  EXPECT_THAT(message, HasSubstr(path_ + ":2:"));
  EXPECT_THAT(message, HasSubstr("unknown field learning.batchsize, did you mean "
                                 "learning.batch_size?\n"));
  EXPECT_THAT(message, HasSubstr(path_ + ":5:"));
  EXPECT_THAT(message, HasSubstr("unknown field planer, did you mean planner?"));
  EXPECT_THAT(message, HasSubstr(path_ + ":6:"));
  EXPECT_THAT(message, HasSubstr("Allowed: Q, V."));
  EXPECT_THAT(message, HasSubstr("\nlearning.window = 0: must be in [1, 64]"));
  EXPECT_THAT(message, HasSubstr("\nactor.num_actors = 0: must be in [1, 100000]"));
  EXPECT_THAT(message, HasSubstr("\nplanner.horizon = 1000: must be in [1, 64]"));
}

TEST_F(ConfigFileTest, ContradictionsAreReportedBesideOtherMistakes) {
  Write("learning { batchsize: 32 rho: 2 }\n");
  const std::string message = Mistakes("pompc", path_, {"planner.num_elites=600"});
  EXPECT_THAT(message, HasSubstr("unknown field learning.batchsize"));
  EXPECT_THAT(message, HasSubstr("\nlearning.rho = 2: must be in (0, 1]"));
  EXPECT_THAT(message, HasSubstr("\nplanner.num_elites = 600, planner.num_samples = 512: "));
}

TEST_F(ConfigFileTest, BrokenTextIsRefusedWithItsPlace) {
  Write("learning {\n  batch_size 32\n}\n");
  EXPECT_THAT(Mistakes("pompc", path_, {}), StartsWith(path_ + ":2:14: "));
}

TEST(LoadRunConfigTest, MissingFileIsNotFound) {
  EXPECT_EQ(LoadRunConfig("pompc", "no/such.textproto", {}).status().code(),
            absl::StatusCode::kNotFound);
}

TEST(ConfigHashTest, DependsOnEveryFieldAndNothingElse) {
  RunConfig a = DefaultRunConfig(), b = DefaultRunConfig();
  EXPECT_EQ(ConfigHash(a), ConfigHash(b));
  EXPECT_EQ(ConfigHash(a).size(), 16u);
  b.mutable_evaluation()->set_threads(2);
  EXPECT_NE(ConfigHash(a), ConfigHash(b));
}

}  // namespace
}  // namespace pompc
