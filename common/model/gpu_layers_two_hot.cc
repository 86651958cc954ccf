// Two-hot distributions (gpu_layers.h): decoding and cross-entropy.
#include "common/model/gpu_kernels.h"
#include "common/model/gpu_layers_cuda.h"

namespace pompc {
namespace {

using gpu::AlignedSize;
using gpu::Check;
using gpu::CurrentStream;
using gpu::Data;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

gpu::TwoHotRows RowsOf(const at::Tensor& logits, const Bins& bins) {
  TORCH_CHECK(logits.size(-1) == bins.size || logits.size(-1) == AlignedSize(bins.size),
              logits.size(-1), " logits for ", bins.size, " bins");
  return {logits.numel() / logits.size(-1), bins.size, logits.size(-1), bins.min, bins.max};
}

class DecodeFunction : public torch::autograd::Function<DecodeFunction> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& logits, const Bins& bins) {
    at::Tensor out = at::empty(logits.sizes().slice(0, logits.dim() - 1), logits.options());
    Check(gpu::DecodeForward(RowsOf(logits, bins), Data(logits), out.data_ptr<float>(),
                             CurrentStream()));
    if (ctx != nullptr) {
      ctx->save_for_backward({logits});
      ctx->saved_data["size"] = bins.size;
      ctx->saved_data["min"] = bins.min;
      ctx->saved_data["max"] = bins.max;
    }
    return out;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const at::Tensor logits = ctx->get_saved_variables()[0];
    const Bins bins = {ctx->saved_data["size"].toInt(), ctx->saved_data["min"].toDouble(),
                       ctx->saved_data["max"].toDouble()};
    const at::Tensor dout = grads[0].contiguous();
    at::Tensor dlogits = at::empty_like(logits);
    Check(gpu::DecodeBackward(RowsOf(logits, bins), Data(logits), Data(dout),
                              dlogits.data_ptr<float>(), CurrentStream()));
    return {dlogits, at::Tensor()};
  }
};

class CrossEntropyFunction : public torch::autograd::Function<CrossEntropyFunction> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& logits,
                            const at::Tensor& target, const Bins& bins) {
    at::Tensor loss = at::empty(logits.sizes().slice(0, logits.dim() - 1), logits.options());
    Check(gpu::CrossEntropyForward(RowsOf(logits, bins), Data(logits), Data(target), target.numel(),
                                   loss.data_ptr<float>(), CurrentStream()));
    if (ctx != nullptr) {
      ctx->save_for_backward({logits, target});
      ctx->saved_data["size"] = bins.size;
      ctx->saved_data["min"] = bins.min;
      ctx->saved_data["max"] = bins.max;
    }
    return loss;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const variable_list saved = ctx->get_saved_variables();
    const at::Tensor &logits = saved[0], &target = saved[1];
    const Bins bins = {ctx->saved_data["size"].toInt(), ctx->saved_data["min"].toDouble(),
                       ctx->saved_data["max"].toDouble()};
    const at::Tensor dloss = grads[0].contiguous();
    at::Tensor dlogits = at::empty_like(logits);
    Check(gpu::CrossEntropyBackward(RowsOf(logits, bins), Data(logits), Data(target),
                                    target.numel(), Data(dloss), dlogits.data_ptr<float>(),
                                    CurrentStream()));
    return {dlogits, at::Tensor(), at::Tensor()};
  }
};

}  // namespace

at::Tensor CudaLayers::TwoHotDecode(const at::Tensor& logits, const Bins& bins, bool track) const {
  const at::Tensor dense = logits.contiguous();
  return track ? DecodeFunction::apply(dense, bins) : DecodeFunction::forward(nullptr, dense, bins);
}

at::Tensor CudaLayers::TwoHotCrossEntropy(const at::Tensor& logits, const at::Tensor& target,
                                          const Bins& bins, bool track) const {
  // The kernel repeats a target for all heads in front of it.
  const int64_t skipped = logits.dim() - 1 - target.dim();
  TORCH_CHECK(skipped >= 0 && target.sizes() == logits.sizes().slice(skipped, target.dim()),
              "targets of shape ", target.sizes(), " do not fit logits of ", logits.sizes());
  const at::Tensor dense = logits.contiguous(), targets = target.detach().contiguous();
  return track ? CrossEntropyFunction::apply(dense, targets, bins)
               : CrossEntropyFunction::forward(nullptr, dense, targets, bins);
}

}  // namespace pompc
