#include "common/model/device.h"

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/util/Exception.h>
#include <malloc.h>
#include <stdlib.h>  // setenv

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace pompc {
namespace {

class Silence : public c10::WarningHandler {
  void process(const c10::Warning& /*warning*/) override {}
};

}  // namespace

absl::StatusOr<at::Device> FindDevice(const std::string& field, const std::string& name) {
  // Of a GPU that is there, e.g. that its memory is full.
  bool may_pass = false;
  std::string what;
  try {
    const at::Device device(name);
    if (device.is_cuda() && !at::hasCUDA()) {
      what = "this build has no CUDA, or this machine no GPU";
    } else if (const size_t gpus = device.is_cuda() ? at::getNumGPUs() : 0;
               device.has_index() && device.is_cuda() &&
               static_cast<size_t>(device.index()) >= gpus) {
      what = absl::StrCat("of this machine's GPUs the last is cuda:", gpus - 1);
    } else {
      may_pass = device.is_cuda();
      at::empty({1}, device);
      return device;
    }
  } catch (const std::exception& e) {
    what = e.what();
    what.resize(std::min(what.size(), what.find('\n')));
  }
  what = absl::StrCat(field, ": cannot use \"", name, "\": ", what);
  return may_pass ? absl::UnavailableError(what) : absl::InvalidArgumentError(what);
}

DeviceMemory MemoryOf(at::Device device) {
  if (!device.is_cuda()) return {};
  const auto stats = c10::getDeviceAllocator(device.type())
                         ->getDeviceStats(device.has_index() ? device.index() : 0);
  constexpr auto kAll = static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE);
  return {stats.allocated_bytes[kAll].current, stats.reserved_bytes[kAll].current};
}

void SetCpuThreads(int count) {
  // A thread's first use of LibTorch's threads gives it the count that any thread set last, and
  // would undo what is set here. To ask for the count is such a use; to set it, or
  // init_num_threads(), is not.
  at::get_num_threads();
  at::set_num_threads(count);
}

void SetFloat32Products(v1::MatmulPrecision precision) {
  at::globalContext().setFloat32MatmulPrecision(precision == v1::FP32 ? "highest" : "high");
  // Of the two libraries this chooses better for the small products of an update. LibTorch warns
  // that the choice is an experiment.
  Silence silence;
  const c10::WarningUtils::WarningHandlerGuard guard(&silence);
  at::globalContext().setBlasPreferredBackend(at::BlasBackend::Cublaslt);
}

void SeparateStreams() { setenv("CUDA_DEVICE_MAX_CONNECTIONS", "32", /*overwrite=*/0); }

void KeepFreedMemory() {
  constexpr int kBytes = 1 << 30;
  mallopt(M_MMAP_THRESHOLD, kBytes);  // Larger blocks go back to the kernel when they are freed.
  mallopt(M_TRIM_THRESHOLD, kBytes);  // So does more than this at the end of the heap.
}

}  // namespace pompc
