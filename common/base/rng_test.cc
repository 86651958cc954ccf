#include "common/base/rng.h"

#include <cmath>
#include <set>
#include <vector>

#include "gtest/gtest.h"

namespace pompc {
namespace {

using Words = std::array<uint32_t, 4>;

// Known answers of Random123 1.09, tests/kat_vectors, "philox4x32 10".
TEST(PhiloxTest, MatchesPublishedVectors) {
  EXPECT_EQ(Philox4x32({0, 0, 0, 0}, {0, 0}),
            (Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(Philox4x32({0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}, {0xffffffff, 0xffffffff}),
            (Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(Philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(RngTest, StreamIsTheCounterNamedByItsArguments) {
  Rng rng(0x0123456789abcdef, RngRole::kPlanner, 5, 0x1122334455667788);
  for (uint32_t block = 0; block < 3; ++block) {
    const Words want =
        Philox4x32({block, (3u << 24) | 5, 0x55667788, 0x11223344}, {0x89abcdef, 0x01234567});
    for (uint32_t word : want) EXPECT_EQ(rng(), word);
  }
}

TEST(RngTest, EveryPartOfTheNameSelectsAnotherStream) {
  std::set<uint64_t> seen;
  for (uint64_t seed : {1ull, 2ull, 1ull << 40}) {
    for (RngRole role : {RngRole::kPlanner, RngRole::kUpdate}) {
      for (uint32_t index : {0u, 1u, (1u << 24) - 1}) {
        for (uint64_t step : {0ull, 1ull, 1ull << 40}) {
          seen.insert(Rng(seed, role, index, step).Uint64());
          seen.insert(SeedFor(seed, role, index, step));
        }
      }
    }
  }
  EXPECT_EQ(seen.size(), 2u * 3 * 2 * 3 * 3);
}

TEST(RngTest, UniformStaysInRangeWithTheRightMoments) {
  Rng rng(1, RngRole::kTest, 0, 0);
  constexpr int kDraws = 100'000;
  double sum = 0, squares = 0;
  for (int i = 0; i < kDraws; ++i) {
    const double u = rng.Uniform();
    ASSERT_GE(u, 0);
    ASSERT_LT(u, 1);
    sum += u;
    squares += u * u;
  }
  EXPECT_NEAR(sum / kDraws, 0.5, 0.004);          // 4 standard errors.
  EXPECT_NEAR(squares / kDraws, 1.0 / 3, 0.004);  // Likewise.
  EXPECT_GE(rng.Uniform(-3, -2), -3);
  EXPECT_LT(rng.Uniform(-3, -2), -2);
}

TEST(RngTest, UniformIntIsUnbiasedWhereTruncationWouldNotBe) {
  // Of [0, 3 * 2^62) a 64-bit word modulo the bound would fall into the lowest third half the time.
  Rng rng(1, RngRole::kTest, 1, 0);
  constexpr uint64_t kBound = 3ull << 62;
  constexpr int kDraws = 30'000;
  int low = 0;
  for (int i = 0; i < kDraws; ++i) {
    const uint64_t n = rng.UniformInt(kBound);
    ASSERT_LT(n, kBound);
    low += n < kBound / 3;
  }
  EXPECT_NEAR(low / double{kDraws}, 1.0 / 3, 0.012);
  for (int i = 0; i < 100; ++i) EXPECT_EQ(rng.UniformInt(1), 0u);
}

template <typename Draw>
void ExpectStandardNormal(Draw draw) {
  constexpr int kDraws = 200'000;
  double m1 = 0, m2 = 0, m4 = 0;
  int beyond_two = 0;
  for (int i = 0; i < kDraws; ++i) {
    const double x = draw(i);
    ASSERT_TRUE(std::isfinite(x));
    m1 += x;
    m2 += x * x;
    m4 += x * x * x * x;
    beyond_two += std::abs(x) > 2;
  }
  EXPECT_NEAR(m1 / kDraws, 0, 0.009);  // 4 standard errors, as all of these.
  EXPECT_NEAR(m2 / kDraws, 1, 0.013);
  EXPECT_NEAR(m4 / kDraws, 3, 0.09);
  EXPECT_NEAR(beyond_two / double{kDraws}, 0.0455, 0.002);
}

TEST(RngTest, NormalHasNormalMoments) {
  Rng rng(1, RngRole::kTest, 2, 0);
  ExpectStandardNormal([&](int) { return rng.Normal(); });
}

TEST(RngTest, FillNormalHasNormalMoments) {
  Rng rng(1, RngRole::kTest, 3, 0);
  std::vector<float> values(200'000);
  rng.FillNormal(absl::MakeSpan(values));
  ExpectStandardNormal([&](int i) { return values[i]; });
}

TEST(RngTest, FillNormalRepeatsForAnyLengthOfTheSameStream) {
  std::vector<float> full(64);
  Rng(9, RngRole::kTest, 0, 0).FillNormal(absl::MakeSpan(full));
  for (size_t n = 1; n < full.size(); ++n) {
    std::vector<float> part(n);
    Rng(9, RngRole::kTest, 0, 0).FillNormal(absl::MakeSpan(part));
    EXPECT_TRUE(std::equal(part.begin(), part.end(), full.begin())) << n;
  }
}

}  // namespace
}  // namespace pompc
