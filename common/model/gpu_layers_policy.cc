// Gaussian policies (gpu_layers.h): the network's output, actions drawn from it, their log
// probabilities, KL.
#include <vector>

#include "common/model/gpu_kernels.h"
#include "common/model/gpu_layers_cuda.h"

namespace pompc {
namespace {

using gpu::Check;
using gpu::CurrentStream;
using gpu::Data;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

class PolicyFunction : public torch::autograd::Function<PolicyFunction> {
 public:
  static variable_list forward(AutogradContext* ctx, const at::Tensor& output, double low,
                               double half) {
    std::vector<int64_t> shape = output.sizes().vec();
    shape.back() /= 2;
    const variable_list result = {at::empty(shape, output.options()),
                                  at::empty(shape, output.options()),
                                  at::empty(shape, output.options())};
    Check(gpu::PolicyForward(RowsOf(output, low, half), Data(output), result[0].data_ptr<float>(),
                             result[1].data_ptr<float>(), result[2].data_ptr<float>(),
                             CurrentStream()));
    ctx->set_materialize_grads(false);
    ctx->save_for_backward({output});
    ctx->saved_data["low"] = low;
    ctx->saved_data["half"] = half;
    return result;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const at::Tensor output = ctx->get_saved_variables()[0];
    for (at::Tensor& grad : grads) {
      if (grad.defined()) grad = grad.contiguous();
    }
    at::Tensor doutput = at::empty_like(output);
    Check(gpu::PolicyBackward(
        RowsOf(output, ctx->saved_data["low"].toDouble(), ctx->saved_data["half"].toDouble()),
        Data(output), Data(grads[0]), Data(grads[1]), Data(grads[2]), doutput.data_ptr<float>(),
        CurrentStream()));
    return {doutput, at::Tensor(), at::Tensor()};
  }

 private:
  static gpu::PolicyRows RowsOf(const at::Tensor& output, double low, double half) {
    const int64_t action_dim = output.size(-1) / 2;
    return {output.numel() / (2 * action_dim), action_dim, low, half};
  }
};

class SampleFunction : public torch::autograd::Function<SampleFunction> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& centre,
                            const at::Tensor& log_std, const at::Tensor& eps, bool squashed) {
    at::Tensor action = at::empty_like(centre);
    Check(gpu::SampleForward(centre.numel(), squashed, Data(centre), Data(log_std), Data(eps),
                             action.data_ptr<float>(), CurrentStream()));
    ctx->save_for_backward({centre, log_std, eps});
    ctx->saved_data["squashed"] = squashed;
    return action;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const variable_list saved = ctx->get_saved_variables();
    const at::Tensor daction = grads[0].contiguous();
    at::Tensor dcentre = at::empty_like(saved[0]), dlog_std = at::empty_like(saved[1]);
    Check(gpu::SampleBackward(daction.numel(), ctx->saved_data["squashed"].toBool(), Data(saved[0]),
                              Data(saved[1]), Data(saved[2]), Data(daction),
                              dcentre.data_ptr<float>(), dlog_std.data_ptr<float>(),
                              CurrentStream()));
    return {dcentre, dlog_std, at::Tensor(), at::Tensor()};
  }
};

class LogKernelFunction : public torch::autograd::Function<LogKernelFunction> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& eps,
                            const at::Tensor& log_std) {
    at::Tensor out = at::empty(eps.sizes().slice(0, eps.dim() - 1), eps.options());
    Check(gpu::LogKernelForward(out.numel(), eps.size(-1), Data(eps), Data(log_std),
                                out.data_ptr<float>(), CurrentStream()));
    ctx->save_for_backward({eps});
    return out;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const at::Tensor eps = ctx->get_saved_variables()[0];
    const at::Tensor dout = grads[0].contiguous();
    variable_list result(2);
    for (size_t i = 0; i < 2; ++i) {
      if (ctx->needs_input_grad(i)) result[i] = at::empty_like(eps);
    }
    Check(gpu::LogKernelBackward(dout.numel(), eps.size(-1), Data(eps), Data(dout),
                                 result[0].defined() ? result[0].data_ptr<float>() : nullptr,
                                 result[1].defined() ? result[1].data_ptr<float>() : nullptr,
                                 CurrentStream()));
    return result;
  }
};

class SquashCorrectionFunction : public torch::autograd::Function<SquashCorrectionFunction> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& action) {
    at::Tensor out = at::empty(action.sizes().slice(0, action.dim() - 1), action.options());
    Check(gpu::SquashCorrectionForward(out.numel(), action.size(-1), Data(action),
                                       out.data_ptr<float>(), CurrentStream()));
    ctx->save_for_backward({action});
    return out;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const at::Tensor action = ctx->get_saved_variables()[0];
    const at::Tensor dout = grads[0].contiguous();
    at::Tensor daction = at::empty_like(action);
    Check(gpu::SquashCorrectionBackward(dout.numel(), action.size(-1), Data(action), Data(dout),
                                        daction.data_ptr<float>(), CurrentStream()));
    return {daction};
  }
};

class GaussianKlFunction : public torch::autograd::Function<GaussianKlFunction> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& p_mean, const at::Tensor& p_std,
                            const at::Tensor& q_mean, const at::Tensor& q_std) {
    const variable_list parts = {p_mean, p_std, q_mean, q_std};
    at::Tensor kl = at::empty_like(p_mean);
    Check(gpu::GaussianKlForward(PairsOf(parts), kl.data_ptr<float>(), CurrentStream()));
    ctx->save_for_backward(parts);
    return kl;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const variable_list parts = ctx->get_saved_variables();
    const at::Tensor dkl = grads[0].contiguous();
    variable_list result(parts.size());
    for (size_t i = 0; i < parts.size(); ++i) {
      if (ctx->needs_input_grad(i)) result[i] = at::empty_like(parts[i]);
    }
    const auto target = [&](size_t i) {
      return result[i].defined() ? result[i].data_ptr<float>() : nullptr;
    };
    Check(gpu::GaussianKlBackward(PairsOf(parts), Data(dkl),
                                  {target(0), target(1), target(2), target(3)}, CurrentStream()));
    return result;
  }

 private:
  static gpu::GaussianPairs PairsOf(const variable_list& parts) {
    return {parts[0].numel(), Data(parts[0]), Data(parts[1]), Data(parts[2]), Data(parts[3])};
  }
};

}  // namespace

std::array<at::Tensor, 3> CudaLayers::Policy(const at::Tensor& output, LogStdRange range) const {
  const variable_list parts =
      PolicyFunction::apply(output.contiguous(), range.min, 0.5 * (range.max - range.min));
  return {parts[0], parts[1], parts[2]};
}

at::Tensor CudaLayers::Sample(bool squashed, const at::Tensor& centre, const at::Tensor& log_std,
                              const at::Tensor& eps) const {
  TORCH_CHECK(centre.sizes() == eps.sizes() && log_std.sizes() == eps.sizes(), "noise of shape ",
              eps.sizes(), " for a policy of ", centre.sizes());
  return SampleFunction::apply(centre.contiguous(), log_std.contiguous(), eps.detach().contiguous(),
                               squashed);
}

at::Tensor CudaLayers::LogKernel(const at::Tensor& eps, const at::Tensor& log_std) const {
  TORCH_CHECK(eps.sizes() == log_std.sizes(), "noise of shape ", eps.sizes(), " for a log std of ",
              log_std.sizes());
  return LogKernelFunction::apply(eps.contiguous(), log_std.contiguous());
}

at::Tensor CudaLayers::SquashCorrection(const at::Tensor& action) const {
  return SquashCorrectionFunction::apply(action.contiguous());
}

at::Tensor CudaLayers::GaussianKl(const at::Tensor& p_mean, const at::Tensor& p_std,
                                  const at::Tensor& q_mean, const at::Tensor& q_std) const {
  TORCH_CHECK(p_std.sizes() == p_mean.sizes() && q_mean.sizes() == p_mean.sizes() &&
                  q_std.sizes() == p_mean.sizes(),
              "Gaussians of ", p_mean.sizes(), ", ", p_std.sizes(), ", ", q_mean.sizes(), " and ",
              q_std.sizes());
  return GaussianKlFunction::apply(p_mean.contiguous(), p_std.contiguous(), q_mean.contiguous(),
                                   q_std.contiguous());
}

}  // namespace pompc
