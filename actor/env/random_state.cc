#include "actor/env/random_state.h"

#include <cmath>
#include <cstring>

#include "common/base/check.h"

namespace pompc::dmc {

RandomState::RandomState(uint32_t seed) {
  for (uint32_t i = 0; i < key_.size(); ++i) {
    key_[i] = seed;
    seed = 1812433253u * (seed ^ (seed >> 30)) + i + 1;
  }
}

uint32_t RandomState::NextWord() {
  constexpr int kSize = 624;
  constexpr int kShift = 397;
  if (position_ == kSize) {
    for (int i = 0; i < kSize; ++i) {
      const uint32_t y = (key_[i] & 0x80000000u) | (key_[(i + 1) % kSize] & 0x7fffffffu);
      key_[i] = key_[(i + kShift) % kSize] ^ (y >> 1) ^ ((y & 1) ? 0x9908b0dfu : 0u);
    }
    position_ = 0;
  }
  uint32_t y = key_[position_++];
  y ^= y >> 11;
  y ^= (y << 7) & 0x9d2c5680u;
  y ^= (y << 15) & 0xefc60000u;
  return y ^ (y >> 18);
}

double RandomState::Rand() {
  const uint32_t high = NextWord() >> 5;
  const uint32_t low = NextWord() >> 6;
  return (high * 67108864.0 + low) / 9007199254740992.0;
}

double RandomState::Uniform(double low, double high) { return low + (high - low) * Rand(); }

double RandomState::Randn() {
  if (has_gauss_) {
    has_gauss_ = false;
    return gauss_;
  }
  double x1, x2, r2;
  do {
    x1 = 2.0 * Rand() - 1.0;
    x2 = 2.0 * Rand() - 1.0;
    r2 = x1 * x1 + x2 * x2;
  } while (r2 >= 1.0 || r2 == 0.0);
  const double scale = std::sqrt(-2.0 * std::log(r2) / r2);
  gauss_ = scale * x1;
  has_gauss_ = true;
  return scale * x2;
}

uint32_t RandomState::Randint(uint32_t n) {
  const uint32_t max = n - 1;
  if (max == 0) return 0;
  uint32_t mask = max;
  for (int shift = 1; shift < 32; shift *= 2) mask |= mask >> shift;
  uint32_t value;
  do {
    value = NextWord() & mask;
  } while (value > max);
  return value;
}

int RandomState::Choice(absl::Span<const double> probabilities) {
  std::array<double, 8> cumulative{};
  POMPC_CHECK(probabilities.size() <= cumulative.size());
  double sum = 0;
  for (size_t i = 0; i < probabilities.size(); ++i) cumulative[i] = (sum += probabilities[i]);
  const double u = Rand();
  size_t i = 0;
  while (i < probabilities.size() && cumulative[i] / sum <= u) ++i;
  return static_cast<int>(i);
}

void RandomState::Randn(absl::Span<double> out) {
  for (double& x : out) x = Randn();
}

void RandomState::Uniform(double low, double high, absl::Span<double> out) {
  for (double& x : out) x = Uniform(low, high);
}

void RandomState::Save(std::vector<uint32_t>* words) const {
  words->assign(key_.begin(), key_.end());
  uint64_t bits;
  std::memcpy(&bits, &gauss_, sizeof(bits));
  words->insert(words->end(), {position_, has_gauss_ ? 1u : 0u, static_cast<uint32_t>(bits),
                               static_cast<uint32_t>(bits >> 32)});
}

bool RandomState::Load(absl::Span<const uint32_t> words) {
  if (words.size() != kSavedWords || words[624] > 624 || words[625] > 1) return false;
  std::memcpy(key_.data(), words.data(), sizeof(key_));
  position_ = words[624];
  has_gauss_ = words[625] == 1;
  const uint64_t bits = words[626] | (static_cast<uint64_t>(words[627]) << 32);
  std::memcpy(&gauss_, &bits, sizeof(gauss_));
  return true;
}

}  // namespace pompc::dmc
