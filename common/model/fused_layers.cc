#include "common/model/fused_layers.h"

#include <utility>
#include <vector>

#include "common/model/gpu_layers.h"

namespace pompc {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

thread_local int operators_only = 0;  // How many OperatorsOnly live.

bool OnKernels(const at::Tensor& t) {
  return t.device().is_cpu() && t.scalar_type() == at::kFloat && KernelsInUse();
}

bool NeedsGradient(std::initializer_list<at::Tensor> inputs) {
  if (!at::GradMode::is_enabled()) return false;
  for (const at::Tensor& t : inputs) {
    if (t.defined() && t.requires_grad()) return true;
  }
  return false;
}

const float* Data(const at::Tensor& t) { return t.const_data_ptr<float>(); }

// Packed operands live as long as their thread: no allocation once the sizes have been seen.
float* Scratch(int64_t size) {
  thread_local std::vector<float> buffer;
  if (static_cast<int64_t>(buffer.size()) < size) buffer.resize(size);
  return buffer.data();
}

// A layer's product over Q heads: one view of the shapes for plain layers (Q = 1) and ensembles.
struct Product {
  int64_t heads, rows, in, out;
  bool shared;  // One x for all heads.

  Product(const at::Tensor& x, const at::Tensor& weight)
      : heads(weight.dim() == 3 ? weight.size(0) : 1),
        in(weight.size(-1)),
        out(weight.size(-2)),
        shared(weight.dim() == 2 || x.dim() == 2) {
    TORCH_CHECK(x.size(-1) == in, "layer input has ", x.size(-1), " features, weight ", in);
    rows = x.numel() / in / (shared ? 1 : heads);
  }

  at::Tensor MakeOutput(const at::Tensor& x, const at::Tensor& weight) const {
    std::vector<int64_t> shape = x.sizes().vec();
    if (weight.dim() == 3 && shared) shape.insert(shape.begin(), heads);
    shape.back() = out;
    return at::empty(shape, x.options());
  }

  const float* HeadInput(const at::Tensor& x, int64_t q) const {
    return Data(x) + (shared ? 0 : q * rows * in);
  }

  // y[q] = bias[q] + x[q] W[q]^T.
  void Forward(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
               float* y) const {
    float* packed = Scratch(PackedSize(in, out));
    for (int64_t q = 0; q < heads; ++q) {
      Kernels().pack(Data(weight) + q * out * in, 1, in, in, out, packed);
      Kernels().gemm_packed(rows, in, out, HeadInput(x, q), in, false, packed, Data(bias) + q * out,
                            0, y + q * rows * out, out);
    }
  }

  // From du [Q, rows, out]: gradients of x and weight, each when asked for.
  void Backward(const at::Tensor& x, const at::Tensor& weight, const float* du, at::Tensor* dx,
                at::Tensor* dweight) const {
    float* packed = Scratch(std::max(PackedSize(out, in), PackedSize(rows, in)));
    if (dx->defined()) dx->zero_();
    if (dweight->defined()) dweight->zero_();
    for (int64_t q = 0; q < heads; ++q) {
      const float* du_q = du + q * rows * out;
      if (dx->defined()) {
        float* out_x = dx->data_ptr<float>() + (shared ? 0 : q * rows * in);
        Kernels().pack(Data(weight) + q * out * in, in, 1, out, in, packed);
        Kernels().gemm_packed(rows, out, in, du_q, out, false, packed, out_x, in, out_x, in);
      }
      if (dweight->defined()) {
        float* out_w = dweight->data_ptr<float>() + q * out * in;
        Kernels().pack(HeadInput(x, q), in, 1, rows, in, packed);
        Kernels().gemm_packed(out, rows, in, du_q, out, true, packed, out_w, in, out_w, in);
      }
    }
  }
};

class LinearFunction : public torch::autograd::Function<LinearFunction> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, const at::Tensor& weight,
                            const at::Tensor& bias) {
    const Product product(x, weight);
    at::Tensor y = product.MakeOutput(x, weight);
    product.Forward(x, weight, bias, y.data_ptr<float>());
    if (ctx != nullptr) ctx->save_for_backward({x, weight});
    return y;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const variable_list saved = ctx->get_saved_variables();
    const at::Tensor &x = saved[0], &weight = saved[1];
    const Product product(x, weight);
    const at::Tensor dy = grads[0].contiguous();
    at::Tensor dx, dweight, dbias;
    if (ctx->needs_input_grad(0)) dx = at::empty_like(x);
    if (ctx->needs_input_grad(1)) dweight = at::empty_like(weight);
    product.Backward(x, weight, Data(dy), &dx, &dweight);
    if (ctx->needs_input_grad(2)) {
      dbias = dy.reshape({product.heads, product.rows, product.out}).sum(1);
      if (weight.dim() == 2) dbias = dbias.squeeze(0);
    }
    return {dx, dweight, dbias};
  }
};

NormActivation KernelLayer(const Product& product, const NormedLinearOptions& options, int64_t q,
                           const at::Tensor& gain, const at::Tensor& shift,
                           const at::Tensor& mask) {
  return {product.rows,
          product.out,
          Data(gain) + q * product.out,
          Data(shift) + q * product.out,
          mask.defined() ? Data(mask) + q * product.rows * product.out : nullptr,
          options.activation,
          options.simnorm_dim};
}

// Autograd takes no undefined tensor as an input, so an absent mask travels inside a struct.
struct Dropout {
  at::Tensor mask;
};

class NormedLinearFunction : public torch::autograd::Function<NormedLinearFunction> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, const at::Tensor& weight,
                            const at::Tensor& bias, const at::Tensor& gain, const at::Tensor& shift,
                            const Dropout& dropout, const NormedLinearOptions& options) {
    const at::Tensor& mask = dropout.mask;
    const Product product(x, weight);
    at::Tensor y = product.MakeOutput(x, weight);
    // Without a backward to come, the product is normalised in place.
    at::Tensor u = ctx != nullptr ? at::empty_like(y) : y;
    at::Tensor statistics;
    if (ctx != nullptr) statistics = at::empty({product.heads, product.rows, 2}, x.options());
    product.Forward(x, weight, bias, u.data_ptr<float>());
    const int64_t stride = product.rows * product.out;
    for (int64_t q = 0; q < product.heads; ++q) {
      Kernels().norm_activation(
          KernelLayer(product, options, q, gain, shift, mask), Data(u) + q * stride,
          y.data_ptr<float>() + q * stride,
          ctx != nullptr ? statistics.data_ptr<float>() + q * product.rows * 2 : nullptr);
    }
    if (ctx != nullptr) {
      ctx->save_for_backward({x, weight, bias, gain, shift, mask, u, statistics});
      ctx->saved_data["activation"] = static_cast<int64_t>(options.activation);
      ctx->saved_data["simnorm_dim"] = options.simnorm_dim;
    }
    return y;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const variable_list saved = ctx->get_saved_variables();
    const at::Tensor &x = saved[0], &weight = saved[1], &bias = saved[2], &gain = saved[3],
                     &shift = saved[4], &mask = saved[5], &u = saved[6], &statistics = saved[7];
    const NormedLinearOptions options = {
        static_cast<Activation>(ctx->saved_data["activation"].toInt()),
        ctx->saved_data["simnorm_dim"].toInt()};
    const Product product(x, weight);
    const at::Tensor dy = grads[0].contiguous();
    at::Tensor du = at::empty_like(u), dbias = at::empty_like(bias), dgain = at::empty_like(gain),
               dshift = at::empty_like(shift);
    const int64_t stride = product.rows * product.out;
    for (int64_t q = 0; q < product.heads; ++q) {
      Kernels().norm_activation_backward(
          KernelLayer(product, options, q, gain, shift, mask), Data(u) + q * stride,
          Data(statistics) + q * product.rows * 2, Data(dy) + q * stride,
          du.data_ptr<float>() + q * stride, dbias.data_ptr<float>() + q * product.out,
          dgain.data_ptr<float>() + q * product.out, dshift.data_ptr<float>() + q * product.out);
    }
    at::Tensor dx, dweight;
    if (ctx->needs_input_grad(0)) dx = at::empty_like(x);
    if (ctx->needs_input_grad(1)) dweight = at::empty_like(weight);
    product.Backward(x, weight, Data(du), &dx, &dweight);
    return {dx, dweight, dbias, dgain, dshift, at::Tensor(), at::Tensor()};
  }
};

// Decode and cross entropy share their shape: rows of K logits to one number each.
class DecodeFunction : public torch::autograd::Function<DecodeFunction> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& logits, const Bins& bins) {
    at::Tensor out = at::empty(logits.sizes().slice(0, logits.dim() - 1), logits.options());
    Kernels().decode(out.numel(), bins.size, bins.min, bins.max, Data(logits),
                     out.data_ptr<float>());
    if (ctx != nullptr) {
      ctx->save_for_backward({logits});
      ctx->saved_data["min"] = bins.min;
      ctx->saved_data["max"] = bins.max;
    }
    return out;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const at::Tensor logits = ctx->get_saved_variables()[0];
    const at::Tensor dout = grads[0].contiguous();
    at::Tensor dlogits = at::empty_like(logits);
    Kernels().decode_backward(dout.numel(), logits.size(-1), ctx->saved_data["min"].toDouble(),
                              ctx->saved_data["max"].toDouble(), Data(logits), Data(dout),
                              dlogits.data_ptr<float>());
    return {dlogits, at::Tensor()};
  }
};

class CrossEntropyFunction : public torch::autograd::Function<CrossEntropyFunction> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& logits,
                            const at::Tensor& target, const Bins& bins) {
    at::Tensor loss = at::empty_like(target);
    Kernels().cross_entropy(loss.numel(), bins.size, bins.min, bins.max, Data(logits), Data(target),
                            loss.data_ptr<float>());
    if (ctx != nullptr) {
      ctx->save_for_backward({logits, target});
      ctx->saved_data["min"] = bins.min;
      ctx->saved_data["max"] = bins.max;
    }
    return loss;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const variable_list saved = ctx->get_saved_variables();
    const at::Tensor &logits = saved[0], &target = saved[1];
    const at::Tensor dloss = grads[0].contiguous();
    at::Tensor dlogits = at::empty_like(logits);
    Kernels().cross_entropy_backward(target.numel(), logits.size(-1),
                                     ctx->saved_data["min"].toDouble(),
                                     ctx->saved_data["max"].toDouble(), Data(logits), Data(target),
                                     Data(dloss), dlogits.data_ptr<float>());
    return {dlogits, at::Tensor(), at::Tensor()};
  }
};

// A per-head vector [Q, out] beside [Q, rows, out]; a plain one as it is.
at::Tensor PerHead(const at::Tensor& vector) {
  return vector.dim() == 2 ? vector.unsqueeze(1) : vector;
}

}  // namespace

OperatorsOnly::OperatorsOnly() { ++operators_only; }
OperatorsOnly::~OperatorsOnly() { --operators_only; }
bool KernelsInUse() { return operators_only == 0; }

const GpuLayers* GpuLayersOf(const at::Tensor& t) {
  const bool fits = t.is_cuda() && t.scalar_type() == at::kFloat && KernelsInUse();
  return fits ? FindGpuLayers() : nullptr;
}

at::Tensor Linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  if (const GpuLayers* gpu = GpuLayersOf(x)) {
    return gpu->Linear(x, weight, bias, /*wide=*/false, NeedsGradient({x, weight, bias}));
  }
  if (!OnKernels(x)) {
    if (weight.dim() == 2) return at::linear(x, weight, bias);
    return at::matmul(x, weight.transpose(-1, -2)) + PerHead(bias);
  }
  const at::Tensor dense = x.contiguous();
  if (!NeedsGradient({x, weight, bias})) {
    return LinearFunction::forward(nullptr, dense, weight, bias);
  }
  return LinearFunction::apply(dense, weight, bias);
}

at::Tensor TwoHotLogits(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  if (const GpuLayers* gpu = GpuLayersOf(x)) {
    return gpu->Linear(x, weight, bias, /*wide=*/true, NeedsGradient({x, weight, bias}));
  }
  return Linear(x, weight, bias);
}

at::Tensor NormedLinear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                        const at::Tensor& gain, const at::Tensor& shift, const at::Tensor& mask,
                        const NormedLinearOptions& options) {
  const GpuLayers* const gpu = GpuLayersOf(x);
  if (gpu != nullptr && gpu->Supports(weight.size(-2), options)) {
    return gpu->NormedLinear(x, weight, bias, gain, shift, mask, options,
                             NeedsGradient({x, weight, bias, gain, shift}));
  }
  if (OnKernels(x)) {
    const at::Tensor dense = x.contiguous();
    if (!NeedsGradient({x, weight, bias, gain, shift})) {
      return NormedLinearFunction::forward(nullptr, dense, weight, bias, gain, shift, {mask},
                                           options);
    }
    return NormedLinearFunction::apply(dense, weight, bias, gain, shift, Dropout{mask}, options);
  }
  at::Tensor u = Linear(x, weight, bias);
  if (mask.defined()) u = u * mask;
  at::Tensor v = gain.dim() == 1 ? at::layer_norm(u, {u.size(-1)}, gain, shift)
                                 : at::layer_norm(u, {u.size(-1)}) * PerHead(gain) + PerHead(shift);
  if (options.activation == Activation::kMish) return at::mish(v);
  return at::softmax(v.unflatten(-1, {-1, options.simnorm_dim}), -1).flatten(-2);
}

at::Tensor TwoHotDecode(const at::Tensor& logits, const Bins& bins) {
  if (const GpuLayers* gpu = GpuLayersOf(logits)) {
    return gpu->TwoHotDecode(logits, bins, NeedsGradient({logits}));
  }
  if (OnKernels(logits)) {
    const at::Tensor dense = logits.contiguous();
    if (!NeedsGradient({logits})) return DecodeFunction::forward(nullptr, dense, bins);
    return DecodeFunction::apply(dense, bins);
  }
  const at::Tensor positions = at::linspace(bins.min, bins.max, bins.size, logits.options());
  const at::Tensor symlog = (at::softmax(logits, -1) * positions).sum(-1);
  return symlog.sign() * (symlog.abs().exp() - 1);
}

at::Tensor TwoHotCrossEntropy(const at::Tensor& logits, const at::Tensor& target,
                              const Bins& bins) {
  if (const GpuLayers* gpu = GpuLayersOf(logits)) {
    return gpu->TwoHotCrossEntropy(logits, target, bins, NeedsGradient({logits}));
  }
  const at::Tensor wide =
      target.detach().expand(logits.sizes().slice(0, logits.dim() - 1)).contiguous();
  if (OnKernels(logits)) {
    const at::Tensor dense = logits.contiguous();
    if (!NeedsGradient({logits})) return CrossEntropyFunction::forward(nullptr, dense, wide, bins);
    return CrossEntropyFunction::apply(dense, wide, bins);
  }
  const at::Tensor symlog = (wide.sign() * (1 + wide.abs()).log()).clamp(bins.min, bins.max);
  const at::Tensor position =
      (symlog - bins.min) / ((bins.max - bins.min) / static_cast<double>(bins.size - 1));
  const at::Tensor lower = position.floor();
  const at::Tensor upper = position - lower;
  const at::Tensor index = lower.to(at::kLong).unsqueeze(-1);
  const at::Tensor log_p = at::log_softmax(logits, -1);
  const at::Tensor at_lower = log_p.gather(-1, index).squeeze(-1);
  const at::Tensor at_upper = log_p.gather(-1, (index + 1).remainder(bins.size)).squeeze(-1);
  return -((1 - upper) * at_lower + upper * at_upper);
}

}  // namespace pompc
