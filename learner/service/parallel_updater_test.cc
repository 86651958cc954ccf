// Ranks on the CPU; with GPUs, and number by number: learner/core/data_parallel_test.cc.
#include "learner/service/parallel_updater.h"

#include <memory>
#include <stdexcept>
#include <string>
#include <thread>

#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/config/config.h"
#include "common/model/algorithm_fixture.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "learner/client/row.h"
#include "learner/service/testing.h"

namespace pompc {
namespace {

using ::testing::HasSubstr;

constexpr int64_t kWindows = 8;

v1::RunConfig SmallConfig() {
  v1::RunConfig config = DefaultRunConfig();
  config.mutable_model()->set_latent_dim(16);
  config.mutable_model()->set_encoder_dim(16);
  config.mutable_model()->set_mlp_dim(16);
  config.mutable_planner()->set_num_samples(16);
  config.mutable_planner()->set_num_policy_samples(4);
  config.mutable_planner()->set_num_elites(4);
  config.mutable_learning()->set_batch_size(kWindows);
  config.mutable_learning()->set_reanalyze_windows(3);
  config.mutable_learning()->set_reanalyze_interval(2);
  return config;
}

// Windows drawn by priority.
ColumnBatch RandomColumns(const BatchShape& shape, uint64_t seed) {
  GeneratorNoise noise(seed);
  const int64_t rows = shape.transitions + 1;
  const auto bytes = [](const at::Tensor& t) {
    return std::string(static_cast<const char*>(t.const_data_ptr()), t.nbytes());
  };
  ColumnBatch columns;
  columns.columns.assign(kNumRowColumns, bytes(at::zeros({rows, shape.windows})));
  const auto set = [&](RowColumn column, const at::Tensor& t) {
    columns.columns[static_cast<size_t>(column)] = bytes(t);
  };
  const int64_t actions = shape.sizes.action_dim();
  set(RowColumn::kObservation, noise.Normal({rows, shape.windows, shape.sizes.observation_dim()}));
  set(RowColumn::kAction, noise.Normal({rows, shape.windows, actions}).tanh());
  set(RowColumn::kReward, noise.Normal({rows, shape.windows}));
  set(RowColumn::kPriorMean, noise.Normal({rows, shape.windows, actions}).tanh());
  set(RowColumn::kPriorStd, noise.Normal({rows, shape.windows, actions}).sigmoid());
  for (int64_t b = 1; b <= shape.windows; ++b) {
    columns.probabilities.push_back(0.01 * static_cast<double>(b));
  }
  return columns;
}

class ParallelUpdaterTest : public ::testing::Test {
 protected:
  std::unique_ptr<ParallelUpdater> Make(int ranks, Clock* clock = RealClock()) {
    config_.mutable_learner()->set_data_parallel(ranks);
    const auto devices = FindLearnerDevices(config_.learner());
    POMPC_CHECK_OK(devices.status());
    POMPC_CHECK(devices->size() == static_cast<size_t>(ranks));
    auto updater = ParallelUpdater::Create(config_, shape_, *devices, clock);
    POMPC_CHECK_OK(updater.status());
    return *std::move(updater);
  }

  v1::RunConfig config_ = SmallConfig();
  const BatchShape shape_ = {config_.learning().window(), kWindows, pompc::testing::TestSizes(),
                             /*importance_exponent=*/0.4};
};

// Tolerance: sums in another order, in float32, after six steps of Adam.
TEST_F(ParallelUpdaterTest, RanksDivideABatchAndGiveTheResultOfOne) {
  for (const int ranks : {2, 4}) {
    SCOPED_TRACE(ranks);
    const auto several = Make(ranks);
    const auto expected = Make(1);
    for (uint64_t i = 0; i < 6; ++i) {
      ColumnBatch columns = RandomColumns(shape_, i), same = RandomColumns(shape_, i);
      const UpdateRequest request = {.want_stats = true};
      several->AwaitRoom();
      const auto result = several->Update(request, columns),
                 of_one = expected->Update(request, same);
      ASSERT_TRUE(result.ok() && of_one.ok()) << result.status() << of_one.status();
      EXPECT_TRUE(Close(result->stats->values, of_one->stats->values, 1e-4));
      EXPECT_TRUE(Close(result->td_error, of_one->td_error, 1e-4));
      ASSERT_EQ(result->reanalyzed.has_value(), i % 2 == 1);
      if (i % 2 == 0) continue;
      EXPECT_TRUE(Close(result->reanalyzed->mean, of_one->reanalyzed->mean, 1e-3));
    }
    EXPECT_EQ(several->updater().updates(), 6);
    const Checkpoint state = several->updater().Save(), of_one = expected->updater().Save();
    for (const auto& [name, tensor] : of_one.tensors) {
      EXPECT_TRUE(Close(state.tensors.at(name).to(at::kFloat), tensor.to(at::kFloat), 1e-3))
          << name;
    }
  }
}

TEST_F(ParallelUpdaterTest, AllRanksGoOnFromTheCheckpointOfAnotherNumberOfThem) {
  const auto before = Make(1), after = Make(2);
  const auto update = [&](ParallelUpdater& updater, uint64_t seed) {
    ColumnBatch columns = RandomColumns(shape_, seed);
    POMPC_CHECK_OK(updater.Update({}, columns).status());
  };
  for (uint64_t i = 0; i < 3; ++i) update(*before, i);
  ASSERT_TRUE(after->Restore(before->updater().Save()).ok());
  for (ParallelUpdater* const updater : {before.get(), after.get()}) {
    for (uint64_t i = 3; i < 6; ++i) update(*updater, i);
    EXPECT_EQ(updater->updater().updates(), 6);
  }
  EXPECT_TRUE(
      Close(after->updater().parameters()->flat(), before->updater().parameters()->flat(), 1e-3));
}

// Asked for the time, as an Updater does when it plans again, it throws in one thread, or in all
// others: the fault of one device, which the other ranks wait for.
class FaultyClock final : public Clock {
 public:
  FaultyClock(std::thread::id thread, bool others) : thread_(thread), others_(others) {}

  absl::Time Now() override {
    if ((std::this_thread::get_id() == thread_) != others_) {
      throw std::runtime_error("the device is lost");
    }
    return RealClock()->Now();
  }
  bool AwaitUntil(absl::Mutex* mu, const absl::Condition& condition, absl::Time deadline) override
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu) {
    return RealClock()->AwaitUntil(mu, condition, deadline);
  }

 private:
  const std::thread::id thread_;
  const bool others_;
};

TEST_F(ParallelUpdaterTest, OneRankThatFailsEndsAllUpdatesForItsReason) {
  for (const bool others : {false, true}) {
    SCOPED_TRACE(others ? "the second" : "the first, which works in the calling thread");
    FaultyClock clock(std::this_thread::get_id(), others);
    const auto updater = Make(2, &clock);
    ColumnBatch columns = RandomColumns(shape_, 1);
    ASSERT_TRUE(updater->Update({}, columns).ok());
    ASSERT_TRUE(updater->updater().ReanalyzeDue());
    const absl::Status status = updater->Update({}, columns).status();
    EXPECT_EQ(status, absl::InternalError("on cpu: update failed: the device is lost"));
    EXPECT_EQ(updater->Update({}, columns).status(), status);
  }
}

TEST_F(ParallelUpdaterTest, ABatchThatIsNoneEndsAllUpdates) {
  const auto updater = Make(2);
  ColumnBatch columns = RandomColumns(shape_, 1);
  columns.columns.pop_back();
  const absl::Status status = updater->Update({}, columns).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
  EXPECT_THAT(std::string(status.message()), HasSubstr("on cpu: replay sent"));
  columns = RandomColumns(shape_, 1);
  EXPECT_EQ(updater->Update({}, columns).status(), status);
}

}  // namespace
}  // namespace pompc
