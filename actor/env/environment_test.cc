#include "actor/env/environment.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "actor/env/mujoco_errors.h"
#include "actor/env/suite_environment.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace pompc {
namespace {

using ::testing::HasSubstr;

std::unique_ptr<dmc::SuiteEnvironment> Make(const EnvironmentOptions& options) {
  auto environment = dmc::SuiteEnvironment::Create(options);
  EXPECT_TRUE(environment.ok()) << environment.status();
  return *std::move(environment);
}

// An environment with its observation, driven by a fixed sequence of actions.
struct Driver {
  explicit Driver(const EnvironmentOptions& options)
      : environment(Make(options)), observation(environment->spec().observation_dim) {}

  void Reset() { ASSERT_TRUE(environment->Reset(absl::MakeSpan(observation)).ok()); }
  absl::StatusOr<StepResult> Step(const std::vector<float>& action) {
    return environment->Step(action, absl::MakeSpan(observation));
  }
  // The action depends on the number of calls alone.
  absl::StatusOr<StepResult> Step() {
    std::vector<float> action(environment->spec().action_dim);
    for (float& a : action) a = std::sin(0.7f * static_cast<float>(++calls));
    return Step(action);
  }

  std::unique_ptr<dmc::SuiteEnvironment> environment;
  std::vector<float> observation;
  int calls = 0;
};

TEST(EnvironmentTest, UnknownTaskIsRefusedWithTheNearestNamesFirst) {
  const absl::Status status = CreateEnvironment({.task = "walker-wlak"}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("did you mean walker-walk, "));
  for (const std::string& task : TaskNames()) {
    EXPECT_THAT(std::string(status.message()), HasSubstr(task));
  }
}

TEST(EnvironmentTest, AllTasksAreListedInOrder) {
  const std::vector<std::string> names = TaskNames();
  EXPECT_EQ(names.size(), 62u);
  EXPECT_TRUE(std::is_sorted(names.begin(), names.end()));
}

TEST(EnvironmentTest, BadOptionsAreRefused) {
  EXPECT_EQ(CreateEnvironment({.task = "cartpole-swingup", .action_repeat = 0}).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(CreateEnvironment({.task = "cartpole-swingup", .episode_steps = 0}).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(EnvironmentTest, SpecNamesTheParts) {
  const absl::StatusOr<EnvironmentSpec> spec = FindSpec("quadruped-walk");
  ASSERT_TRUE(spec.ok());
  EXPECT_EQ(spec->observation_dim, 78);
  EXPECT_EQ(spec->action_dim, 12);
  EXPECT_EQ(spec->observation[1].name, "torso_velocity");
  EXPECT_EQ(spec->observation[1].offset, 44);
  EXPECT_EQ(spec->action_min[2], -0.8);
  EXPECT_EQ(spec->action_max[1], 1.1);
  EXPECT_EQ(spec->episode_steps, 1000);
  EXPECT_FALSE(spec->can_terminate);
}

TEST(EnvironmentTest, ActionsAreScaledToTheControlLimits) {
  Driver driver({.task = "quadruped-walk"});
  driver.Reset();
  ASSERT_TRUE(driver.Step(std::vector<float>(12, 1)).ok());
  const EnvironmentSpec& spec = driver.environment->spec();
  for (int i = 0; i < 12; ++i) {
    EXPECT_DOUBLE_EQ(driver.environment->physics().ctrl()[i], spec.action_max[i]);
  }
  ASSERT_TRUE(driver.Step(std::vector<float>(12, -1)).ok());
  for (int i = 0; i < 12; ++i) {
    EXPECT_DOUBLE_EQ(driver.environment->physics().ctrl()[i], spec.action_min[i]);
  }
}

TEST(EnvironmentTest, BadActionsAreRefusedAndChangeNothing) {
  Driver driver({.task = "cartpole-swingup"});
  driver.Reset();
  const std::vector<float> before = driver.observation;
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  for (const std::vector<float>& action :
       {std::vector<float>{}, {0, 0}, {kNan}, {1.0001f}, {-HUGE_VALF}}) {
    EXPECT_EQ(driver.Step(action).status().code(), absl::StatusCode::kInvalidArgument);
  }
  EXPECT_THAT(std::string(driver.Step({2}).status().message()), HasSubstr("action[0]"));
  ASSERT_TRUE(driver.environment->Observe(absl::MakeSpan(driver.observation)).ok());
  EXPECT_EQ(driver.observation, before);
}

TEST(EnvironmentTest, BadObservationSizesAreRefused) {
  Driver driver({.task = "cartpole-swingup"});
  std::vector<float> wrong(4);
  EXPECT_EQ(driver.environment->Reset(absl::MakeSpan(wrong)).code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(driver.environment->Observe(absl::MakeSpan(wrong)).code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(EnvironmentTest, StepNeedsAnEpisode) {
  Driver driver({.task = "cartpole-swingup"});
  EXPECT_EQ(driver.Step().status().code(), absl::StatusCode::kFailedPrecondition);
}

TEST(EnvironmentTest, EpisodesAreTruncatedAtTheTimeLimit) {
  for (const auto& [repeat, decisions] : {std::pair(1, 1000), {2, 500}, {3, 334}}) {
    Driver driver({.task = "pendulum-swingup", .action_repeat = repeat});
    driver.Reset();
    for (int i = 1; i <= decisions; ++i) {
      const absl::StatusOr<StepResult> result = driver.Step();
      ASSERT_TRUE(result.ok());
      EXPECT_FALSE(result->terminated);
      ASSERT_EQ(result->truncated, i == decisions) << i;
    }
    EXPECT_EQ(driver.Step().status().code(), absl::StatusCode::kFailedPrecondition);
    driver.Reset();
    EXPECT_TRUE(driver.Step().ok());
  }
}

TEST(EnvironmentTest, ActionRepeatSumsRewards) {
  Driver once({.task = "walker-walk", .action_repeat = 1});
  Driver twice({.task = "walker-walk", .action_repeat = 2});
  once.Reset();
  twice.Reset();
  for (int i = 0; i < 10; ++i) {
    const std::vector<float> action(6, 0.1f * static_cast<float>(i));
    const double first = once.Step(action)->reward;
    EXPECT_EQ(twice.Step(action)->reward, first + once.Step(action)->reward);
    EXPECT_EQ(twice.observation, once.observation);
  }
}

TEST(EnvironmentTest, SeedRestartsTheRandomStream) {
  Driver driver({.task = "finger-turn_hard", .seed = 3});
  driver.Reset();
  const std::vector<float> first = driver.observation;
  driver.Reset();
  EXPECT_NE(driver.observation, first);
  driver.environment->Seed(3);
  EXPECT_EQ(driver.Step().status().code(), absl::StatusCode::kFailedPrecondition);
  driver.Reset();
  EXPECT_EQ(driver.observation, first);
}

TEST(EnvironmentTest, ModelsAreSharedUnlessResetsEditThem) {
  const auto walk = Make({.task = "walker-walk"});
  const auto run = Make({.task = "walker-run"});
  EXPECT_EQ(&walk->physics().model(), &run->physics().model());
  const auto dog = Make({.task = "dog-run"});
  const auto other_dog = Make({.task = "dog-run", .seed = 1});
  EXPECT_EQ(&dog->physics().model(), &other_dog->physics().model());
  const auto easy = Make({.task = "reacher-easy"});
  const auto hard = Make({.task = "reacher-hard"});
  EXPECT_NE(&easy->physics().model(), &hard->physics().model());
}

TEST(EnvironmentTest, ModelsComeWithoutTexturesAndSkins) {
  for (const char* task : {"cartpole-swingup", "quadruped-run", "dog-run"}) {
    const auto environment = Make({.task = task});
    const mjModel& m = environment->physics().model();
    EXPECT_EQ(m.ntex, 0) << task;
    EXPECT_EQ(m.nskin, 0) << task;
  }
  EXPECT_LT(mj_sizeModel(&Make({.task = "cartpole-swingup"})->physics().model()), 64 << 10);
}

TEST(EnvironmentTest, LqrTerminatesAtRest) {
  Driver driver({.task = "lqr-lqr_2_1"});
  EXPECT_TRUE(driver.environment->spec().can_terminate);
  driver.Reset();
  EXPECT_FALSE(driver.Step({0})->terminated);
  for (double& x : driver.environment->physics().qpos()) x = 0;
  for (double& v : driver.environment->physics().qvel()) v = 0;
  driver.environment->physics().SyncPositionsAndVelocities();
  const absl::StatusOr<StepResult> result = driver.Step({0});
  ASSERT_TRUE(result.ok());
  EXPECT_TRUE(result->terminated);
  EXPECT_FALSE(result->truncated);
}

TEST(EnvironmentTest, UnstableSimulationTruncatesAndKeepsTheLastObservation) {
  Driver driver({.task = "walker-run"});
  driver.Reset();
  ASSERT_TRUE(driver.Step().ok());
  const std::vector<float> before = driver.observation;
  driver.environment->physics().qvel()[0] = 1e30;
  const absl::StatusOr<StepResult> result = driver.Step();
  ASSERT_TRUE(result.ok());
  EXPECT_TRUE(result->truncated);
  EXPECT_FALSE(result->terminated);
  EXPECT_EQ(result->reward, 0);
  EXPECT_EQ(driver.observation, before);
  EXPECT_EQ(driver.environment->unstable_episodes(), 1);
  driver.Reset();
  EXPECT_TRUE(driver.Step().ok());
  EXPECT_EQ(driver.environment->unstable_episodes(), 1);
}

TEST(EnvironmentTest, MujocoOutOfMemoryTruncates) {
  Driver driver({.task = "walker-run"});
  driver.Reset();
  mjData& data = driver.environment->physics().data();
  const auto memory = data.narena;
  data.narena = 64;
  const absl::StatusOr<StepResult> result = driver.Step();
  data.narena = memory;
  ASSERT_TRUE(result.ok());
  EXPECT_TRUE(result->truncated);
  EXPECT_FALSE(result->terminated);
  EXPECT_EQ(driver.environment->unstable_episodes(), 1);
  driver.Reset();
  EXPECT_TRUE(driver.Step().ok());
}

TEST(MujocoErrorsTest, ErrorsDoNotEndTheProcess) {
  dmc::InstallMujocoHandlers();
  EXPECT_FALSE(dmc::RunMujoco([] { mju_error("out of %s", "stack"); }));
  EXPECT_THAT(dmc::LastMujocoError(), HasSubstr("out of stack"));
  EXPECT_TRUE(dmc::RunMujoco([] { mju_warning("only a warning"); }));
}

// Points $POMPC_DM_CONTROL at a folder of its own.
class ModelFilesTest : public ::testing::Test {
 protected:
  ModelFilesTest()
      : folder_(std::filesystem::path(::testing::TempDir()) /
                ::testing::UnitTest::GetInstance()->current_test_info()->name()) {
    std::filesystem::create_directories(folder_);
    setenv("POMPC_DM_CONTROL", folder_.c_str(), 1);
  }
  ~ModelFilesTest() override {
    unsetenv("POMPC_DM_CONTROL");
    std::filesystem::remove_all(folder_);
  }
  void WriteModel(const std::string& xml) {
    std::filesystem::create_directories(folder_ / "suite");
    std::ofstream(folder_ / "suite" / "pendulum.xml") << xml;
  }
  const std::filesystem::path folder_;
};

TEST_F(ModelFilesTest, MissingFolderIsNotFound) {
  const absl::Status status = FindSpec("pendulum-swingup").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("POMPC_DM_CONTROL"));
}

TEST_F(ModelFilesTest, MissingFileIsNotFound) {
  std::filesystem::create_directories(folder_ / "suite");
  const absl::Status status = FindSpec("pendulum-swingup").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("pendulum.xml"));
}

TEST_F(ModelFilesTest, UnparsableModelIsInvalid) {
  WriteModel("<mujoco><worldbody><nonsense/></worldbody></mujoco>");
  const absl::Status status = FindSpec("pendulum-swingup").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("nonsense"));
}

TEST_F(ModelFilesTest, ModelThatDoesNotCompileIsInvalid) {
  WriteModel("<mujoco><worldbody><body><joint/></body></worldbody></mujoco>");
  const absl::Status status = FindSpec("pendulum-swingup").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
}

TEST_F(ModelFilesTest, ModelOfSomethingElseIsRefused) {
  WriteModel("<mujoco><worldbody><body><joint/><geom size='.1'/></body></worldbody></mujoco>");
  const absl::Status status = FindSpec("pendulum-swingup").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("'pole'"));
}

class EveryTaskTest : public ::testing::TestWithParam<std::string> {};

TEST_P(EveryTaskTest, ContinuesFromASavedStateBitForBit) {
  Driver original({.task = GetParam(), .seed = 1});
  Driver copy({.task = GetParam(), .seed = 2});
  copy.Reset();
  ASSERT_TRUE(copy.Step().ok());
  original.Reset();
  EnvironmentState state;
  for (const int steps_before : {0, 3}) {
    for (int i = 0; i < steps_before; ++i) ASSERT_TRUE(original.Step().ok());
    original.environment->SaveState(&state);
    ASSERT_TRUE(copy.environment->LoadState(state).ok());
    ASSERT_TRUE(copy.environment->Observe(absl::MakeSpan(copy.observation)).ok());
    EXPECT_EQ(copy.observation, original.observation);
    copy.calls = original.calls;
    for (int i = 0; i < 3; ++i) {
      const double reward = original.Step()->reward;
      EXPECT_EQ(copy.Step()->reward, reward);
      EXPECT_EQ(copy.observation, original.observation);
    }
  }
  original.Reset();
  copy.Reset();
  EXPECT_EQ(copy.observation, original.observation) << "random stream";
}

INSTANTIATE_TEST_SUITE_P(Tasks, EveryTaskTest, ::testing::ValuesIn(TaskNames()),
                         [](const ::testing::TestParamInfo<std::string>& info) {
                           std::string name = info.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

TEST(EnvironmentTest, StatesOfOtherTasksAreRefused) {
  Driver cartpole({.task = "cartpole-swingup"});
  Driver walker({.task = "walker-run"});
  walker.Reset();
  EnvironmentState state;
  cartpole.environment->SaveState(&state);
  EXPECT_EQ(walker.environment->LoadState(state).code(), absl::StatusCode::kInvalidArgument);
  walker.environment->SaveState(&state);
  state.random.pop_back();
  EXPECT_EQ(walker.environment->LoadState(state).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(walker.Step().ok());
}

}  // namespace
}  // namespace pompc
