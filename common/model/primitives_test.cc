// The scalar functions and single layers against recorded values and gradients of the references.
//
// Tolerances: 10 times what an independent re-implementation needs (README.md of the fixtures).
#include <algorithm>

#include "common/model/algorithm_fixture.h"
#include "common/model/fused_layers.h"
#include "common/model/math.h"

namespace pompc {
namespace {

const Bins kBins = {101, -10, 10};

class PrimitivesTest : public testing::TestWithParam<std::string> {
 protected:
  const AlgorithmFixture fixture_{GetParam()};
  const double value_tolerance_ = fixture_.is_double() ? 1e-13 : 1e-5;
  const double gradient_tolerance_ = fixture_.is_double() ? 1e-13 : 1.1e-4;

  at::Tensor Leaf(const std::string& key) const {
    return fixture_[key].clone().set_requires_grad(true);
  }
};

INSTANTIATE_TEST_SUITE_P(Fixtures, PrimitivesTest, testing::ValuesIn(FixtureCases("_primitives_")),
                         [](const auto& info) { return info.param; });

TEST_P(PrimitivesTest, DecodesTwoHot) {
  EXPECT_TRUE(Close(TwoHotDecode(fixture_["two_hot_inv/logits"], kBins), fixture_["two_hot_inv/y"],
                    value_tolerance_));
}

TEST_P(PrimitivesTest, CrossEntropyAndItsGradient) {
  at::Tensor logits = Leaf("soft_ce/logits");
  const at::Tensor loss = TwoHotCrossEntropy(logits, fixture_["soft_ce/target"].squeeze(-1), kBins);
  EXPECT_TRUE(Close(loss, fixture_["soft_ce/loss"], value_tolerance_));
  loss.mean().backward();
  EXPECT_TRUE(Close(logits.grad(), fixture_["soft_ce/grad_of_mean"], gradient_tolerance_));
}

// The gradient at equal logits is 1/K minus the two-hot row.
TEST_P(PrimitivesTest, TwoHotRows) {
  at::Tensor logits = at::zeros_like(fixture_["two_hot/y"]).set_requires_grad(true);
  TwoHotCrossEntropy(logits, fixture_["two_hot/x"].squeeze(-1), kBins).sum().backward();
  EXPECT_TRUE(Close(1.0 / 101 - logits.grad(), fixture_["two_hot/y"], gradient_tolerance_));
}

TEST_P(PrimitivesTest, NormedLayersAndTheirGradients) {
  for (const std::string name : {"normed_linear_mish/", "normed_linear_simnorm/"}) {
    SCOPED_TRACE(name);
    const bool mish = name == "normed_linear_mish/";
    at::Tensor x = Leaf(name + "x"), weight = Leaf(name + "p.weight"), bias = Leaf(name + "p.bias"),
               gain = Leaf(name + "p.ln.weight"), shift = Leaf(name + "p.ln.bias");
    const at::Tensor y =
        NormedLinear(x, weight, bias, gain, shift, {},
                     {mish ? Activation::kMish : Activation::kSimNorm, /*simnorm_dim=*/8});
    EXPECT_TRUE(Close(y, fixture_[name + "y"], value_tolerance_));
    (fixture_[name + "w"] * y).sum().backward();
    EXPECT_TRUE(Close(x.grad(), fixture_[name + "grad_x"], gradient_tolerance_));
    EXPECT_TRUE(Close(weight.grad(), fixture_[name + "grad_p.weight"], gradient_tolerance_));
    EXPECT_TRUE(Close(bias.grad(), fixture_[name + "grad_p.bias"], gradient_tolerance_));
    EXPECT_TRUE(Close(gain.grad(), fixture_[name + "grad_p.ln.weight"], gradient_tolerance_));
    EXPECT_TRUE(Close(shift.grad(), fixture_[name + "grad_p.ln.bias"], gradient_tolerance_));
  }
}

TEST_P(PrimitivesTest, LogStd) {
  const auto range = [&](const std::string& which) {
    return LogStdRange{fixture_["log_std/" + which + "min"].item<double>(),
                       fixture_["log_std/" + which + "max"].item<double>()};
  };
  EXPECT_TRUE(
      Close(LogStd(fixture_["log_std/x"], range("")), fixture_["log_std/y"], value_tolerance_));
  if (fixture_.Has("log_std/y_expl")) {
    EXPECT_TRUE(Close(LogStd(fixture_["log_std/x"], range("expl_")), fixture_["log_std/y_expl"],
                      value_tolerance_));
  }
}

TEST_P(PrimitivesTest, GaussianAndSquashedLogProbabilities) {
  for (const std::string size : {"a3/", "a21/"}) {
    SCOPED_TRACE(size);
    const at::Tensor eps = fixture_["gaussian_logprob/" + size + "eps"];
    const at::Tensor log_std = fixture_["gaussian_logprob/" + size + "log_std"];
    const at::Tensor expected = fixture_["gaussian_logprob/" + size + "y"];
    const bool scaled = fixture_.algorithm() == "tdmpc_square";
    if (scaled) {
      EXPECT_TRUE(Close(ScaledGaussianLogProb(eps, log_std), expected, value_tolerance_));
    } else {
      // These references round log(2 pi)/2 to float32, which is off by 1.6e-8 a dimension.
      const double rounding = 2e-8 * static_cast<double>(eps.size(-1));
      EXPECT_TRUE(CloseAbsolute(GaussianLogProb(eps, log_std), expected,
                                std::max(rounding, fixture_.is_double() ? 0 : 1e-3)));
    }
    const at::Tensor action = at::tanh(fixture_["squash/" + size + "pi"]);
    EXPECT_TRUE(Close(action, fixture_["squash/" + size + "pi_out"], value_tolerance_));
    EXPECT_TRUE(Close(fixture_["squash/" + size + "log_pi"].squeeze(-1) - SquashCorrection(action),
                      fixture_["squash/" + size + "log_pi_out"], value_tolerance_));
  }
}

class KlTest : public PrimitivesTest {};

INSTANTIATE_TEST_SUITE_P(Fixtures, KlTest, testing::ValuesIn(FixtureCases("bmpc_primitives_")),
                         [](const auto& info) { return info.param; });

TEST_P(KlTest, GaussianKlAndItsGradient) {
  for (const std::string size : {"kl_div/a3/", "kl_div/a21/"}) {
    SCOPED_TRACE(size);
    at::Tensor p = Leaf(size + "p");
    const auto halves = p.chunk(2, -1), q = fixture_[size + "q"].chunk(2, -1);
    const at::Tensor kl = GaussianKl(halves[0], halves[1], q[0], q[1]);
    EXPECT_TRUE(Close(kl, fixture_[size + "y"], value_tolerance_));
    kl.mean(-1).sum().backward();
    EXPECT_TRUE(Close(p.grad(), fixture_[size + "grad_p"], gradient_tolerance_));
  }
}

TEST_P(PrimitivesTest, PercentileRange) {
  for (const std::string size : {"running_scale/b8/", "running_scale/b256/"}) {
    const at::Tensor x = fixture_[size + "x"], percentiles = fixture_[size + "percentiles"];
    for (int64_t i = 0; i < x.size(0); ++i) {
      const at::Tensor range = (percentiles[i][1] - percentiles[i][0]).clamp_min(1);
      EXPECT_TRUE(Close(PercentileRange(x[i].squeeze(-1)), range, value_tolerance_));
    }
  }
}

class SampleIndexTest : public PrimitivesTest {};

INSTANTIATE_TEST_SUITE_P(Fixtures, SampleIndexTest,
                         testing::ValuesIn(FixtureCases("(bmpc|tdmpc2)_primitives_")),
                         [](const auto& info) { return info.param; });

TEST_P(SampleIndexTest, ByExponentialDraws) {
  EXPECT_TRUE(at::equal(SampleIndex(fixture_["gumbel/p"], fixture_["gumbel/exp"]),
                        fixture_["gumbel/index"]));
}

TEST_P(PrimitivesTest, Discount) {
  const at::Tensor lengths = fixture_["discount/episode_length"];
  for (int64_t i = 0; i < lengths.numel(); ++i) {
    EXPECT_NEAR(Discount(lengths[i].item<double>(), {5, 0.95, 0.995}),
                fixture_["discount/value"][i].item<double>(), 1e-15);
  }
}

}  // namespace
}  // namespace pompc
