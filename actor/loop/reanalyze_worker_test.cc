#include "actor/loop/reanalyze_worker.h"

#include <cstring>
#include <functional>
#include <limits>
#include <string_view>
#include <utility>
#include <vector>

#include "actor/loop/acting_policy.h"
#include "actor/loop/test_peers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace pompc {
namespace {

using testing::Each;
using testing::ElementsAreArray;
using testing::SizeIs;

constexpr int kWindows = 2, kTransitions = 3;
constexpr int kPlanned = kTransitions * kWindows;

std::vector<float> Floats(std::string_view bytes) {
  std::vector<float> values(bytes.size() / sizeof(float));
  std::memcpy(values.data(), bytes.data(), bytes.size());
  return values;
}

// Windows of random observations, in the test's hands.
class FakeStoredWindows final : public StoredWindows {
 public:
  struct Written {
    std::vector<uint64_t> keys;
    std::vector<float> mean, std;
  };

  std::function<void()> on_peek = [] {};
  int empty_peeks = 0;  // So many first ones find no window.
  absl::Status error;   // Of every call, if not OK.
  bool poison = false;  // Observations from which no value is finite.
  std::vector<uint64_t> seeds;
  std::vector<Written> written;

  absl::StatusOr<v1::SampleResponse> Peek(int32_t windows, uint64_t seed) override {
    on_peek();
    if (empty_peeks-- > 0) return absl::UnavailableError("no window is stored");
    if (!error.ok()) return error;
    EXPECT_EQ(windows, kWindows);
    seeds.push_back(seed);
    v1::SampleResponse response;
    constexpr int kRows = (kTransitions + 1) * kWindows;
    std::vector<float> obs(kRows * 5);
    Rng(seed, RngRole::kTest, 0, 0).FillNormal(absl::MakeSpan(obs));
    if (poison) obs.assign(obs.size(), std::numeric_limits<float>::infinity());
    for (size_t column = 0; column < kNumRowColumns; ++column) response.add_columns();
    response.mutable_columns(0)->assign(reinterpret_cast<const char*>(obs.data()),
                                        obs.size() * sizeof(float));
    for (int i = 0; i < kRows; ++i) response.add_keys(100 + i);
    return response;
  }
  absl::StatusOr<v1::UpdateResponse> Update(absl::Span<const uint64_t> keys,
                                            absl::Span<const NamedRows> columns) override {
    if (!error.ok()) return error;
    EXPECT_THAT(columns, SizeIs(2));
    EXPECT_EQ(columns[0].first, "prior_mean");
    EXPECT_EQ(columns[1].first, "prior_std");
    written.push_back(
        {{keys.begin(), keys.end()}, Floats(columns[0].second), Floats(columns[1].second)});
    v1::UpdateResponse response;
    response.set_updated_rows(static_cast<int64_t>(keys.size()) - 1);
    response.set_stale_rows(1);
    return response;
  }
};

struct WorkerTest : testing::Test {
  WorkerTest() {
    config = TestConfig();
    config.mutable_reanalyze()->set_windows(kWindows);
    *join.request.mutable_sizes() = CartpoleSizes();
    join.answer.set_index(4);
    join.answer.set_writer_id(9);
  }
  // Runs the worker until it has looked at windows so many times, then ends the run.
  absl::Status Run(int peeks) {
    stored.on_peek = [this, peeks, count = 0]() mutable {
      if (++count < peeks) return;
      v1::ParameterSnapshot last = TrainedSnapshot(config, 99, 0);
      last.set_run_finished(true);
      t.parameters.Publish(last);
    };
    return RunReanalyzeWorker(config, join, stored, t.peers());
  }

  TestPeers t;
  v1::RunConfig config;
  JoinedRun join;
  FakeStoredWindows stored;
};

TEST_F(WorkerTest, PlansTheRowsThatHaveAPriorAndWritesThemBack) {
  t.parameters.Publish(TrainedSnapshot(config, 3, 0));
  ASSERT_TRUE(Run(3).ok());
  ASSERT_THAT(stored.written, SizeIs(3));
  for (const auto& written : stored.written) {
    EXPECT_THAT(written.keys, ElementsAreArray({100, 101, 102, 103, 104, 105}));
    ASSERT_THAT(written.mean, SizeIs(kPlanned));
    EXPECT_THAT(written.mean, Each(testing::AllOf(testing::Ge(-1), testing::Le(1))));
    EXPECT_THAT(written.std, Each(testing::AllOf(testing::Ge(0.05f), testing::Lt(1.5f))));
  }
  EXPECT_NE(stored.written[0].mean, stored.written[1].mean);
  EXPECT_NE(stored.seeds[0], stored.seeds[1]);
  EXPECT_THAT(t.metrics.Text(), testing::HasSubstr("pompc_actor_reanalyzed_rows_total 15\n"));
}

TEST_F(WorkerTest, PlansAsTheLearnerDoes) {
  t.parameters.Publish(TrainedSnapshot(config, 3, 0));
  ASSERT_TRUE(Run(1).ok());
  auto policy = ActingPolicy::Create(config, CartpoleSizes(),
                                     {.mode = PlanMode::kReanalyze,
                                      .planner_stream = RngRole::kReanalyze,
                                      .first_environment = 5});
  ASSERT_TRUE(policy.ok() && (*policy)->Load(TrainedSnapshot(config, 3, 0)).ok());
  std::vector<float> obs(kPlanned * 5);
  Rng(stored.seeds[0], RngRole::kTest, 0, 0).FillNormal(absl::MakeSpan(obs));
  const auto plan =
      (*policy)->Act(at::tensor(obs).view({kPlanned, 5}), at::ones({kPlanned}, at::kBool), 1);
  ASSERT_TRUE(plan.ok()) << plan.status();
  const at::Tensor mean = at::tensor(stored.written[0].mean).view({kPlanned, 1});
  EXPECT_TRUE(at::equal(plan->prior_mean, mean)) << plan->prior_mean << mean;
}

TEST_F(WorkerTest, WaitsForTrainedParametersAndWindows) {
  v1::ParameterSnapshot untrained = TrainedSnapshot(config, 1, 0);
  untrained.set_trained(false);
  t.parameters.Publish(untrained);
  int looks = 0;
  t.parameters.on_look = [&] {
    if (++looks == 5) t.parameters.Publish(TrainedSnapshot(config, 2, 0));  // After two waits.
  };
  stored.empty_peeks = 3;
  const absl::Time start = t.clock.Now();
  ASSERT_TRUE(Run(5).ok());
  EXPECT_EQ(stored.written.size(), 2u);
  EXPECT_EQ(t.clock.Now() - start, 5 * absl::Milliseconds(200));
}

TEST_F(WorkerTest, JoinsAgainAsTheProcessThatItIs) {
  const auto joined = JoinRun(t.peers(), v1::REANALYZE, std::nullopt, CartpoleSizes());
  ASSERT_TRUE(joined.ok()) << joined.status();
  join = *joined;
  t.LoseStreamFor(/*joins=*/3);
  ASSERT_TRUE(Run(1).ok());
  t.ExpectOneJoinRepeated();
}

TEST_F(WorkerTest, WritesNothingWhereNoPlanIsFinite) {
  t.parameters.Publish(TrainedSnapshot(config, 3, 0));
  stored.poison = true;
  ASSERT_TRUE(Run(2).ok());
  EXPECT_THAT(stored.written, SizeIs(0));
  EXPECT_THAT(t.metrics.Text(), testing::Not(testing::HasSubstr("plan_nonfinite_total 0\n")));
}

TEST_F(WorkerTest, LeavesWhenReplayRefusesOrItIsToldTo) {
  t.parameters.Publish(TrainedSnapshot(config, 3, 0));
  stored.error = absl::InvalidArgumentError("batch_size: 9");
  EXPECT_EQ(Run(5).code(), absl::StatusCode::kInvalidArgument);
  t.stop.Notify();
  EXPECT_TRUE(Run(5).ok());
}

}  // namespace
}  // namespace pompc
