// What GpuLayers adds to the layers, against the formulas in float64. (The layers themselves:
// fused_layers_test.cc.)
#include "common/model/gpu_layers.h"

#include <functional>
#include <vector>

#include "common/model/algorithm_fixture.h"
#include "gtest/gtest.h"

namespace pompc {
namespace {

using Tensors = std::vector<at::Tensor>;
using Formula = std::function<at::Tensor(const Tensors&)>;

class GpuLayersTest : public testing::Test {
 protected:
  void SetUp() override {
    if (FindGpuLayers() == nullptr) GTEST_SKIP() << "a build without CUDA";
    if (!at::hasCUDA()) GTEST_SKIP() << "no GPU";
    at::manual_seed(3);
  }

  // Results and gradients of float32 inputs on the GPU, and of their float64 copies on the CPU.
  static void ExpectSame(const Tensors& inputs, const Formula& ours, const Formula& expected) {
    Tensors single, twice;
    for (const at::Tensor& t : inputs) {
      single.push_back(t.to(at::kCUDA).requires_grad_(true));
      twice.push_back(t.to(at::kDouble).requires_grad_(true));
    }
    const at::Tensor y = ours(single), y64 = expected(twice);
    EXPECT_TRUE(Close(y, y64, 1e-5));
    const at::Tensor dy = at::randn(y.sizes());
    y.backward(dy.to(at::kCUDA));
    y64.backward(dy.to(at::kDouble));
    for (size_t i = 0; i < inputs.size(); ++i) {
      SCOPED_TRACE(testing::Message() << "gradient of input " << i);
      EXPECT_TRUE(Close(single[i].grad(), twice[i].grad(), 1e-5));
    }
  }
};

TEST_F(GpuLayersTest, PolicyGivesMeanAndLogStd) {
  const LogStdRange range = {-3, 1};
  for (const bool all : {true, false}) {
    ExpectSame(
        {at::randn({3, 70, 12})},
        [&](const Tensors& t) {
          const auto [m, mean, log_std] = FindGpuLayers()->Policy(t[0], range);
          return all ? at::cat({m, mean, log_std}, -1) : log_std;
        },
        [&](const Tensors& t) {
          const Tensors out = t[0].chunk(2, -1);
          const at::Tensor log_std = LogStd(out[1], range);
          return all ? at::cat({out[0], at::tanh(out[0]), log_std}, -1) : log_std;
        });
  }
}

TEST_F(GpuLayersTest, SamplesBothKindsOfPolicy) {
  const at::Tensor eps = at::randn({40, 6});
  for (const bool squashed : {true, false}) {
    ExpectSame(
        {at::randn({40, 6}), at::randn({40, 6})},
        [&](const Tensors& t) {
          return FindGpuLayers()->Sample(squashed, t[0], t[1], eps.to(at::kCUDA));
        },
        [&](const Tensors& t) {
          const at::Tensor u = t[0] + eps.to(at::kDouble) * at::exp(t[1]);
          return squashed ? at::tanh(u) : u.clamp(-1, 1);
        });
  }
}

TEST_F(GpuLayersTest, SumsLogDensities) {
  const at::Tensor eps = at::randn({3, 40, 38});
  ExpectSame(
      {at::randn({3, 40, 38}), eps}, [](const Tensors& t) { return GaussianLogProb(t[0], t[1]); },
      [](const Tensors& t) { return GaussianLogProb(t[0], t[1]); });
  ExpectSame(
      {at::randn({3, 40, 38})},
      [&](const Tensors& t) { return GaussianLogProb(eps.to(at::kCUDA), t[0]); },
      [&](const Tensors& t) { return GaussianLogProb(eps.to(at::kDouble), t[0]); });
  const auto squash = [](const Tensors& t) { return SquashCorrection(t[0]); };
  at::Tensor action = 1.8 * at::rand({3, 40, 38}) - 0.9;
  action[0][0][0] = 1;  // Saturated: no gradient.
  ExpectSame({action}, squash, squash);
}

TEST_F(GpuLayersTest, ComparesGaussians) {
  const at::Tensor std = 0.1 + at::rand({40, 6}), other = 0.1 + at::rand({40, 6});
  ExpectSame(
      {at::randn({40, 6}), std, at::randn({40, 6}), other},
      [](const Tensors& t) { return FindGpuLayers()->GaussianKl(t[0], t[1], t[2], t[3]); },
      [](const Tensors& t) { return GaussianKl(t[0], t[1], t[2], t[3]); });
  // Gradients of one of the two only, and of parts of a wider tensor.
  const at::Tensor q = at::rand({40, 12}) + 0.1;
  ExpectSame(
      {at::rand({40, 12}) + 0.1},
      [&](const Tensors& t) {
        const Tensors p = t[0].chunk(2, -1), rest = q.to(at::kCUDA).chunk(2, -1);
        return FindGpuLayers()->GaussianKl(rest[0], rest[1], p[0], p[1]);
      },
      [&](const Tensors& t) {
        const Tensors p = t[0].chunk(2, -1), rest = q.to(at::kDouble).chunk(2, -1);
        return GaussianKl(rest[0], rest[1], p[0], p[1]);
      });
}

TEST_F(GpuLayersTest, WeighsMeansOverTime) {
  for (const int64_t width : {1, 3, 500}) {
    const at::Tensor y = at::randn({3, 40, width});
    ExpectSame(
        {at::randn({3, 40, width})},
        [](const Tensors& t) { return FindGpuLayers()->TimeMeanOf(t[0], 0, 0.5, {}); },
        [](const Tensors& t) {
          return TimeMean(t[0].mean(at::IntArrayRef{1, 2}), 0.5);
        });
    ExpectSame(
        {at::randn({3, 40, width})},
        [](const Tensors& t) { return FindGpuLayers()->TimeMeanOf(t[0], 1, 0.9, {}); },
        [](const Tensors& t) {
          return TimeMean(t[0].mean(at::IntArrayRef{0, 2}), 0.9);
        });
    ExpectSame(
        {at::randn({3, 40, width})},
        [&](const Tensors& t) {
          return FindGpuLayers()->TimeMeanOf(t[0], 0, 0.5, y.to(at::kCUDA));
        },
        [&](const Tensors& t) {
          return TimeMean((t[0] - y.to(at::kDouble)).square().mean(at::IntArrayRef{1, 2}), 0.5);
        });
  }
}

TEST_F(GpuLayersTest, FindsPercentiles) {
  for (const int64_t size : {1, 2, 8, 33, 256, 1000, 1024}) {
    SCOPED_TRACE(size);
    at::Tensor x = 5 * at::randn({size});
    x.narrow(0, 0, size / 2).round_();  // Many equal numbers.
    EXPECT_TRUE(Close(FindGpuLayers()->PercentileRange(x.to(at::kCUDA)),
                      PercentileRange(x.to(at::kDouble)), 1e-6));
  }
  at::Tensor x = at::randn({40});
  x.narrow(0, 0, 3).fill_(NAN);
  EXPECT_TRUE(FindGpuLayers()->PercentileRange(x.to(at::kCUDA)).isnan().item<bool>());
}

TEST_F(GpuLayersTest, SelectsHeads) {
  const Tensors all = {at::randn({5, 33, 70}).to(at::kCUDA), at::randn({5, 512, 48}).to(at::kCUDA),
                       at::randn({5, 7}).to(at::kCUDA)};
  const at::Tensor heads = at::tensor({3, 1}, at::kLong).to(at::kCUDA);
  const Tensors two = FindGpuLayers()->SelectHeads(all, heads);
  ASSERT_EQ(two.size(), all.size());
  EXPECT_TRUE(two[0].narrow(2, 0, 70).equal(all[0].index_select(0, heads)));
  EXPECT_TRUE(two[0].narrow(2, 70, 2).equal(at::zeros_like(two[0].narrow(2, 70, 2))));
  EXPECT_TRUE(two[1].equal(all[1].index_select(0, heads)));
  EXPECT_TRUE(two[2].equal(all[2].index_select(0, heads)));
}

TEST_F(GpuLayersTest, WideLogitsAreWorthWhatTheirBinsAre) {
  const Bins bins = {33, -5, 5};
  const Tensors inputs = {at::randn({9, 24}), at::randn({5, 33, 24}), at::randn({5, 33})};
  const auto wide = [](const Tensors& t) {
    return FindGpuLayers()->Linear(t[0], t[1], t[2], /*wide=*/true, /*track=*/true);
  };
  EXPECT_EQ(
      wide({inputs[0].to(at::kCUDA), inputs[1].to(at::kCUDA), inputs[2].to(at::kCUDA)}).size(-1),
      40);
  ExpectSame(
      inputs, [&](const Tensors& t) { return TwoHotDecode(wide(t), bins); },
      [&](const Tensors& t) { return TwoHotDecode(Linear(t[0], t[1], t[2]), bins); });
  const at::Tensor target = at::randn({9}) * 20;
  ExpectSame(
      inputs,
      [&](const Tensors& t) { return TwoHotCrossEntropy(wide(t), target.to(at::kCUDA), bins); },
      [&](const Tensors& t) {
        return TwoHotCrossEntropy(Linear(t[0], t[1], t[2]), target.to(at::kDouble), bins);
      });
}

TEST_F(GpuLayersTest, JoinsLatentsAndActions) {
  for (const int64_t actions : {4, 6}) {  // 16 columns, 18 columns and 6 of zeros.
    ExpectSame(
        {at::randn({2, 9, 12}), at::randn({2, 9, actions})},
        [](const Tensors& t) { return FindGpuLayers()->Join(t[0], t[1]); },
        [&](const Tensors& t) {
          return at::cat({t[0], t[1], at::zeros({2, 9, actions == 4 ? 0 : 6}, at::kDouble)}, -1);
        });
  }
}

}  // namespace
}  // namespace pompc
