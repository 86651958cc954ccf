// The fused float32 path against the operator path, which the same functions take in float64; on
// the CPU and, where there is one, on a GPU.
#include "common/model/fused_layers.h"

#include <gtest/gtest.h>

#include <functional>
#include <vector>

namespace pompc {
namespace {

using Tensors = std::vector<at::Tensor>;
using LayerFunction = std::function<at::Tensor(const Tensors&)>;

// Calls `layer` on the inputs in both precisions; compares the result and every gradient, when it
// is the first and when it is added to what is there.
void ExpectSameInBothPrecisions(at::DeviceType device, const Tensors& inputs,
                                const LayerFunction& layer) {
  Tensors single, twice;
  for (const at::Tensor& t : inputs) {
    single.push_back(t.to(device, at::kFloat, false, /*copy=*/true).requires_grad_(true));
    twice.push_back(t.to(device, at::kDouble).requires_grad_(true));
  }
  const at::Tensor y = layer(single), y64 = layer(twice);
  const auto expect_close = [](const at::Tensor& actual, const at::Tensor& expected) {
    ASSERT_EQ(actual.sizes(), expected.sizes());
    const double error = (actual.to(at::kDouble) - expected).abs().max().item<double>();
    EXPECT_LE(error, 1e-5 * expected.abs().max().item<double>());
  };
  expect_close(y.detach(), y64.detach());
  {
    at::NoGradGuard no_grad;
    EXPECT_TRUE(layer(single).equal(y)) << "without gradients";
  }
  const at::Tensor dy = at::randn(y.sizes()).to(device);
  y.backward(dy);
  y64.backward(dy.to(at::kDouble));
  for (const char* what : {"gradient", "sum of gradients"}) {
    for (size_t i = 0; i < inputs.size(); ++i) {
      SCOPED_TRACE(testing::Message() << what << " of input " << i);
      expect_close(single[i].grad(), twice[i].grad());
    }
    layer(single).backward(dy);
    layer(twice).backward(dy.to(at::kDouble));
  }
}

class FusedLayersTest : public testing::TestWithParam<at::DeviceType> {
 protected:
  void SetUp() override {
    if (GetParam() == at::kCUDA && !at::hasCUDA())
      GTEST_SKIP() << "no GPU in this machine or build";
    at::manual_seed(11);
  }
  void ExpectSame(const Tensors& inputs, const LayerFunction& layer) {
    ExpectSameInBothPrecisions(GetParam(), inputs, layer);
  }
};

INSTANTIATE_TEST_SUITE_P(Devices, FusedLayersTest, testing::Values(at::kCPU, at::kCUDA),
                         [](const auto& info) { return info.param == at::kCPU ? "cpu" : "gpu"; });

TEST_P(FusedLayersTest, LinearPlainAndEnsemble) {
  const auto linear = [](const Tensors& t) { return Linear(t[0], t[1], t[2]); };
  ExpectSame({at::randn({4, 7, 24}), at::randn({101, 24}), at::randn({101})}, linear);
  ExpectSame({at::randn({9, 24}), at::randn({5, 33, 24}), at::randn({5, 33})}, linear);
  ExpectSame({at::randn({5, 9, 24}), at::randn({5, 33, 24}), at::randn({5, 33})}, linear);
}

TEST_P(FusedLayersTest, LinearOfOddWidths) {
  const auto linear = [](const Tensors& t) { return Linear(t[0], t[1], t[2]); };
  ExpectSame({at::randn({4, 7, 51}), at::randn({48, 51}), at::randn({48})}, linear);
  ExpectSame({at::randn({4, 7, 51}), at::randn({1, 51}), at::randn({1})}, linear);
  ExpectSame({at::randn({9, 51}), at::randn({5, 33, 51}), at::randn({5, 33})}, linear);
  ExpectSame({at::randn({5, 9, 51}), at::randn({5, 32, 51}), at::randn({5, 32})}, linear);
}

TEST_P(FusedLayersTest, NormedLinearPlainAndEnsembleWithAndWithoutDropout) {
  for (bool masked : {false, true}) {
    for (const auto& [x, out] : std::vector<std::pair<std::vector<int64_t>, std::vector<int64_t>>>{
             {{3, 7, 24}, {48, 24}},
             {{9, 24}, {5, 48, 24}},
             {{5, 9, 24}, {5, 48, 24}},
             {{5, 9, 51}, {5, 48, 51}},
             {{3, 200, 50}, {512, 50}},
             {{700, 50}, {2, 264, 50}}}) {
      SCOPED_TRACE(testing::Message() << "masked " << masked << " weight " << at::IntArrayRef(out));
      std::vector<int64_t> vector(out.begin(), out.end() - 1);
      std::vector<int64_t> y_shape = x;
      y_shape.back() = vector.back();
      if (out.size() == 3 && x.size() == 2) y_shape.insert(y_shape.begin(), out[0]);
      const at::Tensor mask = masked ? at::bernoulli(at::full(y_shape, 0.8)) / 0.8 : at::Tensor();
      for (Activation activation : {Activation::kMish, Activation::kSimNorm}) {
        ExpectSame({at::randn(x), at::randn(out), at::randn(vector), 1 + 0.1 * at::randn(vector),
                    at::randn(vector)},
                   [&](const Tensors& t) {
                     const at::Tensor m = masked ? mask.to(t[0].options()) : mask;
                     return NormedLinear(t[0], t[1], t[2], t[3], t[4], m, {activation, 8});
                   });
      }
    }
  }
}

// Widths and simplices that do not fall into fours.
TEST_P(FusedLayersTest, NormedLinearOfOddWidths) {
  for (int64_t out : {30, 302, 1000}) {
    for (Activation activation : {Activation::kMish, Activation::kSimNorm}) {
      SCOPED_TRACE(out);
      ExpectSame({at::randn({40, 24}), at::randn({out, 24}), at::randn({out}),
                  1 + 0.1 * at::randn({out}), at::randn({out})},
                 [&](const Tensors& t) {
                   return NormedLinear(t[0], t[1], t[2], t[3], t[4], {}, {activation, 2});
                 });
    }
  }
}

TEST_P(FusedLayersTest, GradientReachesOnlyWhatAsksForIt) {
  const auto options = at::TensorOptions(at::kFloat).device(GetParam());
  const at::Tensor x = at::randn({6, 24}, options).requires_grad_(true);
  const at::Tensor w = at::randn({16, 24}, options), v = at::ones({16}, options);
  NormedLinear(x, w, v, v, v, {}, {}).sum().backward();
  EXPECT_TRUE(x.grad().defined());
  EXPECT_FALSE(w.grad().defined());
}

TEST_P(FusedLayersTest, TwoHotHeads) {
  const Bins bins;
  ExpectSame({at::randn({3, 5, 101})}, [&](const Tensors& t) { return TwoHotDecode(t[0], bins); });
  const at::Tensor target = at::randn({5}) * 20;
  ExpectSame({at::randn({3, 5, 101})}, [&](const Tensors& t) {
    return TwoHotCrossEntropy(t[0], target.to(t[0].options()), bins);
  });
}

}  // namespace
}  // namespace pompc
