// The kernels of plans on a GPU, each by itself against LibTorch's operators. Skipped without a
// GPU.
//
// Tolerances: float32 sums of a few hundred terms in another order, 1e-5 of the largest number;
// bfloat16 rounds factors and results to 2^-8.
#include "common/planner/plan_kernels.h"

#include <c10/cuda/CUDAStream.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "common/model/fused_layers.h"
#include "common/planner/fused_layer.h"
#include "common/planner/graph_plan_testing.h"
#include "common/planner/mppi_planner.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace pompc {
namespace {

cudaStream_t Current() { return c10::cuda::getCurrentCUDAStream().stream(); }

bool OnHopper() {
  int device = 0, major = 0;
  cudaGetDevice(&device);
  cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
  return major == 9;
}

using PlanKernelsTest = GpuTest;

TEST_F(PlanKernelsTest, NormalisesRows) {
  // Few rows, and so many that a warp takes two.
  for (const auto& [rows, group] : {std::pair<int64_t, int64_t>{42, 7}, {8448, 8}}) {
    for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
      for (const int64_t width : {64, 256, 512, 640, 1536}) {
        for (const bool simnorm : {false, true}) {
          SCOPED_TRACE(testing::Message() << rows << " rows, " << type << " width " << width
                                          << " simnorm " << simnorm);
          // Rows of a wider matrix, in groups with a bias each, three of which have a gain; every
          // group is written behind 2 other rows.
          const at::Tensor wide = (3 * Normal({rows, width + 8})).to(type);
          const at::Tensor x = wide.narrow(1, 8, width);
          const at::Tensor bias = Normal({rows / group, width}),
                           gain = Normal({rows / group / 3, width}),
                           shift = Normal({rows / group / 3, width});
          const at::Tensor y =
              at::zeros({rows / group * (group + 2), width + 16}, gpu_.dtype(type));
          NormArgs args;
          args.bfloat16 = type == at::kBFloat16;
          args.simnorm = simnorm;
          args.rows = static_cast<int>(rows);
          args.width = static_cast<int>(width);
          args.x = x.data_ptr();
          args.x_stride = x.stride(0);
          args.y = y.data_ptr();
          args.y_stride = y.stride(0);
          args.to = {static_cast<int>(group), static_cast<int>(group) + 2, 2};
          args.bias = bias.const_data_ptr<float>();
          args.bias_groups = {static_cast<int>(group), bias.stride(0)};
          args.gain = gain.const_data_ptr<float>();
          args.shift = shift.const_data_ptr<float>();
          args.norm_groups = {static_cast<int>(3 * group), gain.stride(0)};
          ASSERT_EQ(Normalise(args, Current()), cudaSuccess);

          const at::Tensor product = x.to(at::kFloat) + bias.repeat_interleave(group, 0);
          at::Tensor expected =
              at::layer_norm(product, {width}) * gain.repeat_interleave(3 * group, 0) +
              shift.repeat_interleave(3 * group, 0);
          expected = simnorm ? at::softmax(expected.view({rows, -1, 8}), -1).view({rows, width})
                             : at::mish(expected);
          const at::Tensor groups = y.view({rows / group, group + 2, -1});
          const at::Tensor actual =
              groups.narrow(1, 2, group).narrow(2, 0, width).reshape({rows, width});
          // Rounding to bfloat16 is off by up to 2^-8 of the number.
          const double largest = expected.abs().max().item<double>();
          const double rounding = type == at::kFloat ? 0 : std::ldexp(largest, -8);
          EXPECT_LE(MaxError(actual, expected), 2e-6 * std::max(10.0, largest) + rounding);
          EXPECT_EQ(groups.narrow(1, 0, 2).abs().max().item<float>(), 0);
          EXPECT_EQ(y.narrow(1, width, 16).abs().max().item<float>(), 0);
        }
      }
    }
  }
}

TEST_F(PlanKernelsTest, RefusedLaunchesAreErrors) {
  RefitArgs args = {};  // Of no observations: a grid without blocks.
  const cudaError_t error = RefitElites(args, Current());
  EXPECT_NE(error, cudaSuccess);
  EXPECT_EQ(cudaGetLastError(), error);  // And nobody else finds it.
}

TEST_F(PlanKernelsTest, DecodesDiscountedSums) {
  const Bins bins;
  const at::Tensor logits = 3 * Normal({3 * 50, 104}), bias = Normal({3, 101});
  const at::Tensor base = Normal({60}), out = at::zeros({60}, gpu_);
  DecodeArgs args = {};
  args.logits = logits.const_data_ptr<float>();
  args.stride = 104;
  args.bins = 101;
  args.bin_min = -10;
  args.bin_max = 10;
  args.bias = bias.const_data_ptr<float>();
  args.bias_stride = 101;
  args.rows = 50;
  args.terms = 3;
  args.scale = 0.5f;
  args.ratio = 0.9f;
  args.base = base.const_data_ptr<float>();
  args.out = out.data_ptr<float>();
  args.to = {5, 6, 1};
  ASSERT_EQ(DecodeSum(args, Current()), cudaSuccess);
  const at::Tensor terms =
      TwoHotDecode(logits.view({3, 50, 104}).narrow(2, 0, 101) + bias.view({3, 1, 101}), bins);
  const at::Tensor sum = 0.5 * (terms[0] + 0.9 * terms[1] + 0.81 * terms[2]);
  const at::Tensor expected = base.view({10, 6}).narrow(1, 1, 5) + sum.view({10, 5});
  EXPECT_LE(MaxError(out.view({10, 6}).narrow(1, 1, 5), expected),
            1e-5 * expected.abs().max().item<double>());
}

// Layers as one kernel, of views of wider matrices: rows that do not fill a tile, and so many that
// a cluster takes several; inputs that do not fill a stage.
TEST_F(PlanKernelsTest, FusesLayers) {
  if (!OnHopper()) GTEST_SKIP() << "this GPU is no Hopper";
  ASSERT_TRUE(SupportsFusedLayer(512, 512)) << "on all of it, not a part";
  struct Shape {
    int64_t rows, in, width, heads;
    bool same_input, simnorm, leaves_room = false;
  };
  for (const Shape& s :
       {Shape{1, 512, 512, 1, true, false}, Shape{700, 552, 512, 1, true, false},
        Shape{20000, 512, 512, 1, true, true}, Shape{700, 40, 512, 1, true, false},
        Shape{9001, 552, 512, 2, true, false}, Shape{700, 8, 256, 1, true, true},
        Shape{9001, 512, 512, 2, false, false}, Shape{9001, 256, 256, 2, false, false},
        Shape{30000, 136, 256, 1, true, true}, Shape{20000, 512, 512, 1, true, true, true},
        Shape{9001, 512, 512, 2, false, false, true}}) {
    SCOPED_TRACE(testing::Message()
                 << s.heads << " heads " << s.rows << " x " << s.in << " -> " << s.width
                 << " simnorm " << s.simnorm << " leaves room " << s.leaves_room);
    const at::Tensor x = Normal({s.same_input ? 1 : s.heads, s.rows, s.in + 16})
                             .to(at::kBFloat16)
                             .narrow(2, 8, s.in);
    const at::Tensor weight = (Normal({s.heads, s.width + 3, s.in + 8}) * 0.1)
                                  .to(at::kBFloat16)
                                  .narrow(1, 1, s.width)
                                  .narrow(2, 8, s.in);
    const at::Tensor bias = Normal({s.heads, s.width}), gain = Normal({s.heads, s.width}),
                     shift = Normal({s.heads, s.width});
    const at::Tensor y = at::zeros({s.heads * s.rows + 1, s.width + 8}, x.options());
    FusedLayerArgs args;
    args.norm.bfloat16 = true;
    args.norm.simnorm = s.simnorm;
    args.norm.rows = static_cast<int>(s.heads * s.rows);
    args.norm.width = static_cast<int>(s.width);
    args.norm.y = y.data_ptr();
    args.norm.y_stride = y.stride(0);
    args.norm.bias = bias.const_data_ptr<float>();
    args.norm.gain = gain.const_data_ptr<float>();
    args.norm.shift = shift.const_data_ptr<float>();
    args.norm.bias_groups = args.norm.norm_groups = {static_cast<int>(s.rows), s.width};
    args.heads = static_cast<int>(s.heads);
    args.in = static_cast<int>(s.in);
    args.x = x.data_ptr();
    args.x_stride = x.stride(1);
    args.x_head_stride = s.same_input ? 0 : x.stride(0);
    args.weight = weight.data_ptr();
    args.weight_stride = weight.stride(1);
    args.weight_head_stride = weight.stride(0);
    args.leaves_room = s.leaves_room;
    ASSERT_EQ(FusedLayer(args, Current()), cudaSuccess);

    const at::Tensor product =
        at::matmul(x.to(at::kFloat), weight.to(at::kFloat).transpose(1, 2)) + bias.unsqueeze(1);
    at::Tensor expected =
        at::layer_norm(product, {s.width}) * gain.unsqueeze(1) + shift.unsqueeze(1);
    expected =
        s.simnorm ? at::softmax(expected.unflatten(2, {-1, 8}), -1).flatten(2) : at::mish(expected);
    const double largest = expected.abs().max().item<double>();
    EXPECT_LE(
        MaxError(y.narrow(0, 0, s.heads * s.rows).narrow(1, 0, s.width), expected.flatten(0, 1)),
        std::ldexp(largest, -8));
    EXPECT_EQ(y.narrow(1, s.width, 8).abs().max().item<float>(), 0);
    EXPECT_EQ(y[s.heads * s.rows].abs().max().item<float>(), 0);
  }
}

// Biases of groups of rows, which are written behind two others; what is not finite stays in its
// row. All 40 inputs are in one stage, so warps may run far apart; hence again and again.
TEST_F(PlanKernelsTest, FusesLayersOfGroups) {
  if (!OnHopper()) GTEST_SKIP() << "this GPU is no Hopper";
  ASSERT_TRUE(SupportsFusedLayer(512, 512)) << "on all of it, not a part";
  constexpr int64_t kGroups = 300, kRows = 86, kIn = 40, kWidth = 512;
  const at::Tensor x = Normal({kGroups * kRows, kIn}).to(at::kBFloat16),
                   weight = Normal({kWidth, kIn}).to(at::kBFloat16);
  x[100][3].fill_(kInfinity);
  const at::Tensor bias = Normal({kGroups, kWidth}), gain = Normal({kWidth}),
                   shift = Normal({kWidth});
  const at::Tensor y = at::zeros({kGroups * (kRows + 2), kWidth}, x.options());
  FusedLayerArgs args;
  args.norm.bfloat16 = true;
  args.norm.rows = kGroups * kRows;
  args.norm.width = kWidth;
  args.norm.y = y.data_ptr();
  args.norm.y_stride = kWidth;
  args.norm.to = {kRows, kRows + 2, 2};
  args.norm.bias = bias.const_data_ptr<float>();
  args.norm.bias_groups = {kRows, kWidth};
  args.norm.gain = gain.const_data_ptr<float>();
  args.norm.shift = shift.const_data_ptr<float>();
  args.in = kIn;
  args.x = x.data_ptr();
  args.x_stride = kIn;
  args.weight = weight.data_ptr();
  args.weight_stride = kIn;
  for (int i = 0; i < 300; ++i) ASSERT_EQ(FusedLayer(args, Current()), cudaSuccess);

  const at::Tensor product =
      at::matmul(x.to(at::kFloat), weight.to(at::kFloat).t()) + bias.repeat_interleave(kRows, 0);
  const at::Tensor expected = at::mish(at::layer_norm(product, {kWidth}) * gain + shift);
  const at::Tensor groups = y.view({kGroups, kRows + 2, kWidth});
  const at::Tensor actual = groups.narrow(1, 2, kRows).reshape({-1, kWidth});
  EXPECT_TRUE(at::isnan(actual[100]).all().item<bool>());
  const at::Tensor finite = at::isfinite(expected);
  EXPECT_EQ(finite.logical_not().sum().item<int64_t>(), kWidth);
  EXPECT_LE(MaxError(actual.masked_select(finite), expected.masked_select(finite)),
            std::ldexp(expected.masked_select(finite).abs().max().item<double>(), -8));
  EXPECT_EQ(groups.narrow(1, 0, 2).abs().max().item<float>(), 0);
}

TEST_F(PlanKernelsTest, DecodesLogitsThatAreNotStored) {
  if (!OnHopper()) GTEST_SKIP() << "this GPU is no Hopper";
  ASSERT_TRUE(SupportsFusedDecode(512)) << "on all of it, not a part";
  const Bins bins;
  for (const auto& [rows, terms] : {std::pair<int64_t, int>{50, 3}, {30000, 3}, {30000, 1}}) {
    SCOPED_TRACE(testing::Message() << terms << " x " << rows);
    const at::Tensor x = Normal({terms, rows, 520}).to(at::kBFloat16).narrow(2, 0, 512),
                     weight = (Normal({104, 512}) * 0.1).to(at::kBFloat16), bias = Normal({101});
    const at::Tensor base = Normal({rows / 5 * 6}), out = at::zeros_like(base);
    FusedDecodeArgs args = {};
    args.decode.bins = 101;
    args.decode.bin_min = -10;
    args.decode.bin_max = 10;
    args.decode.bias = bias.const_data_ptr<float>();
    args.decode.rows = static_cast<int>(rows);
    args.decode.terms = terms;
    args.decode.scale = 0.5f;
    args.decode.ratio = 0.9f;
    args.decode.base = base.const_data_ptr<float>();
    args.decode.out = out.data_ptr<float>();
    args.decode.to = {5, 6, 1};
    args.in = 512;
    args.x = x.data_ptr();
    args.x_stride = x.stride(1);
    args.x_term_stride = x.stride(0);
    args.weight = weight.data_ptr();
    args.weight_stride = 512;
    args.weight_rows = 104;
    ASSERT_EQ(FusedDecode(args, Current()), cudaSuccess);
    const at::Tensor values = TwoHotDecode(
        at::matmul(x.to(at::kFloat), weight.narrow(0, 0, 101).to(at::kFloat).t()) + bias, bins);
    at::Tensor expected = base.view({rows / 5, 6}).narrow(1, 1, 5).clone();
    for (int t = 0; t < terms; ++t) {
      expected += 0.5 * std::pow(0.9, t) * values[t].view({rows / 5, 5});
    }
    EXPECT_LE(MaxError(out.view({rows / 5, 6}).narrow(1, 1, 5), expected),
              1e-4 * expected.abs().max().item<double>());
    EXPECT_EQ(out.view({rows / 5, 6}).select(1, 0).abs().max().item<float>(), 0);
  }
}

TEST_F(PlanKernelsTest, DrawsCandidates) {
  const int64_t batch = 3, sequences = 300, proposals = 20, horizon = 2, latent = 16;
  const int64_t candidates = sequences - proposals;
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
    for (const int64_t action : {1, 6, 7}) {
      SCOPED_TRACE(testing::Message() << type << " action " << action);
      const at::TensorOptions typed = gpu_.dtype(type);
      PlanControl control;
      control.seed = 3;
      const at::Tensor bytes = at::empty({sizeof(control)}, at::kByte);
      std::memcpy(bytes.data_ptr(), &control, sizeof(control));
      const at::Tensor on_gpu = bytes.to(at::kCUDA);
      const at::Tensor mean = at::tanh(Normal({batch, horizon, action})) * 0.5,
                       std = at::full_like(mean, 0.05);
      const at::Tensor exact = at::full({batch, sequences, horizon, action}, 7, gpu_);
      const at::Tensor first = at::full({2 * candidates, 8}, 7, typed),
                       later = at::full({horizon - 1, 2 * candidates, latent + 8}, 7, typed);
      SampleArgs args = {};
      args.control = static_cast<const PlanControl*>(on_gpu.const_data_ptr());
      args.mean = mean.const_data_ptr<float>();
      args.std = std.const_data_ptr<float>();
      args.out = {type == at::kBFloat16, exact.data_ptr<float>(),
                  first.data_ptr(),      8,
                  later.data_ptr(),      latent + 8};
      args.first_observation = 1;
      args.observations = 2;
      args.horizon = horizon;
      args.action = static_cast<int>(action);
      args.latent = latent;
      args.sequences = sequences;
      args.proposals = proposals;
      ASSERT_EQ(SampleCandidates(args, Current()), cudaSuccess);

      EXPECT_TRUE((exact[0] == 7).all().item<bool>());
      EXPECT_TRUE((exact.narrow(1, 0, proposals) == 7).all().item<bool>());
      const at::Tensor drawn = exact.narrow(0, 1, 2).narrow(1, proposals, candidates);
      const at::Tensor eps = (drawn - mean.narrow(0, 1, 2).unsqueeze(1)) / 0.05;
      EXPECT_NEAR(eps.mean().item<double>(), 0, 0.15);
      EXPECT_NEAR(eps.std().item<double>(), 1, 0.1);
      const at::Tensor inputs = drawn.flatten(0, 1).to(type);
      EXPECT_TRUE(at::equal(first.narrow(1, 0, action), inputs.select(1, 0)));
      EXPECT_TRUE(at::equal(later[0].narrow(1, latent, action), inputs.select(1, 1)));
      EXPECT_TRUE((later.narrow(2, 0, latent) == 7).all().item<bool>());
      // Up to a multiple of four, columns are written: with what weights of 0 ignore.
      const int64_t padding = (action + 3) / 4 * 4 - action;
      EXPECT_TRUE((first.narrow(1, action, padding) == 0).all().item<bool>());
      EXPECT_TRUE(
          (first.narrow(1, action + padding, 8 - action - padding) == 7).all().item<bool>());
    }
  }
}

TEST_F(PlanKernelsTest, RefitsLikeTheOperators) {
  for (const int64_t sequences : {40, 512, 3000}) {
    SCOPED_TRACE(sequences);
    const int64_t batch = 3, horizon = 3, action = 38;
    v1::PlannerConfig config;
    config.set_num_samples(static_cast<int>(sequences));
    config.set_num_elites(static_cast<int>(std::min<int64_t>(64, sequences)));
    at::Tensor value = 4 * Normal({batch, sequences});
    value.select(1, 7).copy_(value.select(1, 8));  // Equal values.
    value[0].narrow(0, 2, 3).fill_(std::nanf(""));
    value[1][5].fill_(kInfinity);
    value[2].fill_(-kInfinity);
    const at::Tensor actions = Normal({batch, sequences, horizon, action});
    actions[0][2].fill_(std::nanf(""));  // Of a rejected sequence.
    const at::Tensor mean = at::zeros({batch, horizon, action}, gpu_), std = mean.clone();
    const at::Tensor result = at::zeros({batch, 4 * action + 1}, gpu_);
    const at::Tensor counts = at::zeros({2}, gpu_.dtype(at::kInt));
    const at::Tensor control = at::zeros({sizeof(PlanControl)}, gpu_.dtype(at::kByte));
    float* out = result.data_ptr<float>();
    RefitArgs args = {};
    args.control = static_cast<const PlanControl*>(control.const_data_ptr());
    args.value = value.const_data_ptr<float>();
    args.actions = actions.const_data_ptr<float>();
    args.mean = mean.data_ptr<float>();
    args.std = std.data_ptr<float>();
    args.counts = counts.data_ptr<int32_t>();
    args.observations = static_cast<int>(batch);
    args.sequences = static_cast<int>(sequences);
    args.elites = config.num_elites();
    args.horizon = static_cast<int>(horizon);
    args.action = static_cast<int>(action);
    args.inverse_temperature = 0.5f;
    args.min_std = 0.05f;
    args.max_std = 2;
    args.last = true;
    args.result_action = out;
    args.result_elite = out + batch * action;
    args.result_mean = out + 2 * batch * action;
    args.result_std = out + 3 * batch * action;
    args.result_value = out + 4 * batch * action;
    ASSERT_EQ(RefitElites(args, Current()), cudaSuccess);

    const at::Tensor rejected = at::isfinite(value).logical_not();
    const Refit expected = RefitToElites(value.masked_fill(rejected, -kInfinity),
                                         actions.permute({0, 2, 1, 3}), config);
    EXPECT_LE(MaxError(mean.narrow(0, 0, 2), expected.mean.narrow(0, 0, 2)), 1e-5);
    EXPECT_LE(MaxError(std.narrow(0, 0, 2), expected.std.narrow(0, 0, 2)), 1e-5);
    EXPECT_EQ(counts[0].item<int>(), rejected.sum().item<int64_t>());
    EXPECT_EQ(counts[1].item<int>(), 1);
    for (int64_t b = 0; b < 2; ++b) {
      // The drawn elite is one of them, and its value its own.
      const at::Tensor elite = result.flatten().narrow(0, (batch + b) * action, action);
      const at::Tensor found = (expected.elite_actions[b][0] == elite).all(-1);
      ASSERT_GE(found.sum().item<int64_t>(), 1);
      EXPECT_EQ((expected.elite_value[b].masked_select(found)[0]).item<float>(),
                result.flatten()[4 * batch * action + b].item<float>());
    }
  }
}

}  // namespace
}  // namespace pompc
