#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDAEvent.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <exception>

#include "common/model/branch.h"
#include "common/model/gpu_kernels.h"
#include "learner/core/noise_tape.h"
#include "learner/core/update_graph.h"

namespace pompc {
namespace {

using c10::cuda::CUDAEvent;
using c10::cuda::CUDAStream;

// Runs before the recording. cuBLAS, the allocator and autograd's threads are set up by the second.
constexpr int kEagerRuns = 3;

class CudaUpdateGraph final : public UpdateGraph {
 public:
  CudaUpdateGraph(at::Device device, bool record)
      : record_(record),
        stream_(c10::cuda::getStreamFromPool(/*isHighPriority=*/true, device.index())),
        draws_(c10::cuda::getStreamFromPool(/*isHighPriority=*/true, device.index())),
        branches_(device),
        noise_(device) {}

  at::Tensor Run(const Batch& batch, Noise& noise, const Work& work) override {
    const CUDAStream current = c10::cuda::getCurrentCUDAStream(stream_.device_index());
    CUDAEvent inputs_ready, done;
    {
      // Beside the run before, which the current stream may not have ended yet.
      const c10::cuda::CUDAStreamGuard guard(draws_);
      copied_.block(draws_);
      noise_.Rewind(noise);
      inputs_ready.record(draws_);
    }
    inputs_ready.block(current);
    CopyInputs(batch);
    copied_.record(current);
    if (recorded_) {
      graph_.replay();
      return result_;
    }
    inputs_ready.record(current);
    {
      const c10::cuda::CUDAStreamGuard guard(stream_);
      inputs_ready.block(stream_);
      if (record_ && eager_runs_ == kEagerRuns) {
        Record(work);
      } else {
        result_ = branches_.Run([&] { return work(batch_, noise_); });
        ++eager_runs_;
      }
      done.record(stream_);
    }
    done.block(current);
    if (recorded_) graph_.replay();
    return result_;
  }

 private:
  // To where the work reads them.
  void CopyInputs(const Batch& batch) {
    gpu::MemoryCopies table;
    const auto copy = [&](const at::Tensor& from, const at::Tensor& to) {
      if (table.count < gpu::kMaxCopies && from.device() == to.device() && from.is_contiguous() &&
          from.scalar_type() == to.scalar_type()) {
        table.copies[table.count++] = {from.const_data_ptr(), to.data_ptr(),
                                       static_cast<int64_t>(from.nbytes())};
      } else {
        to.copy_(from, /*non_blocking=*/true);
      }
    };
    if (!batch_.obs.defined()) {
      batch_ = MapBatch(batch, [](const at::Tensor& t) { return t.clone(); });
    } else {
      const std::vector<at::Tensor> from = TensorsOf(batch), to = TensorsOf(batch_);
      for (size_t i = 0; i < to.size(); ++i) copy(from[i], to[i]);
    }
    for (const auto& [from, to] : noise_.Drawn()) copy(from, to);
    C10_CUDA_CHECK(static_cast<cudaError_t>(
        gpu::CopyMemory(table, c10::cuda::getCurrentCUDAStream().stream())));
  }

  void Record(const Work& work) {
    result_ = at::Tensor();
    // Lets other threads, which pin memory or copy, go on meanwhile.
    graph_.capture_begin(/*pool=*/{0, 0}, cudaStreamCaptureModeThreadLocal);
    try {
      result_ = branches_.Run([&] { return work(batch_, noise_); });
      graph_.capture_end();
    } catch (const std::exception& e) {
      TORCH_CHECK(false, "cannot record the update as a CUDA graph: ", e.what());
    }
    recorded_ = true;
  }

  const bool record_;
  // Recording needs one that nobody else uses. Its priority goes with the recorded kernels: plans
  // beside them (learner/service/reanalyzer.h) give way.
  const CUDAStream stream_;
  const CUDAStream draws_;
  CUDAEvent copied_;  // Behind the last copies of draws.
  BranchStreams branches_;
  Batch batch_;
  NoiseTape noise_;
  at::Tensor result_;
  int eager_runs_ = 0;
  bool recorded_ = false;
  at::cuda::CUDAGraph graph_;
};

}  // namespace

std::unique_ptr<UpdateGraph> UpdateGraph::Create(at::Device device, bool record) {
  if (!device.is_cuda()) return nullptr;
  return std::make_unique<CudaUpdateGraph>(device, record);
}

}  // namespace pompc
