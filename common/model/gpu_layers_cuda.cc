#include "common/model/gpu_layers_cuda.h"

#include <vector>

#include "common/model/gpu_kernels.h"

namespace pompc {
namespace {

using gpu::AlignedSize;
using gpu::Check;
using gpu::CurrentStream;
using gpu::Data;
using gpu::Optional;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

class TimeMeanFunction : public torch::autograd::Function<TimeMeanFunction> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, const Optional& y,
                            int64_t time_dim, double rho) {
    const gpu::TimeRows rows = RowsOf(x, time_dim, rho);
    at::Tensor out = at::empty({}, x.options());
    at::Tensor scratch = at::empty({gpu::TimeMeanScratchSize(rows)}, x.options());
    Check(gpu::TimeMeanForward(rows, Data(x), Data(y.tensor), out.data_ptr<float>(),
                               scratch.data_ptr<float>(), CurrentStream()));
    ctx->save_for_backward({x, y.tensor});
    ctx->saved_data["time_dim"] = time_dim;
    ctx->saved_data["rho"] = rho;
    return out;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const variable_list saved = ctx->get_saved_variables();
    const at::Tensor& x = saved[0];
    at::Tensor dx = at::empty_like(x);
    Check(gpu::TimeMeanBackward(
        RowsOf(x, ctx->saved_data["time_dim"].toInt(), ctx->saved_data["rho"].toDouble()), Data(x),
        Data(saved[1]), Data(grads[0]), dx.data_ptr<float>(), CurrentStream()));
    return {dx, at::Tensor(), at::Tensor(), at::Tensor()};
  }

 private:
  static gpu::TimeRows RowsOf(const at::Tensor& x, int64_t time_dim, double rho) {
    gpu::TimeRows rows = {1, x.size(time_dim), 1, rho};
    for (int64_t d = 0; d < time_dim; ++d) rows.outer *= x.size(d);
    for (int64_t d = time_dim + 1; d < x.dim(); ++d) rows.inner *= x.size(d);
    return rows;
  }
};

}  // namespace

at::Tensor CudaLayers::TimeMeanOf(const at::Tensor& x, int64_t time_dim, double rho,
                                  const at::Tensor& y) const {
  TORCH_CHECK(!y.defined() || y.sizes() == x.sizes(), "shapes ", x.sizes(), " and ", y.sizes());
  return TimeMeanFunction::apply(
      x.contiguous(), Optional{y.defined() ? y.detach().contiguous() : y}, time_dim, rho);
}

at::Tensor CudaLayers::PercentileRange(const at::Tensor& x) const {
  TORCH_CHECK(x.dim() == 1 && x.size(0) > 0 && x.size(0) <= gpu::kMaxPercentileSize,
              "percentiles of ", x.sizes());
  const at::Tensor dense = x.contiguous();
  at::Tensor range = at::empty({}, x.options());
  Check(gpu::PercentileRange(x.size(0), Data(dense), range.data_ptr<float>(), CurrentStream()));
  return range;
}

at::Tensor CudaLayers::Norm(const at::Tensor& x) const {
  TORCH_CHECK(x.is_contiguous(), "norm of a tensor that is not contiguous");
  at::Tensor norm = at::empty({}, x.options());
  at::Tensor scratch = at::empty({gpu::kNormBlocks}, x.options());
  Check(gpu::Norm(x.numel(), Data(x), norm.data_ptr<float>(), scratch.data_ptr<float>(),
                  CurrentStream()));
  return norm;
}

std::vector<at::Tensor> CudaLayers::SelectHeads(const std::vector<at::Tensor>& tensors,
                                                const at::Tensor& heads) const {
  TORCH_CHECK(tensors.size() <= gpu::kMaxHeadTensors, "too many tensors");
  gpu::HeadTensors table;
  std::vector<at::Tensor> selected;
  for (const at::Tensor& t : tensors) {
    TORCH_CHECK(t.is_contiguous(), "heads are not contiguous");
    std::vector<int64_t> shape = t.sizes().vec();
    shape[0] = 2;
    if (t.dim() == 3) shape[2] = AlignedSize(shape[2]);
    selected.push_back(at::empty(shape, t.options()));
    const int64_t cols = t.size(-1);
    table.tensors[table.count++] = {Data(t), selected.back().data_ptr<float>(),
                                    t.numel() / t.size(0) / cols, cols, shape.back()};
  }
  Check(gpu::SelectHeads(table, heads.const_data_ptr<int64_t>(), CurrentStream()));
  return selected;
}

void CudaLayers::StepAdam(double learning_rate, double epsilon, double clip_norm,
                          const at::Tensor& norm, const at::Tensor& step, const at::Tensor& values,
                          const at::Tensor& grad, const at::Tensor& first_moment,
                          const at::Tensor& second_moment) const {
  TORCH_CHECK(values.numel() % 4 == 0, "Adam: ", values.numel(), " values, no multiple of 4");
  Check(gpu::StepAdam({values.numel(), learning_rate, epsilon, clip_norm}, Data(norm), Data(step),
                      values.data_ptr<float>(), grad.data_ptr<float>(),
                      first_moment.data_ptr<float>(), second_moment.data_ptr<float>(),
                      CurrentStream()));
}

const GpuLayers* FindGpuLayers() {
  static const CudaLayers* const layers = new CudaLayers();
  return layers;
}

}  // namespace pompc
