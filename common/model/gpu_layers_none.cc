// Of builds without CUDA.
#include "common/model/gpu_layers.h"

namespace pompc {

const GpuLayers* FindGpuLayers() { return nullptr; }

}  // namespace pompc
