// Rng: counter-based random numbers, so that every draw of a run follows from what it is for.
//
// A stream is named by (run seed, role, index, step), e.g. actor 3's planner at decision 1200.
// Equal names give equal numbers on any machine and in any order of use; different names give
// independent streams. There is no state to save: a resumed run names the same streams again.
//
// Source: Philox4x32-10; Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3"
// (SC 2011), table 2. Key = run seed (64 bits). Counter = block (32 bits), role (8) and index (24),
// step (64): the name is the counter, so streams cannot overlap.
// Thread-safety: an Rng belongs to one thread; streams of different names share nothing.
#ifndef POMPC_COMMON_BASE_RNG_H_
#define POMPC_COMMON_BASE_RNG_H_

#include <array>
#include <cstdint>
#include <limits>

#include "absl/types/span.h"

namespace pompc {

// What a stream is for. The number is part of every run's results: never change or reuse one.
enum class RngRole : uint8_t {
  kEnvironment = 1,    // Initial states. index: environment, step: episode.
  kSeedAction = 2,     // Random actions of the seed phase. index: environment, step: decision.
  kPlanner = 3,        // MPPI when acting. index: environment, step: decision.
  kReplaySampler = 4,  // Windows of a batch. index: shard, step: batch.
  kInit = 5,           // Initial parameters. index: network.
  kUpdate = 6,         // Losses and dropout. step: update.
  kReanalyze = 7,      // MPPI when re-planning. step: update.
  kEvaluation = 8,     // Environment and planner of evaluation. index: episode, step: decision.
  kBackoff = 9,        // Jitter of retries. index: process.
  kTest = 255,
};

// One block of the generator: 128 random bits of (key, counter).
std::array<uint32_t, 4> Philox4x32(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key);

// A 64-bit seed for a generator that is not ours (LibTorch's, MuJoCo's task code). It is no draw of
// the Rng of the same name. index < 2^24.
uint64_t SeedFor(uint64_t run_seed, RngRole role, uint32_t index, uint64_t step);

// A stream of up to 2^34 32-bit words. Satisfies UniformRandomBitGenerator, but the distributions
// of <random> differ between standard libraries: prefer the members below.
class Rng {
 public:
  using result_type = uint32_t;
  static constexpr result_type min() { return 0; }
  static constexpr result_type max() { return std::numeric_limits<result_type>::max(); }

  // index < 2^24.
  Rng(uint64_t run_seed, RngRole role, uint32_t index, uint64_t step);

  uint32_t operator()();
  uint64_t Uint64();
  // In [0, 1), a multiple of 2^-53.
  double Uniform();
  // In [low, high).
  double Uniform(double low, double high) { return low + (high - low) * Uniform(); }
  // In [0, bound), each value equally likely. bound >= 1.
  uint64_t UniformInt(uint64_t bound);
  // Standard normal (Box-Muller).
  double Normal();
  // Independent standard normals, in float32; takes whole blocks of the stream. About 10 ns each.
  void FillNormal(absl::Span<float> out);

 private:
  void Refill();

  std::array<uint32_t, 2> key_;
  std::array<uint32_t, 4> counter_;
  std::array<uint32_t, 4> words_;
  int used_ = 4;  // Of words_.
};

}  // namespace pompc

#endif  // POMPC_COMMON_BASE_RNG_H_
