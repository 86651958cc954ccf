#include "learner/core/rank_noise.h"

#include <array>

#include "gtest/gtest.h"

namespace pompc {
namespace {

constexpr int64_t kRanks = 3, kWindows = 2, kSteps = 4;

// All draws of one update of a rank, as the update makes them or as a tape repeats them.
struct Draws {
  at::Tensor normal, mask;
  std::array<int64_t, 2> heads;
};

Draws DrawAll(Noise& noise, int64_t windows, bool repeated) {
  Draws draws;
  draws.normal = at::empty({kSteps, windows, 5});
  if (repeated) {
    noise.FillNormal(draws.normal);
    noise.FillHeads(5, draws.heads);
  } else {
    draws.normal = noise.Normal(draws.normal.sizes());
    const at::Tensor heads = noise.Heads(5);
    draws.heads = {heads[0].item<int64_t>(), heads[1].item<int64_t>()};
  }
  draws.mask = noise.DropoutMask({3, kSteps * windows, 6}, 0.5);
  return draws;
}

TEST(RankNoiseTest, RanksTogetherDrawWhatOneDrawsForTheWholeBatch) {
  for (const bool repeated : {false, true}) {
    GeneratorNoise whole(7);
    const Draws expected = DrawAll(whole, kRanks * kWindows, repeated);
    const at::Tensor mask = expected.mask.view({3, kSteps, kRanks * kWindows, 6});
    for (int64_t rank = 0; rank < kRanks; ++rank) {
      GeneratorNoise source(7);
      RankNoise noise(&source, rank, kRanks, kWindows);
      const Draws drawn = DrawAll(noise, kWindows, repeated);
      const int64_t first = rank * kWindows;
      EXPECT_TRUE(at::equal(drawn.normal, expected.normal.narrow(1, first, kWindows)));
      EXPECT_TRUE(
          at::equal(drawn.mask.view({3, kSteps, kWindows, 6}), mask.narrow(2, first, kWindows)));
      EXPECT_EQ(drawn.heads, expected.heads);
      EXPECT_TRUE(drawn.mask.is_contiguous());
    }
  }
}

}  // namespace
}  // namespace pompc
