// UpdateNoise: a Noise for updates, which make no draws of planners: those break an invariant.
#ifndef POMPC_LEARNER_CORE_UPDATE_NOISE_H_
#define POMPC_LEARNER_CORE_UPDATE_NOISE_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "common/base/check.h"
#include "common/model/noise.h"

namespace pompc {

class UpdateNoise : public Noise {
 public:
  at::Tensor Index(const at::Tensor& /*probability*/) final {
    Refuse();
    return {};
  }
  void FillIndex(const at::Tensor& /*probability*/, std::vector<int64_t>& /*index*/) final {
    Refuse();
  }
  std::optional<uint64_t> KernelSeed() final {
    Refuse();
    return std::nullopt;
  }

 protected:
  static void Refuse() { POMPC_CHECK(false) << "no such draw in updates"; }
};

}  // namespace pompc

#endif  // POMPC_LEARNER_CORE_UPDATE_NOISE_H_
