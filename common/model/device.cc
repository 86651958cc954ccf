#include "common/model/device.h"

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/util/Exception.h>
#include <malloc.h>
#include <stdlib.h>  // setenv

#include "absl/strings/str_cat.h"

namespace pompc {
namespace {

class Silence : public c10::WarningHandler {
  void process(const c10::Warning& /*warning*/) override {}
};

}  // namespace

absl::StatusOr<at::Device> FindDevice(const std::string& field, const std::string& name) {
  const std::string cannot = absl::StrCat(field, ": cannot use \"", name, "\": ");
  bool is_there = false;  // Then what goes wrong may pass, e.g. that its memory is full.
  try {
    const at::Device device(name);
    if (device.is_cuda()) {
      if (!at::hasCUDA()) {
        return absl::InvalidArgumentError(
            absl::StrCat(cannot, "this build has no CUDA, or this machine no GPU"));
      }
      const int gpus = static_cast<int>(at::getNumGPUs());
      if (device.index() >= gpus) {  // -1 if it is not given.
        return absl::InvalidArgumentError(
            absl::StrCat(cannot, "of this machine's GPUs the last is cuda:", gpus - 1));
      }
      is_there = true;
    }
    at::empty({1}, device);
    return device;
  } catch (const std::exception& e) {
    const std::string what = e.what();
    const std::string told = absl::StrCat(cannot, what.substr(0, what.find('\n')));
    return is_there ? absl::UnavailableError(told) : absl::InvalidArgumentError(told);
  }
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
