// NoiseTape: the draws of a computation that is repeated with the same shapes, at the same
// addresses each time, as a CUDA graph needs them.
//
// The first run records which draws are made; before each later one Rewind() makes all of them
// again, in the same order, and whoever then copies them puts them into the same memory. So the
// sequence of draws from the source is that of the computation without a tape, and they can be made
// while the run before still reads its own.
//
// Thread-safety: none.
#ifndef POMPC_LEARNER_CORE_NOISE_TAPE_H_
#define POMPC_LEARNER_CORE_NOISE_TAPE_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "common/model/tensor.h"
#include "learner/core/update_noise.h"

namespace pompc {

class NoiseTape final : public UpdateNoise {
 public:
  explicit NoiseTape(at::Device device) : device_(device) {}

  // Before each run of the computation, with the source of its draws.
  void Rewind(Noise& source);
  // What has to be copied before the run: the draws, and where the computation finds them.
  std::vector<std::pair<at::Tensor, at::Tensor>> Drawn() const;

  at::Tensor Normal(at::IntArrayRef shape) override;
  at::Tensor Heads(int64_t num_heads) override;  // On the device.
  at::Tensor DropoutMask(at::IntArrayRef shape, double rate) override;
  // Only a source is asked to fill.
  void FillNormal(at::Tensor& out) override;
  void FillHeads(int64_t num_heads, std::array<int64_t, 2>& heads) override;

 private:
  struct Draw {
    enum Kind { kNormal, kHeads, kMask } kind;
    int64_t num_heads;
    double rate;
    at::Tensor value;
    at::Tensor drawn = {};  // For the next run.
  };
  // The next draw of the tape, recorded from `first` in the first run.
  at::Tensor Next(const Draw& first);

  const at::Device device_;
  std::vector<Draw> draws_;
  Noise* source_ = nullptr;  // While recording.
  size_t next_ = 0;
};

}  // namespace pompc

#endif  // POMPC_LEARNER_CORE_NOISE_TAPE_H_
