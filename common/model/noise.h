// Where planner and updates get their random draws from, so that tests can replay recorded ones.
//
// The order of draws is part of the interface of whoever draws (documented at MppiPlanner::Plan and
// Updater::Update): a replayed sequence gives a replayed result.
#ifndef POMPC_COMMON_MODEL_NOISE_H_
#define POMPC_COMMON_MODEL_NOISE_H_

#include <array>
#include <cstdint>
#include <optional>
#include <vector>

#include "common/model/tensor.h"

namespace pompc {

// The Fill functions make the same draws on the CPU, without allocating anything; each stands in
// the sequence for the draw of its name.
//
// Not thread-safe: one Noise a thread.
class Noise {
 public:
  virtual ~Noise() = default;
  // Independent standard normal numbers.
  virtual at::Tensor Normal(at::IntArrayRef shape) = 0;
  // Two different value heads of `num_heads`: int64 [2], on the CPU or on the model's device.
  virtual at::Tensor Heads(int64_t num_heads) = 0;
  // One index a row, drawn with the row's probabilities. probability: [B, E] -> int64 [B].
  virtual at::Tensor Index(const at::Tensor& probability) = 0;
  // float32 `out` of the shape asked for.
  virtual void FillNormal(at::Tensor& out) = 0;
  virtual void FillHeads(int64_t num_heads, std::array<int64_t, 2>& heads) = 0;
  // probability: float32 [B, E], contiguous; index: [B].
  virtual void FillIndex(const at::Tensor& probability, std::vector<int64_t>& index) = 0;
  // Zero with probability `rate` (in (0, 1)), else 1 / (1 - rate).
  virtual at::Tensor DropoutMask(at::IntArrayRef shape, double rate) = 0;
  // A seed for kernels that make all further draws of one plan themselves, in an order of their
  // own; none if the draws are recorded ones that have to be asked for.
  virtual std::optional<uint64_t> KernelSeed() = 0;
};

// Draws from LibTorch's generator of the device, or seeded by it. Equal seeds and calls give equal
// draws.
class GeneratorNoise final : public Noise {
 public:
  explicit GeneratorNoise(uint64_t seed, const at::TensorOptions& options = at::kFloat);

  // Restarts the sequence, e.g. with a seed derived from (run seed, role, index, step).
  void Seed(uint64_t seed);

  at::Tensor Normal(at::IntArrayRef shape) override;
  at::Tensor Heads(int64_t num_heads) override;
  at::Tensor Index(const at::Tensor& probability) override;
  void FillNormal(at::Tensor& out) override;
  void FillHeads(int64_t num_heads, std::array<int64_t, 2>& heads) override;
  void FillIndex(const at::Tensor& probability, std::vector<int64_t>& index) override;
  at::Tensor DropoutMask(at::IntArrayRef shape, double rate) override;
  std::optional<uint64_t> KernelSeed() override;

 private:
  at::TensorOptions options_;
  at::Generator generator_;  // Of the device.
  // Head indices and seeds of kernels, so that drawing them never waits for a device.
  at::Generator host_generator_;
  at::Tensor exponential_;  // Draws of FillIndex.
};

}  // namespace pompc

#endif  // POMPC_COMMON_MODEL_NOISE_H_
