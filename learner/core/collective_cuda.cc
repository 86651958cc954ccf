#include <c10/cuda/CUDAStream.h>
#include <c10/util/Exception.h>
#include <nccl.h>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "common/base/clock.h"
#include "learner/core/collective.h"

namespace pompc {
namespace {

// To give an update takes a millisecond, to record one less than a second. What takes this long
// waits for a rank that may not come.
constexpr absl::Duration kStuck = absl::Seconds(3);

ncclDataType_t TypeOf(const at::Tensor& t) {
  TORCH_CHECK(t.scalar_type() == at::kFloat || t.scalar_type() == at::kDouble,
              "no collective for tensors of ", t.scalar_type());
  return t.scalar_type() == at::kFloat ? ncclFloat32 : ncclFloat64;
}

class NcclCollective final : public Collective {
 public:
  NcclCollective(int64_t rank, int64_t size, ncclComm_t communicator)
      : Collective(rank, size), communicator_(communicator) {}
  // What is recorded with it must be freed by now, or never if it was aborted: freeing reads it.
  ~NcclCollective() override {
    if (!aborted_) ncclCommDestroy(communicator_);
  }

  void Mean(const at::Tensor& t) override {
    TORCH_CHECK(t.is_contiguous());
    Call([&](cudaStream_t stream) {
      return ncclAllReduce(t.const_data_ptr(), t.data_ptr(), static_cast<size_t>(t.numel()),
                           TypeOf(t), ncclAvg, communicator_, stream);
    });
  }

  at::Tensor Gather(const at::Tensor& t) override {
    const at::Tensor from = t.contiguous();
    std::vector<int64_t> shape = from.sizes().vec();
    shape[0] *= size();
    at::Tensor gathered = at::empty(shape, from.options());
    Call([&](cudaStream_t stream) {
      return ncclAllGather(from.const_data_ptr(), gathered.data_ptr(),
                           static_cast<size_t>(from.numel()), TypeOf(from), communicator_, stream);
    });
    return gathered;
  }

  void Abort() override {
    {
      absl::MutexLock lock(&mu_);
      if (aborted_) return;
      aborted_ = true;
      // NCCL frees the communicator, so nobody may be about to use it; who is stuck in a call is
      // not.
      const auto idle = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) { return giving_ == 0; };
      RealClock()->AwaitUntil(&mu_, absl::Condition(&idle), RealClock()->Now() + kStuck);
    }
    ncclCommAbort(communicator_);
  }

 private:
  void Begin() override {
    absl::MutexLock lock(&mu_);
    CheckAborted();
    ++giving_;
  }
  void End() override {
    absl::MutexLock lock(&mu_);
    --giving_;
  }

  void CheckAborted() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    TORCH_CHECK(!aborted_, "another rank of the update has failed");
  }

  template <typename Give>
  void Call(const Give& give) {
    const Giving giving(this);
    const ncclResult_t result = give(c10::cuda::getCurrentCUDAStream().stream());
    absl::MutexLock lock(&mu_);
    CheckAborted();
    TORCH_CHECK(result == ncclSuccess, "NCCL: ", ncclGetErrorString(result), ": ",
                ncclGetLastError(communicator_));
  }

  const ncclComm_t communicator_;
  absl::Mutex mu_;
  bool aborted_ ABSL_GUARDED_BY(mu_) = false;
  int giving_ ABSL_GUARDED_BY(mu_) = 0;
};

}  // namespace

absl::StatusOr<std::vector<std::unique_ptr<Collective>>> MakeGpuCollectives(
    const std::vector<at::Device>& devices) {
  std::vector<int> indices;
  for (const at::Device& device : devices) indices.push_back(device.index());
  std::vector<ncclComm_t> communicators(devices.size());
  const ncclResult_t made =
      ncclCommInitAll(communicators.data(), static_cast<int>(indices.size()), indices.data());
  if (made != ncclSuccess) {
    return absl::InternalError(
        absl::StrCat("cannot connect ", devices.size(), " GPUs from ", devices[0].str(),
                     " on: NCCL: ", ncclGetErrorString(made), ": ", ncclGetLastError(nullptr)));
  }
  std::vector<std::unique_ptr<Collective>> collectives;
  for (size_t rank = 0; rank < devices.size(); ++rank) {
    collectives.push_back(std::make_unique<NcclCollective>(
        static_cast<int64_t>(rank), static_cast<int64_t>(devices.size()), communicators[rank]));
  }
  return collectives;
}

}  // namespace pompc
