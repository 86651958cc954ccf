#include <c10/cuda/CUDAStream.h>
#include <c10/util/Exception.h>
#include <nccl.h>

#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "common/base/log.h"
#include "learner/core/collective.h"

namespace pompc {
namespace {

ncclDataType_t TypeOf(const at::Tensor& t) {
  TORCH_CHECK(t.scalar_type() == at::kFloat || t.scalar_type() == at::kDouble,
              "no collective for tensors of ", t.scalar_type());
  return t.scalar_type() == at::kFloat ? ncclFloat32 : ncclFloat64;
}

class NcclCollective final : public Collective {
 public:
  NcclCollective(int64_t rank, int64_t size, ncclComm_t communicator)
      : Collective(rank, size), communicator_(communicator) {}
  // What is recorded with it must be freed by now.
  ~NcclCollective() override { ncclCommDestroy(communicator_); }

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

  // ncclCommAbort() did not come back within 20 s where it was tried: a peer was still in NCCL's
  // set-up of its first call.
  void Abort(const absl::Status& reason) override {
    POMPC_LOG(ERROR) << "a rank of the update has failed, which ends the process rank=" << rank()
                     << " status=" << reason;
    std::_Exit(1);
  }

 private:
  template <typename Give>
  void Call(const Give& give) {
    const ncclResult_t result = give(c10::cuda::getCurrentCUDAStream().stream());
    TORCH_CHECK(result == ncclSuccess, "NCCL: ", ncclGetErrorString(result), ": ",
                ncclGetLastError(communicator_));
  }

  const ncclComm_t communicator_;
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
