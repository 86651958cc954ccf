// Plans on a GPU against LibTorch's operators: the values of a plan's own candidates, and plans as
// a whole. Skipped without a GPU.
//
// Tolerances: float32 sums of a few hundred terms in another order, 1e-5 of the largest number and
// ten times that through fifteen layers; TF32 rounds factors to 2^-11, bfloat16 rounds them and
// every activation to 2^-8.
#include "common/planner/graph_plan.h"

#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "common/base/clock.h"
#include "common/base/thread.h"
#include "common/model/fused_layers.h"
#include "common/planner/graph_plan_testing.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace pompc {
namespace {

using GraphPlanTest = GpuTest;

struct Case {
  v1::MatmulPrecision precision = v1::FP32;
  v1::ModelConfig::ValueKind kind = v1::ModelConfig::V;
  int heads = 2;
  v1::ModelConfig::PolicyForm form = v1::ModelConfig::TANH_MEAN;
  int latent = 128, mlp = 256;
  int action = 6;
};

class PlannerOnGpu {
 public:
  PlannerOnGpu(const Case& c, MppiOptions options, const at::TensorOptions& gpu,
               bool certain_policy = false) {
    ModelSpec spec;
    spec.obs_dim = 13;
    spec.action_dim = c.action;
    spec.config.set_latent_dim(c.latent);
    spec.config.set_encoder_dim(64);
    spec.config.set_mlp_dim(c.mlp);
    spec.config.set_value_kind(c.kind);
    spec.config.set_num_value_heads(c.heads);
    spec.config.set_policy_form(c.form);
    if (certain_policy) {
      spec.config.set_log_std_min(-19);
      spec.config.set_log_std_max(-18);
      options.reanalyze_log_std = {-19, -18};
    }
    options.precision = c.precision;
    parameters_ = *Parameters::Create(spec, ParameterUse::kActing, gpu);
    parameters_->Initialise(3);
    // Larger weights than the initial ones, so that values differ between actions.
    GeneratorNoise noise(4, gpu);
    parameters_->flat().add_(noise.Normal({parameters_->layout().size()}), 0.08);
    model_ = std::make_shared<const WorldModel>(parameters_, WorldModel::Gradients::kNone);
    planner_ = *MppiPlanner::Create(options, model_);
    graphs_ = std::make_unique<GraphPlanner>(options, planner_->iterations(), model_);
  }

  Parameters& parameters() { return *parameters_; }
  const WorldModel& model() const { return *model_; }
  const MppiPlanner& planner() const { return *planner_; }
  GraphPlanner& graphs() { return *graphs_; }
  // Values by the operators of action sequences [B, N, H, A]; heads: which two.
  at::Tensor Values(const at::Tensor& obs, const at::Tensor& actions,
                    std::array<int64_t, 2> heads = {0, 1}) const {
    const at::NoGradGuard no_grad;
    const OperatorsOnly operators;
    at::Tensor z = model_->Encode(obs).unsqueeze(1).expand({-1, actions.size(1), -1});
    at::Tensor value = at::zeros({actions.size(0), actions.size(1)}, obs.options());
    double weight = 1;
    for (int64_t t = 0; t < actions.size(2); ++t) {
      const at::Tensor za = model_->Join(z, actions.select(2, t));
      value += weight * model_->Reward(za);
      z = model_->Next(za);
      weight *= planner_->options().discount;
    }
    if (model_->values_take_actions()) {
      const PolicyDistribution policy = model_->Policy(z);
      z = model_->Join(z, policy.Sample(at::zeros_like(policy.mean)));
    }
    const at::Tensor index = at::tensor({heads[0], heads[1]}, at::kLong);
    return value +
           weight *
               model_->Decode(model_->ValueLogits(z, WorldModel::Heads::kOnline, index)).mean(0);
  }

 private:
  std::shared_ptr<Parameters> parameters_;
  std::shared_ptr<const WorldModel> model_;
  std::unique_ptr<MppiPlanner> planner_;
  std::unique_ptr<GraphPlanner> graphs_;
};

MppiOptions SmallOptions() {
  MppiOptions options;
  options.config.set_num_samples(96);
  options.config.set_num_policy_samples(10);
  options.config.set_num_elites(16);
  options.config.set_iterations(3);
  options.discount = 0.97;
  return options;
}

MppiOptions SizesOfARun() {
  MppiOptions options = SmallOptions();
  options.config.set_num_samples(512);
  options.config.set_num_policy_samples(24);
  options.config.set_num_elites(64);
  options.config.set_iterations(6);
  return options;
}

// The largest difference, in standard deviations of the values.
double RelativeError(const at::Tensor& actual, const at::Tensor& expected) {
  return MaxError(actual, expected) / expected.std().item<double>();
}

TEST_F(GraphPlanTest, ValuesItsSequencesLikeTheOperators) {
  for (const auto& [precision, tolerance] :
       {std::pair(v1::FP32, 1e-3), std::pair(v1::TF32, 2e-2), std::pair(v1::BF16, 0.25)}) {
    for (const auto kind : {v1::ModelConfig::V, v1::ModelConfig::Q}) {
      for (const int horizon : {1, 3}) {
        // More than one chunk, of different sizes.
        for (const int64_t batch : {1, 301}) {
          SCOPED_TRACE(testing::Message() << "precision " << precision << " kind " << kind
                                          << " horizon " << horizon << " batch " << batch);
          MppiOptions options = SmallOptions();
          options.config.set_horizon(horizon);
          PlannerOnGpu t({precision, kind}, options, gpu_, /*certain_policy=*/true);
          const at::Tensor obs = Normal({batch, 13});
          ASSERT_TRUE(t.graphs().Plan({obs, {}, PlanMode::kAct}, 7, nullptr).ok());
          const GraphPlanner::Trace trace = t.graphs().LastTrace(batch);
          const double error = RelativeError(trace.value, t.Values(obs, trace.actions));
          EXPECT_LE(error, tolerance);
          std::printf("precision %d kind %d horizon %d batch %d: error %.2g standard deviations\n",
                      precision, kind, horizon, static_cast<int>(batch), error);
        }
      }
    }
  }
}

// Sizes and numbers of a training run, again and again: kernels of several streams run side by
// side, and tiles of rows do not come out even.
TEST_F(GraphPlanTest, PlansForManyObservationsInBothModes) {
  const MppiOptions options = SizesOfARun();
  for (const auto kind : {v1::ModelConfig::V, v1::ModelConfig::Q}) {
    PlannerOnGpu t({v1::BF16, kind, 2, v1::ModelConfig::TANH_MEAN, 512, 512}, options, gpu_,
                   /*certain_policy=*/true);
    for (const int64_t batch : {16, 60, 64}) {
      for (const PlanMode mode : {PlanMode::kAct, PlanMode::kReanalyze}) {
        SCOPED_TRACE(testing::Message() << "kind " << kind << " batch " << batch << " mode "
                                        << static_cast<int>(mode));
        const at::Tensor obs = Normal({batch, 13});
        for (uint64_t seed = 0; seed < 30; ++seed) {
          ASSERT_TRUE(t.graphs().Plan({obs, {}, mode}, seed, nullptr).ok());
        }
        const GraphPlanner::Trace trace = t.graphs().LastTrace(batch);
        const at::Tensor expected = t.Values(obs, trace.actions);
        const double rms = (trace.value - expected).square().mean().sqrt().item<double>() /
                           expected.std().item<double>();
        std::printf("kind %d batch %d: error %.2g standard deviations, at most %.2g\n", kind,
                    static_cast<int>(batch), rms, RelativeError(trace.value, expected));
        EXPECT_LE(rms, 0.05);
        EXPECT_LE(RelativeError(trace.value, expected), 0.5);
      }
    }
  }
}

TEST_F(GraphPlanTest, LeavingRoomChangesNoResult) {
  MppiOptions options = SizesOfARun();
  const Case sizes = {v1::BF16, v1::ModelConfig::V, 2, v1::ModelConfig::TANH_MEAN, 512, 512};
  PlannerOnGpu alone(sizes, options, gpu_);
  options.leaves_room = true;
  PlannerOnGpu beside(sizes, options, gpu_);
  const at::Tensor obs = Normal({60, 13});
  for (uint64_t seed = 0; seed < 5; ++seed) {
    const auto a = alone.graphs().Plan({obs, {}, PlanMode::kReanalyze}, seed, nullptr);
    const auto b = beside.graphs().Plan({obs, {}, PlanMode::kReanalyze}, seed, nullptr);
    ASSERT_TRUE(a.ok() && b.ok());
    EXPECT_TRUE(at::equal(a->prior_mean, b->prior_mean));
    EXPECT_TRUE(at::equal(a->prior_std, b->prior_std));
    EXPECT_TRUE(at::equal(a->value, b->value));
  }
}

// Values by the operators with the two of `heads` heads that fit best: those that were drawn.
double ErrorWithDrawnHeads(const PlannerOnGpu& t, const at::Tensor& obs,
                           const GraphPlanner::Trace& trace, int64_t heads) {
  double error = kInfinity;
  for (int64_t i = 0; i < heads; ++i) {
    for (int64_t j = i + 1; j < heads; ++j) {
      error = std::min(error, RelativeError(trace.value, t.Values(obs, trace.actions, {i, j})));
    }
  }
  return error;
}

// Actions after which the layers' inputs fill no stage, as those of humanoids and dogs; heads that
// are gathered, and heads that are not.
TEST_F(GraphPlanTest, PlansForLargeActions) {
  for (const auto& [kind, heads] :
       {std::pair(v1::ModelConfig::V, 2), std::pair(v1::ModelConfig::Q, 5)}) {
    for (const int action : {21, 38}) {
      PlannerOnGpu t({v1::BF16, kind, heads, v1::ModelConfig::TANH_MEAN, 512, 512, action},
                     SizesOfARun(), gpu_, /*certain_policy=*/true);
      for (const int64_t batch : {1, 16, 64}) {
        SCOPED_TRACE(testing::Message()
                     << "kind " << kind << " action " << action << " batch " << batch);
        const at::Tensor obs = Normal({batch, 13});
        for (uint64_t seed = 0; seed < 30; ++seed) {
          ASSERT_TRUE(t.graphs().Plan({obs, {}, PlanMode::kAct}, seed, nullptr).ok());
        }
        EXPECT_LE(ErrorWithDrawnHeads(t, obs, t.graphs().LastTrace(batch), heads), 0.25);
      }
    }
  }
}

// Another thread's small kernels, which come first, take multiprocessors from clusters at any time
// and write through their caches: plans are equal bit by bit to those made alone.
TEST_F(GraphPlanTest, PlansBesideKernelsThatComeFirst) {
  const at::Tensor numbers = at::zeros({1 << 16}, gpu_);
  const c10::cuda::CUDAStream first = c10::cuda::getStreamFromPool(/*isHighPriority=*/true);
  at::cuda::CUDAGraph small;
  {
    numbers.sum().item<float>();  // What is above is in place.
    const c10::cuda::CUDAStreamGuard guard(first);
    numbers.add_(1);  // Loads the kernel.
    first.synchronize();
    small.capture_begin({0, 0}, cudaStreamCaptureModeThreadLocal);
    for (int i = 0; i < 50; ++i) numbers.add_(1);
    small.capture_end();
  }
  for (const auto& [kind, heads] :
       {std::pair(v1::ModelConfig::V, 2), std::pair(v1::ModelConfig::Q, 5)}) {
    PlannerOnGpu t({v1::BF16, kind, heads, v1::ModelConfig::TANH_MEAN, 512, 512, 38}, SizesOfARun(),
                   gpu_);
    for (const int64_t batch : {1, 16, 64}) {
      SCOPED_TRACE(testing::Message() << "kind " << kind << " batch " << batch);
      const at::Tensor obs = Normal({batch, 13});
      const auto plans = [&] {
        std::vector<at::Tensor> results;
        for (uint64_t seed = 0; seed < 30; ++seed) {
          const auto plan = t.graphs().Plan({obs, {}, PlanMode::kAct}, seed, nullptr);
          EXPECT_TRUE(plan.ok()) << plan.status();
          if (plan.ok()) results.push_back(at::cat({plan->action, plan->mean, plan->prior_std}, 1));
        }
        return at::stack(results);
      };
      const at::Tensor alone = plans();
      std::atomic<bool> done = false;
      std::atomic<int> replays = 0;
      Thread beside("beside", [&] {
        const c10::cuda::CUDAStreamGuard guard(first);
        while (!done) {
          small.replay();
          first.synchronize();
          ++replays;
        }
      });
      while (replays == 0) RealClock()->SleepUntil(RealClock()->Now() + absl::Milliseconds(1));
      const at::Tensor together = plans();
      done = true;
      beside.Join();
      EXPECT_TRUE(at::isfinite(alone).all().item<bool>());
      EXPECT_TRUE(at::equal(alone, together));
    }
  }
}

TEST_F(GraphPlanTest, AveragesTwoOfTheHeads) {
  PlannerOnGpu t({v1::FP32, v1::ModelConfig::Q, 5}, SmallOptions(), gpu_, true);
  const at::Tensor obs = Normal({2, 13});
  std::set<int> pairs;
  for (uint64_t seed = 0; seed < 30; ++seed) {
    ASSERT_TRUE(t.graphs().Plan({obs, {}, PlanMode::kAct}, seed, nullptr).ok());
    const GraphPlanner::Trace trace = t.graphs().LastTrace(2);
    int matches = 0;
    for (int64_t i = 0; i < 5; ++i) {
      for (int64_t j = i + 1; j < 5; ++j) {
        if (RelativeError(trace.value, t.Values(obs, trace.actions, {i, j})) > 1e-3) continue;
        ++matches;
        pairs.insert(static_cast<int>(5 * i + j));
      }
    }
    EXPECT_EQ(matches, 1) << "seed " << seed;
  }
  EXPECT_GE(pairs.size(), 7);  // Of 10.
}

TEST_F(GraphPlanTest, ProposesTheRolloutsOfThePolicy) {
  for (const auto form : {v1::ModelConfig::TANH_MEAN, v1::ModelConfig::SQUASHED}) {
    PlannerOnGpu t({v1::FP32, v1::ModelConfig::V, 2, form}, SmallOptions(), gpu_, true);
    const at::Tensor obs = Normal({4, 13});
    ASSERT_TRUE(t.graphs().Plan({obs, {}, PlanMode::kAct}, 7, nullptr).ok());
    const at::Tensor proposed = t.graphs().LastTrace(4).actions.narrow(1, 0, 10);
    const OperatorsOnly operators;
    at::Tensor z = t.model().Encode(obs);
    for (int64_t step = 0; step < 3; ++step) {
      const at::Tensor action = t.model().Policy(z).mean;
      EXPECT_LE(MaxError(proposed.select(2, step), action.unsqueeze(1).expand({-1, 10, -1})), 1e-4);
      z = t.model().Next(t.model().Join(z, action));
    }
  }
}

TEST_F(GraphPlanTest, ProposalsAreAsWideAsThePolicy) {
  MppiOptions options = SmallOptions();
  options.config.set_num_samples(3000);
  options.config.set_num_policy_samples(2900);
  options.reanalyze_log_std = {-5, -4};
  PlannerOnGpu t({}, options, gpu_);
  const at::Tensor obs = Normal({1, 13});
  for (const PlanMode mode : {PlanMode::kAct, PlanMode::kReanalyze}) {
    ASSERT_TRUE(t.graphs().Plan({obs, {}, mode}, 7, nullptr).ok());
    const at::Tensor first =
        t.graphs().LastTrace(1).actions.narrow(1, 0, 2900).select(2, 0).squeeze(0);
    const OperatorsOnly operators;
    const at::Tensor z = t.model().Encode(obs).expand({2900, -1});
    const PolicyDistribution policy = mode == PlanMode::kAct
                                          ? t.model().Policy(z)
                                          : t.model().Policy(z, options.reanalyze_log_std);
    const at::Tensor expected = policy.Sample(Normal({2900, 6}));
    // Standard error of a mean: std / 54; of a std: std / 76.
    const double std = expected.std(0).max().item<double>();
    EXPECT_LE(MaxError(first.mean(0), expected.mean(0)), 6 * std / 54);
    EXPECT_LE(MaxError(first.std(0), expected.std(0)), 6 * std / 76);
  }
}

TEST_F(GraphPlanTest, SamplesTheGaussian) {
  MppiOptions options = SmallOptions();
  options.config.set_num_samples(4000);
  options.config.set_iterations(1);
  options.config.set_min_std(0.01);
  options.config.set_max_std(0.2);
  PlannerOnGpu t({}, options, gpu_);
  PlannerState state;
  state.mean = 0.3 * at::ones({2, 3, 6}, gpu_);
  ASSERT_TRUE(t.graphs().Plan({Normal({2, 13}), {}, PlanMode::kAct}, 7, &state).ok());
  const at::Tensor x = t.graphs().LastTrace(2).actions.narrow(1, 10, 3990);
  // The warm start ends a step earlier.
  const at::Tensor mean = at::tensor({0.3, 0.3, 0.0}, gpu_).view({1, 3, 1}).expand({2, 3, 6});
  EXPECT_LE(MaxError(x.mean(1), mean), 5 * 0.2 / 63);
  EXPECT_LE(MaxError(x.std(1), at::full({2, 3, 6}, 0.2, gpu_)), 5 * 0.2 / 89);
  // Nothing correlates: dimensions, steps, observations.
  const at::Tensor columns = x.permute({1, 0, 2, 3}).reshape({3990, 36});
  const at::Tensor correlation = at::corrcoef(columns.t()) - at::eye(36, gpu_);
  EXPECT_LE(correlation.abs().max().item<double>(), 5.5 / 63);
}

TEST_F(GraphPlanTest, ResetEpisodesStartCold) {
  MppiOptions options = SmallOptions();
  options.config.set_num_samples(2000);
  options.config.set_iterations(1);
  options.config.set_max_std(0.1);
  PlannerOnGpu t({}, options, gpu_);
  const at::Tensor obs = Normal({2, 13});
  const auto first_means = [&](PlanMode mode) {
    PlannerState state;
    state.mean = 0.5 * at::ones({2, 3, 6}, gpu_);
    PlanRequest request = {obs, at::tensor({0, 1}, at::kLong).to(at::kBool), mode};
    EXPECT_TRUE(t.graphs().Plan(request, 7, &state).ok());
    const bool kept = at::equal(state.mean, 0.5 * at::ones({2, 3, 6}, gpu_));
    EXPECT_EQ(kept, mode == PlanMode::kReanalyze);
    return t.graphs().LastTrace(2).actions.narrow(1, 10, 1990).select(2, 0).mean({1, 2}).cpu();
  };
  EXPECT_NEAR(first_means(PlanMode::kAct)[0].item<float>(), 0.5, 0.01);
  EXPECT_NEAR(first_means(PlanMode::kAct)[1].item<float>(), 0, 0.01);
  EXPECT_NEAR(first_means(PlanMode::kReanalyze)[0].item<float>(), 0, 0.01);
}

TEST_F(GraphPlanTest, ResultIsTheRefitOfTheLastIteration) {
  for (const PlanMode mode : {PlanMode::kAct, PlanMode::kEvaluate, PlanMode::kReanalyze}) {
    MppiOptions options = SmallOptions();
    options.config.set_evaluation_action(v1::PlannerConfig::MEAN);
    PlannerOnGpu t({v1::BF16}, options, gpu_);
    PlannerState state;
    const auto plan = t.graphs().Plan({Normal({70, 13}), {}, mode}, 7, &state);
    ASSERT_TRUE(plan.ok()) << plan.status();
    const GraphPlanner::Trace trace = t.graphs().LastTrace(70);
    const Refit refit =
        RefitToElites(trace.value, trace.actions.permute({0, 2, 1, 3}), options.config);
    EXPECT_EQ(plan->num_nonfinite, 0);
    EXPECT_LE(MaxError(plan->mean, refit.mean.select(1, 0)), 1e-5);
    EXPECT_LE(MaxError(plan->prior_std, refit.std.select(1, 0)), 1e-5);
    const at::Tensor drawn =
        (refit.elite_actions.select(1, 0) == plan->elite.unsqueeze(1)).all(-1);  // [B, E]
    EXPECT_TRUE(drawn.any(1).all().item<bool>());
    EXPECT_TRUE(
        (drawn & (refit.elite_value == plan->value.unsqueeze(1))).any(1).all().item<bool>());
    EXPECT_TRUE(at::equal(plan->prior_mean, plan->elite));
    if (mode == PlanMode::kReanalyze) {
      EXPECT_FALSE(state.mean.defined());
      EXPECT_TRUE(at::equal(plan->action, plan->elite));
    } else {
      EXPECT_LE(MaxError(state.mean, refit.mean), 1e-5);
      EXPECT_EQ(at::equal(plan->action, plan->mean), mode == PlanMode::kEvaluate);
      EXPECT_LE(plan->action.abs().max().item<float>(), 1);
    }
    if (mode == PlanMode::kAct) {
      // Unless clamped, the noise is standard normal in units of the planner's std.
      const at::Tensor inside = plan->action.abs() < 1;
      const at::Tensor eps = ((plan->action - plan->elite) / plan->prior_std).masked_select(inside);
      EXPECT_GT(eps.std().item<double>(), 0.3);
      EXPECT_LT(eps.std().item<double>(), 1.3);
    }
  }
}

TEST_F(GraphPlanTest, EqualSeedsGiveEqualBits) {
  for (const auto kind : {v1::ModelConfig::V, v1::ModelConfig::Q}) {
    PlannerOnGpu t({v1::BF16, kind, 5}, SmallOptions(), gpu_);
    const at::Tensor obs = Normal({70, 13});
    const auto plan = [&](uint64_t seed) {
      PlannerState state;
      EXPECT_TRUE(t.graphs().Plan({obs, {}, PlanMode::kAct}, seed, &state).ok());
      return t.graphs().Plan({obs, {}, PlanMode::kAct}, seed, &state)->action;
    };
    EXPECT_TRUE(at::equal(plan(1), plan(1)));
    EXPECT_FALSE(at::equal(plan(1), plan(2)));
  }
}

TEST_F(GraphPlanTest, NewParametersTakeEffect) {
  PlannerOnGpu t({v1::BF16}, SmallOptions(), gpu_);
  const at::Tensor obs = Normal({2, 13});
  for (int i = 0; i < 2; ++i) {
    ASSERT_TRUE(t.graphs().Plan({obs, {}, PlanMode::kAct}, 7, nullptr).ok());
    const GraphPlanner::Trace trace = t.graphs().LastTrace(2);
    EXPECT_LE(RelativeError(trace.value, t.Values(obs, trace.actions)), 0.25);
    t.parameters().flat().add_(Normal({t.parameters().layout().size()}), 0.08);
  }
}

TEST_F(GraphPlanTest, RejectsWhatIsNotFinite) {
  PlannerOnGpu t({v1::BF16}, SmallOptions(), gpu_);
  at::Tensor obs = Normal({3, 13});
  PlannerState state;
  ASSERT_TRUE(t.planner().Plan({obs, {}, PlanMode::kAct}, *noise_, &state).ok());
  const at::Tensor before = state.mean.clone();
  obs[1][0].fill_(std::nanf(""));
  const auto plan = t.planner().Plan({obs, {}, PlanMode::kAct}, *noise_, &state);
  EXPECT_EQ(plan.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(plan.status().message()), testing::HasSubstr("of 1 observations"));
  EXPECT_TRUE(at::equal(state.mean, before));
}

// Plans for many copies of one observation, by both: equal distributions of what they return.
TEST_F(GraphPlanTest, PlansLikeTheOperators) {
  constexpr int64_t kCopies = 400;
  for (const auto& [precision, bias] : {std::pair(v1::FP32, 0.0), std::pair(v1::BF16, 0.02)}) {
    for (const auto kind : {v1::ModelConfig::V, v1::ModelConfig::Q}) {
      SCOPED_TRACE(testing::Message() << "precision " << precision << " kind " << kind);
      PlannerOnGpu t({precision, kind}, SmallOptions(), gpu_);
      const at::Tensor obs = Normal({1, 13}).repeat({kCopies, 1});
      const auto ours = t.planner().Plan({obs, {}, PlanMode::kAct}, *noise_, nullptr);
      const OperatorsOnly operators;
      const auto theirs = t.planner().Plan({obs, {}, PlanMode::kAct}, *noise_, nullptr);
      ASSERT_TRUE(ours.ok() && theirs.ok());
      const auto expect_alike = [&, bias = bias](const at::Tensor& a, const at::Tensor& b) {
        const at::Tensor error =
            at::sqrt((a.var(0) + b.var(0)) / static_cast<double>(kCopies)) + 1e-6;
        const at::Tensor distance = (a.mean(0) - b.mean(0)).abs() - bias * b.std(0);
        EXPECT_LE((distance / error).max().item<double>(), 4.5);
      };
      expect_alike(ours->action, theirs->action);
      expect_alike(ours->mean, theirs->mean);
      expect_alike(ours->prior_std, theirs->prior_std);
      expect_alike(ours->value, theirs->value);
    }
  }
}

}  // namespace
}  // namespace pompc
