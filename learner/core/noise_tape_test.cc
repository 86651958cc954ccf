#include "learner/core/noise_tape.h"

#include <vector>

#include "gtest/gtest.h"

namespace pompc {
namespace {

std::vector<at::Tensor> DrawAll(Noise& noise) {
  return {noise.Normal({2, 3}), noise.Heads(5), noise.DropoutMask({40}, 0.25), noise.Normal({4})};
}

TEST(NoiseTapeTest, DrawsWhatItsSourceWouldIntoTheSameMemory) {
  NoiseTape tape(at::kCPU);
  GeneratorNoise source(0), plain(0);
  std::vector<at::Tensor> first;
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    source.Seed(seed);
    plain.Seed(seed);
    tape.Rewind(source);
    for (const auto& [from, to] : tape.Drawn()) to.copy_(from);
    const std::vector<at::Tensor> drawn = DrawAll(tape), expected = DrawAll(plain);
    if (first.empty()) first = drawn;
    for (size_t i = 0; i < drawn.size(); ++i) {
      EXPECT_TRUE(drawn[i].equal(expected[i])) << "seed " << seed << " draw " << i;
      EXPECT_EQ(drawn[i].data_ptr(), first[i].data_ptr());
    }
  }
}

TEST(NoiseTapeDeathTest, RefusesAnotherOrderOfDraws) {
  NoiseTape tape(at::kCPU);
  GeneratorNoise source(0);
  tape.Rewind(source);
  DrawAll(tape);
  tape.Rewind(source);
  EXPECT_DEATH(tape.Heads(5), "another order");
}

}  // namespace
}  // namespace pompc
