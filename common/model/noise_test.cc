#include "common/model/noise.h"

#include <set>

#include "gtest/gtest.h"

namespace pompc {
namespace {

TEST(GeneratorNoiseTest, SeedRestartsEveryKindOfDraw) {
  GeneratorNoise noise(5);
  const auto draw = [&] {
    return std::vector<at::Tensor>{noise.Normal({40}), noise.Heads(5),
                                   noise.Index(at::full({30, 4}, 0.25)),
                                   noise.DropoutMask({50}, 0.5)};
  };
  const std::vector<at::Tensor> first = draw();
  EXPECT_FALSE(at::equal(first[0], draw()[0]));
  noise.Seed(5);
  const std::vector<at::Tensor> again = draw();
  for (size_t i = 0; i < first.size(); ++i) EXPECT_TRUE(at::equal(first[i], again[i])) << i;
}

TEST(GeneratorNoiseTest, FillMakesTheSameDraws) {
  GeneratorNoise noise(5), filling(5);
  const at::Tensor probability = at::rand({30, 4});
  std::array<int64_t, 2> heads;
  std::vector<int64_t> index(30);
  at::Tensor normal = at::empty({7, 9});
  for (int i = 0; i < 3; ++i) {
    filling.FillNormal(normal);
    EXPECT_TRUE(at::equal(noise.Normal({7, 9}), normal));
    filling.FillHeads(5, heads);
    EXPECT_TRUE(at::equal(noise.Heads(5), at::tensor({heads[0], heads[1]}, at::kLong)));
    filling.FillIndex(probability, index);
    EXPECT_TRUE(at::equal(noise.Index(probability), at::tensor(index, at::kLong)));
  }
}

TEST(GeneratorNoiseTest, HeadsAreTwoDifferentOnesAndAllOccur) {
  GeneratorNoise noise(5);
  std::set<int64_t> seen;
  for (int i = 0; i < 50; ++i) {
    const at::Tensor heads = noise.Heads(5);
    ASSERT_EQ(heads.numel(), 2);
    const int64_t a = heads[0].item<int64_t>(), b = heads[1].item<int64_t>();
    EXPECT_NE(a, b);
    seen.insert({a, b});
  }
  EXPECT_EQ(seen, (std::set<int64_t>{0, 1, 2, 3, 4}));
}

TEST(GeneratorNoiseTest, IndexFollowsTheProbabilities) {
  GeneratorNoise noise(5);
  const at::Tensor probability = at::tensor({0.7, 0.3, 0.0}, at::kFloat).expand({20000, 3});
  const at::Tensor index = noise.Index(probability);
  const double share = index.eq(0).to(at::kDouble).mean().item<double>();
  EXPECT_NEAR(share, 0.7, 0.013);  // Four standard errors.
  EXPECT_EQ(index.eq(2).sum().item<int64_t>(), 0);
}

TEST(GeneratorNoiseTest, DropoutKeepsTheMean) {
  GeneratorNoise noise(5);
  const at::Tensor mask = noise.DropoutMask({100000}, 0.2);
  EXPECT_NEAR(mask.mean().item<double>(), 1, 0.0064);  // Four standard errors.
  EXPECT_NEAR(mask.max().item<double>(), 1.25, 1e-6);
  EXPECT_EQ(mask.min().item<double>(), 0);
}

}  // namespace
}  // namespace pompc
