#include "common/base/rng.h"

#include <cmath>
#include <numbers>

#include "absl/numeric/int128.h"
#include "common/base/check.h"

namespace pompc {
namespace {

constexpr uint32_t kSeedBlock = std::numeric_limits<uint32_t>::max();  // Never part of a stream.

std::array<uint32_t, 2> Key(uint64_t run_seed) {
  return {static_cast<uint32_t>(run_seed), static_cast<uint32_t>(run_seed >> 32)};
}

std::array<uint32_t, 4> Counter(uint32_t block, RngRole role, uint32_t index, uint64_t step) {
  POMPC_CHECK(index < (1u << 24)) << "index=" << index;
  return {block, (static_cast<uint32_t>(role) << 24) | index, static_cast<uint32_t>(step),
          static_cast<uint32_t>(step >> 32)};
}

}  // namespace

std::array<uint32_t, 4> Philox4x32(std::array<uint32_t, 4> c, std::array<uint32_t, 2> k) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t{0xD2511F53} * c[0];
    const uint64_t p1 = uint64_t{0xCD9E8D57} * c[2];
    c = {static_cast<uint32_t>(p1 >> 32) ^ c[1] ^ k[0], static_cast<uint32_t>(p1),
         static_cast<uint32_t>(p0 >> 32) ^ c[3] ^ k[1], static_cast<uint32_t>(p0)};
    k[0] += 0x9E3779B9;
    k[1] += 0xBB67AE85;
  }
  return c;
}

uint64_t SeedFor(uint64_t run_seed, RngRole role, uint32_t index, uint64_t step) {
  const auto words = Philox4x32(Counter(kSeedBlock, role, index, step), Key(run_seed));
  return (uint64_t{words[1]} << 32) | words[0];
}

Rng::Rng(uint64_t run_seed, RngRole role, uint32_t index, uint64_t step)
    : key_(Key(run_seed)), counter_(Counter(0, role, index, step)) {}

void Rng::Refill() {
  POMPC_CHECK(counter_[0] != kSeedBlock) << "a stream holds 2^34 words";
  words_ = Philox4x32(counter_, key_);
  ++counter_[0];
  used_ = 0;
}

uint32_t Rng::operator()() {
  if (used_ == 4) Refill();
  return words_[used_++];
}

uint64_t Rng::Uint64() {
  const uint64_t low = (*this)();
  return (uint64_t{(*this)()} << 32) | low;
}

double Rng::Uniform() { return static_cast<double>(Uint64() >> 11) * 0x1p-53; }

uint64_t Rng::UniformInt(uint64_t bound) {
  POMPC_CHECK(bound >= 1);
  // Lemire, "Fast random integer generation in an interval" (2019), algorithm 5: the high half of
  // bound * word, refusing the words that would make some values likelier than others.
  const uint64_t threshold = -bound % bound;
  for (;;) {
    const absl::uint128 product = absl::uint128(Uint64()) * bound;
    if (absl::Uint128Low64(product) >= threshold) return absl::Uint128High64(product);
  }
}

double Rng::Normal() {
  const double radius = std::sqrt(-2 * std::log1p(-Uniform()));
  return radius * std::cos(2 * std::numbers::pi * Uniform());
}

void Rng::FillNormal(absl::Span<float> out) {
  constexpr float kTwoPi = 2 * std::numbers::pi_v<float>;
  size_t i = 0;
  while (i < out.size()) {
    Refill();
    used_ = 4;
    for (int pair = 0; pair < 4 && i < out.size(); pair += 2) {
      // (0, 1] and [0, 1) in steps of 2^-24, so that the logarithm is finite.
      const float u = static_cast<float>((words_[pair] >> 8) + 1) * 0x1p-24f;
      const float angle = kTwoPi * static_cast<float>(words_[pair + 1] >> 8) * 0x1p-24f;
      const float radius = std::sqrt(-2 * std::log(u));
      out[i++] = radius * std::cos(angle);
      if (i < out.size()) out[i++] = radius * std::sin(angle);
    }
  }
}

}  // namespace pompc
