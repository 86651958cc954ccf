#include "common/model/kernels.h"

#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <vector>

#include "common/base/rng.h"
#include "common/model/tensor.h"

namespace pompc {
namespace {

// Every test runs on each instruction set of this machine, against LibTorch's own operators.
class KernelsTest : public testing::TestWithParam<const KernelTable*> {
 protected:
  void SetUp() override { at::manual_seed(7); }
  const KernelTable& kernels() const { return *GetParam(); }
};

std::vector<const KernelTable*> Tables() {
  int count = 0;
  const KernelTable* const* tables = AllKernels(&count);
  return {tables, tables + count};
}

INSTANTIATE_TEST_SUITE_P(Isa, KernelsTest, testing::ValuesIn(Tables()), [](const auto& info) {
  std::string name = info.param->isa;
  std::erase_if(name, [](char c) { return c == '-' || c == ' '; });
  return name;
});

at::Tensor Random(at::IntArrayRef shape, double scale = 1.0) { return at::randn(shape) * scale; }

void ExpectClose(const at::Tensor& actual, const at::Tensor& expected, double tolerance) {
  const double scale = expected.abs().max().item<double>();
  const double error = (actual - expected).abs().max().item<double>();
  EXPECT_LE(error, tolerance * scale) << "largest error " << error << " of " << scale;
}

at::Tensor ReferenceLayer(const at::Tensor& x, const at::Tensor& gain, const at::Tensor& shift,
                          const at::Tensor& mask, Activation act) {
  const at::Tensor v = at::layer_norm(x * mask, {x.size(-1)}, gain, shift, 1e-5);
  if (act == Activation::kMish) return at::mish(v);
  return at::softmax(v.view({x.size(0), -1, 8}), -1).view(x.sizes());
}

struct Case {
  int64_t rows, cols;
  Activation activation;
  bool masked;
};
const Case kCases[] = {{5, 24, Activation::kMish, false},    {33, 96, Activation::kMish, true},
                       {7, 512, Activation::kMish, false},   {5, 16, Activation::kSimNorm, false},
                       {33, 64, Activation::kSimNorm, true}, {1, 101, Activation::kMish, true}};

TEST_P(KernelsTest, NormalisedLayerMatchesOperatorsForwardAndBackward) {
  for (const Case& c : kCases) {
    SCOPED_TRACE(testing::Message() << c.rows << "x" << c.cols);
    auto leaf = [](const at::Tensor& t) { return t.requires_grad_(true); };
    at::Tensor x = leaf(Random({c.rows, c.cols}, 3.0));
    at::Tensor gain = leaf(1 + Random({c.cols}, 0.1)), shift = leaf(Random({c.cols}));
    at::Tensor mask = c.masked ? at::bernoulli(at::full({c.rows, c.cols}, 0.7)) / 0.7
                               : at::ones({c.rows, c.cols});
    const at::Tensor y = ReferenceLayer(x, gain, shift, mask, c.activation);
    const at::Tensor dy = Random({c.rows, c.cols});
    y.backward(dy);

    const NormActivation layer{c.rows,
                               c.cols,
                               gain.const_data_ptr<float>(),
                               shift.const_data_ptr<float>(),
                               c.masked ? mask.const_data_ptr<float>() : nullptr,
                               c.activation,
                               8};
    at::Tensor out = at::empty({c.rows, c.cols}), statistics = at::empty({c.rows, 2});
    kernels().norm_activation(layer, x.const_data_ptr<float>(), out.data_ptr<float>(),
                              statistics.data_ptr<float>());
    ExpectClose(out, y.detach(), 2e-6);
    at::Tensor dx = at::empty_like(out), dbias = at::empty({c.cols}), dgain = at::empty({c.cols}),
               dshift = at::empty({c.cols});
    kernels().norm_activation_backward(
        layer, x.const_data_ptr<float>(), statistics.const_data_ptr<float>(),
        dy.const_data_ptr<float>(), dx.data_ptr<float>(), dbias.data_ptr<float>(),
        dgain.data_ptr<float>(), dshift.data_ptr<float>());
    ExpectClose(dx, x.grad(), 5e-6);
    ExpectClose(dbias, x.grad().sum(0), 2e-5);
    ExpectClose(dgain, gain.grad(), 5e-6);
    ExpectClose(dshift, shift.grad(), 5e-6);
  }
}

TEST_P(KernelsTest, NormalisesRowsOfAWiderMatrixInPlace) {
  const int64_t rows = 7, cols = 24, stride = 30;
  for (Activation act : {Activation::kMish, Activation::kSimNorm}) {
    const at::Tensor x = Random({rows, cols}), zeros = at::zeros({cols}), ones = at::ones({cols});
    at::Tensor wide = at::full({rows, stride}, 5.0f);
    wide.narrow(1, 0, cols).copy_(x);
    kernels().norm_activation({.rows = rows,
                               .cols = cols,
                               .gain = ones.const_data_ptr<float>(),
                               .shift = zeros.const_data_ptr<float>(),
                               .activation = act,
                               .stride = stride},
                              wide.const_data_ptr<float>(), wide.data_ptr<float>(), nullptr);
    ExpectClose(wide.narrow(1, 0, cols),
                ReferenceLayer(x, ones, zeros, at::ones({rows, cols}), act), 2e-6);
    EXPECT_TRUE(wide.narrow(1, cols, stride - cols).eq(5).all().item<bool>());
  }
}

TEST_P(KernelsTest, PolicyActionMatchesOperators) {
  for (const bool squashed : {false, true}) {
    for (const int64_t output_rows : {1, 9}) {  // One output for all rows, or each its own.
      const int64_t rows = 9, n = 21;
      const at::Tensor output = Random({output_rows, 2 * n}, 2.0), eps = Random({rows, n});
      const at::Tensor m = output.narrow(1, 0, n);
      const at::Tensor noise = eps * (-3 + 2 * (output.narrow(1, n, n).tanh() + 1)).exp();
      const at::Tensor expected = squashed ? at::tanh(m + noise) : (m.tanh() + noise).clamp(-1, 1);
      at::Tensor action = at::zeros({rows, n + 2});
      kernels().policy_action({n, output_rows > 1 ? 2 * n : 0, squashed, -3, 1}, rows,
                              output.const_data_ptr<float>(), eps.const_data_ptr<float>(),
                              action.data_ptr<float>(), n + 2);
      ExpectClose(action.narrow(1, 0, n), expected, 1e-6);
      EXPECT_EQ(action.narrow(1, n, 2).abs().max().item<float>(), 0);
    }
  }
}

TEST_P(KernelsTest, MishIsExactInItsLimits) {
  const std::vector<float> values = {-100.0f, -30.0f, -1e-4f, 0.0f, 1e-4f, 19.9f, 20.1f, 500.0f};
  // LayerNorm of a constant row is zero, so `shift` reaches the activation unchanged.
  const int64_t n = static_cast<int64_t>(values.size());
  const std::vector<float> zeros(n, 0.0f), ones(n, 1.0f);
  std::vector<float> out(n);
  kernels().norm_activation({1, n, ones.data(), values.data()}, zeros.data(), out.data(), nullptr);
  const at::Tensor expected = at::mish(at::tensor(values, at::kDouble)).to(at::kFloat);
  for (int64_t i = 0; i < n; ++i) {
    EXPECT_NEAR(out[i], expected[i].item<float>(), 1e-6f * std::abs(values[i])) << values[i];
  }
}

TEST_P(KernelsTest, NonFiniteInputStaysNonFinite) {
  const std::vector<float> x = {0.5f, NAN, 1.0f, 2.0f, 0.0f, 1.0f, 3.0f, 4.0f};
  const std::vector<float> zeros(8, 0.0f), ones(8, 1.0f);
  for (Activation act : {Activation::kMish, Activation::kSimNorm}) {
    std::vector<float> out(8);
    kernels().norm_activation({1, 8, ones.data(), zeros.data(), nullptr, act}, x.data(), out.data(),
                              nullptr);
    for (float v : out) EXPECT_TRUE(std::isnan(v));
  }
  float decoded = 0;
  kernels().decode(1, 8, -10, 10, x.data(), &decoded);
  EXPECT_TRUE(std::isnan(decoded));
  float loss = 0;
  const float nan_target = NAN;
  kernels().cross_entropy(1, 8, -10, 10, ones.data(), &nan_target, &loss);
  EXPECT_TRUE(std::isnan(loss));
}

TEST_P(KernelsTest, DecodeMatchesOperatorsForwardAndBackward) {
  const int64_t rows = 37, bins = 101;
  at::Tensor logits = Random({rows, bins}, 2.0).requires_grad_(true);
  const at::Tensor expectation = (at::softmax(logits, -1) * at::linspace(-10, 10, bins)).sum(-1);
  const at::Tensor value = expectation.sign() * (expectation.abs().exp() - 1);
  const at::Tensor dvalue = Random({rows});
  value.backward(dvalue);
  at::Tensor out = at::empty({rows}), dlogits = at::empty({rows, bins});
  kernels().decode(rows, bins, -10, 10, logits.const_data_ptr<float>(), out.data_ptr<float>());
  kernels().decode_backward(rows, bins, -10, 10, logits.const_data_ptr<float>(),
                            dvalue.const_data_ptr<float>(), dlogits.data_ptr<float>());
  ExpectClose(out, value.detach(), 1e-5);
  ExpectClose(dlogits, logits.grad(), 1e-5);
}

TEST_P(KernelsTest, CrossEntropyMatchesOperatorsForwardAndBackward) {
  const int64_t bins = 101;
  // Inside, on a bin, at both ends and beyond them.
  const at::Tensor target =
      at::tensor({0.0f, 0.3f, -4.7f, 100.0f, 22025.4658f, 1e6f, -1e6f, -22025.4658f});
  const int64_t rows = target.numel();
  at::Tensor logits = Random({rows, bins}, 2.0).requires_grad_(true);
  const at::Tensor y = (target.sign() * (1 + target.abs()).log()).clamp(-10, 10);
  const at::Tensor position = (y + 10) / (20.0 / (bins - 1));
  const at::Tensor lower = position.floor().to(at::kLong).clamp(0, bins - 1);
  const at::Tensor upper = (position - lower).unsqueeze(-1);
  at::Tensor hot = at::zeros({rows, bins});
  hot.scatter_(1, lower.unsqueeze(-1), 1 - upper);
  hot.scatter_add_(1, ((lower + 1) % bins).unsqueeze(-1), upper);
  const at::Tensor loss = -(hot * at::log_softmax(logits, -1)).sum(-1);
  const at::Tensor dloss = Random({rows});
  loss.backward(dloss);
  at::Tensor out = at::empty({rows}), dlogits = at::empty({rows, bins});
  kernels().cross_entropy(rows, bins, -10, 10, logits.const_data_ptr<float>(),
                          target.const_data_ptr<float>(), out.data_ptr<float>());
  kernels().cross_entropy_backward(rows, bins, -10, 10, logits.const_data_ptr<float>(),
                                   target.const_data_ptr<float>(), dloss.const_data_ptr<float>(),
                                   dlogits.data_ptr<float>());
  ExpectClose(out, loss.detach(), 5e-6);
  ExpectClose(dlogits, logits.grad(), 1e-5);
}

TEST_P(KernelsTest, PackedGemmMatchesOperatorsAtAwkwardSizes) {
  for (const auto& [rows, in, out] : std::vector<std::tuple<int64_t, int64_t, int64_t>>{
           {1, 1, 1}, {3, 33, 31}, {12, 5, 32}, {97, 40, 101}, {200, 130, 65}}) {
    SCOPED_TRACE(testing::Message() << rows << "x" << in << "x" << out);
    const at::Tensor wide = Random({out, in + 3});  // The weight is a slice of wider rows.
    const at::Tensor a = Random({rows, in}), bias = Random({out}), start = Random({rows, out});
    std::vector<float> packed(PackedSize(in, out));
    kernels().pack(wide.const_data_ptr<float>(), 1, in + 3, in, out, packed.data());
    const at::Tensor product = at::mm(a, wide.slice(1, 0, in).t());
    at::Tensor c = at::empty({rows, out});
    kernels().gemm_packed(rows, in, out, a.const_data_ptr<float>(), in, false, packed.data(),
                          bias.const_data_ptr<float>(), 0, c.data_ptr<float>(), out);
    ExpectClose(c, product + bias, 3e-6);
    // The other orders: a transposed, the right side row-major, accumulation into c.
    const at::Tensor a_t = a.t().contiguous(), right = wide.slice(1, 0, in).t().contiguous();
    kernels().pack(right.const_data_ptr<float>(), out, 1, in, out, packed.data());
    c.copy_(start);
    kernels().gemm_packed(rows, in, out, a_t.const_data_ptr<float>(), rows, true, packed.data(),
                          c.const_data_ptr<float>(), out, c.data_ptr<float>(), out);
    ExpectClose(c, product + start, 3e-6);
  }
}

TEST_P(KernelsTest, DropoutMaskIsDrawnByPhilox) {
  const int64_t n = 5003;
  const uint64_t seed = 0x123456789ABCDEF0;
  std::vector<float> mask(n);
  kernels().dropout_mask(seed, 0.25, n, mask.data());
  for (int64_t i = 0; i < n; ++i) {
    // Sixteen blocks at a time, their first words first.
    const uint32_t block = static_cast<uint32_t>(i / 64 * 16 + i % 16);
    const auto words = Philox4x32({block, 0, 0, 0}, {0x9ABCDEF0, 0x12345678});
    ASSERT_EQ(mask[i], words[i % 64 / 16] < 0x40000000 ? 0.0f : static_cast<float>(4.0 / 3)) << i;
  }
}

// x as rows of pairs; its rows must be contiguous.
std::vector<BFloat16Pair> RoundedPairs(const KernelTable& kernels, const at::Tensor& x) {
  std::vector<BFloat16Pair> pairs(x.size(0) * PairsOf(x.size(1)));
  kernels.round_pairs(x.size(0), x.size(1), x.const_data_ptr<float>(), x.stride(0), pairs.data(),
                      PairsOf(x.size(1)));
  return pairs;
}

TEST_P(KernelsTest, PairsAreRoundedLikeBfloat16AndFilledUpWithZero) {
  if (kernels().round_pairs == nullptr) GTEST_SKIP() << "no bfloat16 products";
  for (const int64_t cols : {1, 2, 15, 16, 33}) {
    const at::Tensor x = Random({3, cols + 2}).narrow(1, 1, cols);  // Rows of a wider matrix.
    const std::vector<BFloat16Pair> pairs = RoundedPairs(kernels(), x);
    at::Tensor expected = at::zeros({3, 2 * PairsOf(cols)}, at::kBFloat16);
    expected.narrow(1, 0, cols).copy_(x);
    EXPECT_EQ(std::memcmp(pairs.data(), expected.const_data_ptr(), expected.nbytes()), 0) << cols;
  }
}

TEST_P(KernelsTest, NormalisedLayerRoundsItsResult) {
  if (kernels().round_pairs == nullptr) GTEST_SKIP() << "no bfloat16 products";
  const int64_t rows = 5, cols = 33;
  const at::Tensor x = Random({rows, cols}), ones = at::ones({cols}), y = at::empty({rows, cols});
  std::vector<BFloat16Pair> pairs(rows * PairsOf(cols));
  kernels().norm_activation({.rows = rows,
                             .cols = cols,
                             .gain = ones.const_data_ptr<float>(),
                             .shift = ones.const_data_ptr<float>(),
                             .pairs = pairs.data()},
                            x.const_data_ptr<float>(), y.data_ptr<float>(), nullptr);
  const std::vector<BFloat16Pair> expected = RoundedPairs(kernels(), y);
  EXPECT_EQ(std::memcmp(pairs.data(), expected.data(), expected.size() * sizeof(expected[0])), 0);
}

TEST_P(KernelsTest, PackedGemmOfPairsMultipliesRoundedNumbers) {
  if (kernels().gemm_packed_pairs == nullptr) GTEST_SKIP() << "no bfloat16 products";
  for (const auto& [rows, in, out] : std::vector<std::tuple<int64_t, int64_t, int64_t>>{
           {1, 1, 1}, {3, 33, 31}, {12, 5, 32}, {97, 40, 101}, {200, 130, 65}}) {
    SCOPED_TRACE(testing::Message() << rows << "x" << in << "x" << out);
    const at::Tensor a = Random({rows, in}), weight = Random({out, in}), bias = Random({out});
    const std::vector<BFloat16Pair> a_pairs = RoundedPairs(kernels(), a),
                                    weight_pairs = RoundedPairs(kernels(), weight);
    const int64_t depth = PairsOf(in);
    std::vector<BFloat16Pair> packed(PackedSize(depth, out));
    kernels().pack(weight_pairs.data(), 1, depth, depth, out, packed.data());
    at::Tensor c = at::empty({rows, out});
    kernels().gemm_packed_pairs(rows, depth, out, a_pairs.data(), depth, packed.data(),
                                bias.const_data_ptr<float>(), 0, c.data_ptr<float>(), out);
    const auto rounded = [](const at::Tensor& t) { return t.to(at::kBFloat16).to(at::kFloat); };
    ExpectClose(c, at::mm(rounded(a), rounded(weight).t()) + bias, 3e-6);
  }
}

}  // namespace
}  // namespace pompc
