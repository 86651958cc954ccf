// numpy.random.RandomState (legacy MT19937) draws, bit for bit, for integer seeds.
//
// Source: numpy 1.26 random/src/mt19937/mt19937.c, random/src/legacy/legacy-distributions.c,
//   random/mtrand.pyx (choice). Thread-safety: none. Determinism: the stream depends on the seed
//   and the sequence of calls only; Save() and Load() continue it.
#ifndef POMPC_ACTOR_ENV_RANDOM_STATE_H_
#define POMPC_ACTOR_ENV_RANDOM_STATE_H_

#include <array>
#include <cstdint>
#include <vector>

#include "absl/types/span.h"

namespace pompc::dmc {

class RandomState {
 public:
  // Words that Save() writes: generator, position, cached Gaussian (flag, low half, high half).
  static constexpr size_t kSavedWords = 624 + 1 + 3;

  explicit RandomState(uint32_t seed);

  uint32_t NextWord();                      // Raw 32-bit output.
  double Rand();                            // rand(): uniform in [0, 1) from two words.
  double Uniform(double low, double high);  // uniform(low, high).
  double Randn();                           // randn(): polar method, the second value is cached.
  uint32_t Randint(uint32_t n);             // randint(n), n >= 1.
  int Choice(absl::Span<const double> probabilities);  // choice(p=...); at most 8 alternatives.

  // Fills `out` with consecutive Randn() / Uniform() draws.
  void Randn(absl::Span<double> out);
  void Uniform(double low, double high, absl::Span<double> out);

  void Save(std::vector<uint32_t>* words) const;
  // False, and nothing changes, unless `words` can have come from Save().
  bool Load(absl::Span<const uint32_t> words);

 private:
  std::array<uint32_t, 624> key_;
  uint32_t position_ = 624;
  bool has_gauss_ = false;
  double gauss_ = 0;
};

}  // namespace pompc::dmc

#endif  // POMPC_ACTOR_ENV_RANDOM_STATE_H_
