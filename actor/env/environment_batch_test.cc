#include "actor/env/environment_batch.h"

#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <limits>
#include <memory>
#include <new>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/attributes.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "mujoco/mujoco.h"

// Every allocation of this program, C++'s and MuJoCo's, is counted here.
namespace {
std::atomic<int64_t> num_allocations{0};

void* CountedAllocation(size_t size) {
  ++num_allocations;
  return std::aligned_alloc(64, (size + 63) / 64 * 64);
}
}  // namespace

// Not inlined: GCC would see a mismatch of new and free().
ABSL_ATTRIBUTE_NOINLINE void* operator new(size_t size) {
  if (void* memory = CountedAllocation(size)) return memory;
  throw std::bad_alloc();
}
ABSL_ATTRIBUTE_NOINLINE void operator delete(void* memory) noexcept { std::free(memory); }
ABSL_ATTRIBUTE_NOINLINE void operator delete(void* memory, size_t) noexcept { std::free(memory); }

namespace pompc {
namespace {

constexpr int kSize = 5;

struct Outcome {
  std::vector<float> observations;
  std::vector<double> rewards;
};

// A few decisions of a batch with this many threads, each in one call or in two parts.
Outcome RunBatch(int num_threads, bool in_parts = false) {
  auto batch = EnvironmentBatch::Create({.task = "cheetah-run", .seed = 7}, kSize, num_threads);
  EXPECT_TRUE(batch.ok()) << batch.status();
  const EnvironmentSpec& spec = (*batch)->spec();
  Outcome run;
  run.observations.resize(kSize * spec.observation_dim);
  EXPECT_TRUE((*batch)->Reset(absl::MakeSpan(run.observations)).ok());
  std::vector<float> actions(kSize * spec.action_dim);
  std::vector<StepResult> results(kSize);
  for (int step = 0; step < 20; ++step) {
    for (size_t i = 0; i < actions.size(); ++i) {
      actions[i] = std::sin(static_cast<float>(i + 3 * step));
    }
    if (in_parts) {
      EXPECT_TRUE(
          (*batch)
              ->StartStep(actions, absl::MakeSpan(run.observations), absl::MakeSpan(results))
              .ok());
      EXPECT_TRUE((*batch)->FinishStep().ok());
    } else {
      EXPECT_TRUE(
          (*batch)->Step(actions, absl::MakeSpan(run.observations), absl::MakeSpan(results)).ok());
    }
    EXPECT_GT((*batch)->step_duration(), absl::ZeroDuration());
    for (const StepResult& result : results) run.rewards.push_back(result.reward);
  }
  return run;
}

TEST(EnvironmentBatchTest, ResultsDoNotDependOnTheNumberOfThreads) {
  const Outcome one = RunBatch(1);
  const Outcome three = RunBatch(3);
  EXPECT_EQ(one.observations, three.observations);
  EXPECT_EQ(one.rewards, three.rewards);
}

TEST(EnvironmentBatchTest, AStepInTwoPartsIsAStep) {
  const Outcome whole = RunBatch(1);
  for (const int threads : {1, 3}) {
    const Outcome parts = RunBatch(threads, /*in_parts=*/true);
    EXPECT_EQ(parts.observations, whole.observations);
    EXPECT_EQ(parts.rewards, whole.rewards);
  }
}

TEST(EnvironmentBatchTest, ThreadsWithoutEnvironmentsOfTheirOwnDoNoHarm) {
  EXPECT_EQ(RunBatch(kSize + 3).observations, RunBatch(1).observations);
}

class AllocationTest : public ::testing::TestWithParam<const char*> {
 protected:
  AllocationTest() { std::swap(mju_user_malloc, previous_malloc_); }
  ~AllocationTest() override { std::swap(mju_user_malloc, previous_malloc_); }

 private:
  void* (*previous_malloc_)(size_t) = CountedAllocation;
};

TEST_P(AllocationTest, StepsAllocateNothing) {
  auto batch = EnvironmentBatch::Create({.task = GetParam()}, 4, 2);
  ASSERT_TRUE(batch.ok()) << batch.status();
  std::vector<float> actions(4 * (*batch)->spec().action_dim, 0.5f);
  std::vector<float> observations(4 * (*batch)->spec().observation_dim);
  std::vector<StepResult> results(4);
  ASSERT_TRUE((*batch)->Reset(absl::MakeSpan(observations)).ok());
  // Once for what is made at a thread's or an environment's first step.
  ASSERT_TRUE((*batch)->Step(actions, absl::MakeSpan(observations), absl::MakeSpan(results)).ok());
  const int64_t before = num_allocations;
  EXPECT_GT(before, 0);
  bool ok = true;
  for (int i = 0; i < 10; ++i) {
    ok &= (*batch)->Step(actions, absl::MakeSpan(observations), absl::MakeSpan(results)).ok();
  }
  EXPECT_TRUE(ok);
  EXPECT_EQ(num_allocations, before);
}

INSTANTIATE_TEST_SUITE_P(Tasks, AllocationTest,
                         ::testing::Values("cartpole-swingup", "finger-spin", "humanoid-run",
                                           "quadruped-run", "dog-run"),
                         [](const ::testing::TestParamInfo<const char*>& info) {
                           const std::string name = info.param;
                           return name.substr(0, name.find('-'));
                         });

TEST(EnvironmentBatchTest, EnvironmentsAreSeededOneByOne) {
  auto batch = EnvironmentBatch::Create({.task = "pendulum-swingup", .seed = 10}, 3, 2);
  ASSERT_TRUE(batch.ok());
  std::vector<float> observations(3 * 3);
  ASSERT_TRUE((*batch)->Reset(absl::MakeSpan(observations)).ok());
  auto last = CreateEnvironment({.task = "pendulum-swingup", .seed = 12});
  std::vector<float> observation(3);
  ASSERT_TRUE((*last)->Reset(absl::MakeSpan(observation)).ok());
  EXPECT_THAT(std::vector<float>(observations.begin() + 6, observations.end()),
              ::testing::ElementsAreArray(observation));
}

TEST(EnvironmentBatchTest, OneBadActionIsReportedAndTheOthersStep) {
  auto batch = EnvironmentBatch::Create({.task = "pendulum-swingup"}, 3, 2);
  ASSERT_TRUE(batch.ok());
  std::vector<float> observations(9);
  std::vector<StepResult> results(3);
  ASSERT_TRUE((*batch)->Reset(absl::MakeSpan(observations)).ok());
  const std::vector<float> before = observations;
  const std::vector<float> actions = {0, std::numeric_limits<float>::infinity(), 0};
  EXPECT_EQ((*batch)->Step(actions, absl::MakeSpan(observations), absl::MakeSpan(results)).code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_NE(observations[2], before[2]);
  EXPECT_EQ(observations[5], before[5]);
  EXPECT_NE(observations[8], before[8]);
}

TEST(EnvironmentBatchTest, WrongSizesAreRefused) {
  EXPECT_EQ(EnvironmentBatch::Create({.task = "pendulum-swingup"}, 0, 1).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(EnvironmentBatch::Create({.task = "pendulum-swingup"}, 1, 0).status().code(),
            absl::StatusCode::kInvalidArgument);
  auto batch = EnvironmentBatch::Create({.task = "pendulum-swingup"}, 2, 1);
  ASSERT_TRUE(batch.ok());
  std::vector<float> observations(6), actions(2), wrong(5);
  std::vector<StepResult> results(2);
  EXPECT_EQ((*batch)->Reset(absl::MakeSpan(wrong)).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ((*batch)->Step(wrong, absl::MakeSpan(observations), absl::MakeSpan(results)).code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ((*batch)->Step(actions, absl::MakeSpan(observations), {}).code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace pompc
