#include <c10/cuda/CUDAStream.h>

#include <vector>

#include "common/model/branch.h"
#include "common/model/gpu_kernels.h"
#include "common/model/gpu_layers.h"

namespace pompc {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

gpu::Stream CurrentStream() { return c10::cuda::getCurrentCUDAStream().stream(); }

void Check(int launched) {
  TORCH_CHECK(launched == 0,
              "CUDA kernel: ", cudaGetErrorString(static_cast<cudaError_t>(launched)));
}

const float* Data(const at::Tensor& t) { return t.defined() ? t.const_data_ptr<float>() : nullptr; }

// The buffer to which the gradient of `parameter` can be added at once; undefined if it has none.
at::Tensor GradientBuffer(const at::Tensor& parameter) {
  return parameter.is_leaf() && parameter.requires_grad() ? parameter.grad() : at::Tensor();
}

// Where a kernel adds a gradient of `parameter`: its buffer, or zeros that backward returns.
struct GradientTarget {
  at::Tensor buffer, returned;

  explicit GradientTarget(const at::Tensor& parameter) : buffer(GradientBuffer(parameter)) {
    if (!buffer.defined()) buffer = returned = at::zeros_like(parameter);
  }
  float* data() const { return buffer.data_ptr<float>(); }
};

// Gives a parameter's gradient, which no other gradient needs, to `branch` if it goes to the
// parameter's buffer. uses: what add(), which returns what backward does, reads of other streams.
template <typename Add>
at::Tensor InBranch(BranchStream stream, const at::Tensor& parameter,
                    std::initializer_list<at::Tensor> uses, const Add& add) {
  if (!GradientBuffer(parameter).defined()) return add();
  const Branch branch(stream);
  for (const at::Tensor& t : uses) branch.Uses(t);
  if (stream != BranchStream::kEnsembleProducts) return branch.Run(add);
  branch.RunLater([add] { add(); });
  return {};
}

BranchStream ProductsOf(const at::Tensor& weight) {
  return weight.dim() == 3 ? BranchStream::kEnsembleProducts : BranchStream::kProducts;
}

// [N, cols] with zeros added at the end of each row: [N, padded].
at::Tensor PadRows(const at::Tensor& t, int64_t padded) {
  at::Tensor result = at::empty({t.size(0), padded}, t.options());
  Check(gpu::JoinRows(t.size(0), t.size(1), 0, padded, Data(t), nullptr, result.data_ptr<float>(),
                      CurrentStream()));
  return result;
}

// cuBLAS takes slow kernels where rows are not whole units of 16 bytes: this size instead of
// `size`.
int64_t AlignedSize(int64_t size) { return size % 4 == 0 ? size : (size + 7) / 8 * 8; }

// `t` with columns of zeros added where its rows are not aligned. Inputs and weights that are
// padded alike have the same product.
at::Tensor AlignRows(const at::Tensor& t) {
  std::vector<int64_t> shape = t.sizes().vec();
  const int64_t cols = shape.back(), padded = AlignedSize(cols);
  if (padded == cols) return t;
  shape.back() = padded;
  return PadRows(t.reshape({t.numel() / cols, cols}), padded).view(shape);
}

// A weight [.., out, in] with outputs of zeros added until gradients of its outputs are aligned.
at::Tensor AlignOutputs(const at::Tensor& weight) {
  const int64_t out = weight.size(-2), in = weight.size(-1), padded = AlignedSize(out);
  if (padded == out) return weight;
  std::vector<int64_t> shape = weight.sizes().vec();
  shape[shape.size() - 2] = padded;
  return PadRows(weight.reshape({weight.numel() / (out * in), out * in}), padded * in).view(shape);
}

// align(weight), a copy. Where it is `trained` that need not wait for what is computed before it:
// it changes only at the end of a step.
template <typename Align>
at::Tensor AlignWeight(const at::Tensor& weight, bool trained, const Align& align) {
  if (!trained) return align(weight);
  const Branch weights(BranchStream::kWeights);
  const at::Tensor aligned = weights.Run([&] { return align(weight); });
  weights.JoinFor(aligned);
  return aligned;
}
at::Tensor AlignWeightRows(const at::Tensor& weight, bool trained) {
  if (AlignedSize(weight.size(-1)) == weight.size(-1)) return weight;
  return AlignWeight(weight, trained, AlignRows);
}
at::Tensor AlignWeightOutputs(const at::Tensor& weight, bool trained) {
  if (AlignedSize(weight.size(-2)) == weight.size(-2)) return weight;
  return AlignWeight(weight, trained, AlignOutputs);
}

// A layer's product over Q heads, of inputs and weights with aligned rows. Heads that share their
// input are one product of Q * out columns: u is [rows, Q * out] then, else [Q, rows, out].
struct Product {
  static void CheckInput(const at::Tensor& x, const at::Tensor& weight) {
    TORCH_CHECK(AlignedSize(x.size(-1)) == AlignedSize(weight.size(-1)), "layer input has ",
                x.size(-1), " features, weight ", weight.size(-1));
  }

  int64_t heads, rows, in, out;
  bool shared;

  Product(const at::Tensor& x, const at::Tensor& weight)
      : heads(weight.dim() == 3 ? weight.size(0) : 1),
        in(weight.size(-1)),
        out(weight.size(-2)),
        shared(weight.dim() == 2 || x.dim() == 2) {
    rows = x.numel() / in / (shared ? 1 : heads);
  }

  at::Tensor Rows(const at::Tensor& x) const {
    return shared ? x.reshape({rows, in}) : x.reshape({heads, rows, in});
  }
  at::Tensor Matrix(const at::Tensor& weight) const {
    return shared ? weight.reshape({heads * out, in}) : weight;
  }
  at::Tensor Forward(const at::Tensor& x, const at::Tensor& weight) const {
    return shared ? at::mm(Rows(x), Matrix(weight).t()) : at::bmm(Rows(x), weight.transpose(1, 2));
  }
  // Of the layer's input, which has `features` columns.
  at::Tensor InputGradient(const at::Tensor& du, const at::Tensor& x, const at::Tensor& weight,
                           int64_t features) const {
    return (shared ? at::mm(du, Matrix(weight)) : at::bmm(du, weight))
        .view(x.sizes())
        .narrow(-1, 0, features);
  }
  // Of the layer's weight as it was before zeros were added to it. Undefined where it was added to
  // the weight's buffer.
  at::Tensor WeightGradient(const at::Tensor& du, const at::Tensor& x,
                            const at::Tensor& weight) const {
    const at::Tensor buffer = GradientBuffer(weight);
    if (buffer.defined() && weight.size(-1) == in && weight.size(-2) == out) {
      if (shared) {
        buffer.view({heads * out, in}).addmm_(du.t(), Rows(x));
      } else {
        buffer.baddbmm_(du.transpose(1, 2), Rows(x));
      }
      return {};
    }
    std::vector<int64_t> shape = weight.sizes().vec();
    shape.back() = in;
    shape[shape.size() - 2] = out;
    const at::Tensor gradient =
        (shared ? at::mm(du.t(), Rows(x)) : at::bmm(du.transpose(1, 2), Rows(x)))
            .view(shape)
            .narrow(-1, 0, weight.size(-1))
            .narrow(-2, 0, weight.size(-2));
    if (!buffer.defined()) return gradient;
    buffer.add_(gradient);
    return {};
  }
  // Strides of u, from head to head and from row to row.
  int64_t head_stride() const { return shared ? out : rows * out; }
  int64_t row_stride() const { return shared ? heads * out : out; }

  std::vector<int64_t> OutputShape(const at::Tensor& x, const at::Tensor& weight) const {
    std::vector<int64_t> shape = x.sizes().vec();
    if (weight.dim() == 3 && shared) shape.insert(shape.begin(), heads);
    shape.back() = out;
    return shape;
  }
};

class LinearFunction : public torch::autograd::Function<LinearFunction> {
 public:
  // wide: with outputs of zeros behind the others until their rows are aligned.
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& input,
                            const at::Tensor& parameter, const at::Tensor& bias, bool wide) {
    Product::CheckInput(input, parameter);
    const bool trained = parameter.requires_grad();
    const at::Tensor x = AlignRows(input);
    at::Tensor weight = AlignWeightRows(parameter, trained), added = bias;
    if (wide) {
      weight = AlignWeightOutputs(weight, trained);
      added = AlignWeightRows(bias, trained);
    }
    const Product product(x, weight);
    at::Tensor y;
    if (weight.dim() == 2) {
      y = at::addmm(added, product.Rows(x), weight.t());
    } else {
      const at::Tensor heads = x.expand({product.heads, product.rows, product.in});
      y = at::baddbmm(added.unsqueeze(1), heads, weight.transpose(1, 2));
    }
    if (ctx != nullptr) {
      ctx->save_for_backward({x, weight, bias, parameter});
      ctx->saved_data["features"] = input.size(-1);
    }
    return y.view(product.OutputShape(x, weight));
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const variable_list saved = ctx->get_saved_variables();
    const at::Tensor &bias = saved[2], &parameter = saved[3];
    const at::Tensor weight = AlignWeightOutputs(saved[1], parameter.requires_grad());
    const bool expand = weight.dim() == 3 && saved[0].dim() == 2;
    const at::Tensor x =
        expand ? saved[0].expand({weight.size(0), saved[0].size(0), saved[0].size(1)}) : saved[0];
    const Product product(x, weight);
    const at::Tensor dy = AlignRows(grads[0].contiguous());
    const at::Tensor du = product.shared ? dy.view({product.rows, product.out}) : dy;
    at::Tensor dx, dweight, dbias;
    if (ctx->needs_input_grad(1)) {
      dweight = InBranch(ProductsOf(parameter), parameter, {du, x},
                         [=] { return product.WeightGradient(du, x, parameter); });
    }
    if (ctx->needs_input_grad(2)) {
      dbias = InBranch(BranchStream::kSums, bias, {du}, [&] {
        const GradientTarget target(bias);
        Check(gpu::AddColumnSums(product.heads, product.rows, bias.size(-1),
                                 {Data(du), product.head_stride(), product.row_stride()},
                                 target.data(), CurrentStream()));
        return target.returned;
      });
    }
    if (ctx->needs_input_grad(0)) {
      dx = product.InputGradient(du, x, weight, ctx->saved_data["features"].toInt());
      if (expand) dx = dx.sum(0);
    }
    return {dx, dweight, dbias, at::Tensor()};
  }
};

// Autograd takes no undefined tensor as an input, so one that may be absent travels inside a
// struct.
struct Optional {
  at::Tensor tensor;
};

gpu::NormLayer LayerOf(const Product& product, const at::Tensor& bias, const at::Tensor& gain,
                       const at::Tensor& shift, const at::Tensor& mask,
                       const NormedLinearOptions& options) {
  return {product.heads, product.rows, product.out,        Data(bias),         Data(gain),
          Data(shift),   Data(mask),   options.activation, options.simnorm_dim};
}

class NormedLinearFunction : public torch::autograd::Function<NormedLinearFunction> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& input,
                            const at::Tensor& parameter, const at::Tensor& bias,
                            const at::Tensor& gain, const at::Tensor& shift,
                            const Optional& dropout, const NormedLinearOptions& options) {
    Product::CheckInput(input, parameter);
    const at::Tensor x = AlignRows(input);
    const at::Tensor weight = AlignWeightRows(parameter, parameter.requires_grad());
    const Product product(x, weight);
    const at::Tensor mask = dropout.tensor.defined() ? dropout.tensor.contiguous() : at::Tensor();
    const at::Tensor u = product.Forward(x, weight);
    at::Tensor y = at::empty(product.OutputShape(x, weight), u.options());
    at::Tensor statistics;
    if (ctx != nullptr) statistics = at::empty({product.heads, product.rows, 2}, u.options());
    Check(gpu::NormForward(LayerOf(product, bias, gain, shift, mask, options),
                           {Data(u), product.head_stride(), product.row_stride()},
                           {y.data_ptr<float>(), product.rows * product.out, product.out},
                           ctx != nullptr ? statistics.data_ptr<float>() : nullptr,
                           CurrentStream()));
    if (ctx != nullptr) {
      ctx->save_for_backward({x, weight, bias, gain, shift, mask, u, statistics, parameter});
      ctx->saved_data["features"] = input.size(-1);
      ctx->saved_data["activation"] = static_cast<int64_t>(options.activation);
      ctx->saved_data["simnorm_dim"] = options.simnorm_dim;
    }
    return y;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const variable_list saved = ctx->get_saved_variables();
    const at::Tensor &x = saved[0], &weight = saved[1], &bias = saved[2], &gain = saved[3],
                     &shift = saved[4], &mask = saved[5], &u = saved[6], &statistics = saved[7],
                     &parameter = saved[8];
    const NormedLinearOptions options = {
        static_cast<Activation>(ctx->saved_data["activation"].toInt()),
        ctx->saved_data["simnorm_dim"].toInt()};
    const Product product(x, weight);
    const gpu::NormLayer layer = LayerOf(product, bias, gain, shift, mask, options);
    // Columns of a wider gradient, as those that Join() gives back, are read where they are.
    const bool strided = grads[0].dim() == 2 && grads[0].stride(1) == 1;
    const at::Tensor dy = strided ? grads[0] : grads[0].contiguous();
    at::Tensor du = at::empty_like(u);
    const gpu::In u_in = {Data(u), product.head_stride(), product.row_stride()};
    const gpu::In dy_in = {Data(dy), product.rows * product.out,
                           strided ? dy.stride(0) : product.out};
    const gpu::Out du_out = {du.data_ptr<float>(), product.head_stride(), product.row_stride()};
    variable_list result(7);
    at::Tensor partial;
    if (ctx->needs_input_grad(2)) partial = at::empty({gpu::NormPartialSize(layer)}, u.options());
    Check(gpu::NormBackward(layer, u_in, Data(statistics), dy_in, du_out,
                            partial.defined() ? partial.data_ptr<float>() : nullptr,
                            CurrentStream()));
    if (ctx->needs_input_grad(1)) {
      result[1] = InBranch(ProductsOf(parameter), parameter, {du, x},
                           [=] { return product.WeightGradient(du, x, parameter); });
    }
    if (partial.defined()) {
      result[2] = InBranch(BranchStream::kSums, bias, {partial}, [&] {
        const GradientTarget dbias(bias), dgain(gain), dshift(shift);
        Check(gpu::AddNormGradients(layer, Data(partial),
                                    {dbias.data(), dgain.data(), dshift.data()}, CurrentStream()));
        result[3] = dgain.returned;
        result[4] = dshift.returned;
        return dbias.returned;
      });
    }
    if (ctx->needs_input_grad(0)) {
      result[0] = product.InputGradient(du, x, weight, ctx->saved_data["features"].toInt());
    }
    return result;
  }
};

class JoinFunction : public torch::autograd::Function<JoinFunction> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& z, const at::Tensor& a) {
    const int64_t cols = z.size(-1), more = a.size(-1), padded = AlignedSize(cols + more);
    std::vector<int64_t> shape = z.sizes().vec();
    shape.back() = padded;
    at::Tensor za = at::empty(shape, z.options());
    Check(gpu::JoinRows(z.numel() / cols, cols, more, padded, Data(z), Data(a),
                        za.data_ptr<float>(), CurrentStream()));
    ctx->saved_data["cols"] = cols;
    ctx->saved_data["more"] = more;
    return za;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const int64_t cols = ctx->saved_data["cols"].toInt(), more = ctx->saved_data["more"].toInt();
    return {grads[0].narrow(-1, 0, cols), grads[0].narrow(-1, cols, more)};
  }
};

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

class CudaLayers final : public GpuLayers {
 public:
  at::Tensor Linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                    bool wide, bool track) const override {
    return track ? LinearFunction::apply(x, weight, bias, wide)
                 : LinearFunction::forward(nullptr, x, weight, bias, wide);
  }

  bool Supports(int64_t out, const NormedLinearOptions& options) const override {
    return gpu::Supports(out, options.activation, options.simnorm_dim);
  }

  at::Tensor NormedLinear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                          const at::Tensor& gain, const at::Tensor& shift, const at::Tensor& mask,
                          const NormedLinearOptions& options, bool track) const override {
    return track
               ? NormedLinearFunction::apply(x, weight, bias, gain, shift, Optional{mask}, options)
               : NormedLinearFunction::forward(nullptr, x, weight, bias, gain, shift, {mask},
                                               options);
  }

  at::Tensor Join(const at::Tensor& z, const at::Tensor& a) const override {
    TORCH_CHECK(z.sizes().slice(0, z.dim() - 1) == a.sizes().slice(0, a.dim() - 1), "latents of ",
                z.sizes(), " and actions of ", a.sizes());
    return JoinFunction::apply(z.contiguous(), a.contiguous());
  }

  at::Tensor TwoHotDecode(const at::Tensor& logits, const Bins& bins, bool track) const override {
    const at::Tensor dense = logits.contiguous();
    return track ? DecodeFunction::apply(dense, bins)
                 : DecodeFunction::forward(nullptr, dense, bins);
  }

  at::Tensor TwoHotCrossEntropy(const at::Tensor& logits, const at::Tensor& target,
                                const Bins& bins, bool track) const override {
    // The kernel repeats a target for all heads in front of it.
    const int64_t skipped = logits.dim() - 1 - target.dim();
    TORCH_CHECK(skipped >= 0 && target.sizes() == logits.sizes().slice(skipped, target.dim()),
                "targets of shape ", target.sizes(), " do not fit logits of ", logits.sizes());
    const at::Tensor dense = logits.contiguous(), targets = target.detach().contiguous();
    return track ? CrossEntropyFunction::apply(dense, targets, bins)
                 : CrossEntropyFunction::forward(nullptr, dense, targets, bins);
  }

  std::array<at::Tensor, 3> Policy(const at::Tensor& output, LogStdRange range) const override {
    const variable_list parts =
        PolicyFunction::apply(output.contiguous(), range.min, 0.5 * (range.max - range.min));
    return {parts[0], parts[1], parts[2]};
  }

  at::Tensor Sample(bool squashed, const at::Tensor& centre, const at::Tensor& log_std,
                    const at::Tensor& eps) const override {
    TORCH_CHECK(centre.sizes() == eps.sizes() && log_std.sizes() == eps.sizes(), "noise of shape ",
                eps.sizes(), " for a policy of ", centre.sizes());
    return SampleFunction::apply(centre.contiguous(), log_std.contiguous(),
                                 eps.detach().contiguous(), squashed);
  }

  at::Tensor LogKernel(const at::Tensor& eps, const at::Tensor& log_std) const override {
    TORCH_CHECK(eps.sizes() == log_std.sizes(), "noise of shape ", eps.sizes(),
                " for a log std of ", log_std.sizes());
    return LogKernelFunction::apply(eps.contiguous(), log_std.contiguous());
  }

  at::Tensor SquashCorrection(const at::Tensor& action) const override {
    return SquashCorrectionFunction::apply(action.contiguous());
  }

  at::Tensor GaussianKl(const at::Tensor& p_mean, const at::Tensor& p_std, const at::Tensor& q_mean,
                        const at::Tensor& q_std) const override {
    TORCH_CHECK(p_std.sizes() == p_mean.sizes() && q_mean.sizes() == p_mean.sizes() &&
                    q_std.sizes() == p_mean.sizes(),
                "Gaussians of ", p_mean.sizes(), ", ", p_std.sizes(), ", ", q_mean.sizes(), " and ",
                q_std.sizes());
    return GaussianKlFunction::apply(p_mean.contiguous(), p_std.contiguous(), q_mean.contiguous(),
                                     q_std.contiguous());
  }

  at::Tensor TimeMeanOf(const at::Tensor& x, int64_t time_dim, double rho,
                        const at::Tensor& y) const override {
    TORCH_CHECK(!y.defined() || y.sizes() == x.sizes(), "shapes ", x.sizes(), " and ", y.sizes());
    return TimeMeanFunction::apply(
        x.contiguous(), Optional{y.defined() ? y.detach().contiguous() : y}, time_dim, rho);
  }

  at::Tensor PercentileRange(const at::Tensor& x) const override {
    TORCH_CHECK(x.dim() == 1 && x.size(0) > 0 && x.size(0) <= gpu::kMaxPercentileSize,
                "percentiles of ", x.sizes());
    const at::Tensor dense = x.contiguous();
    at::Tensor range = at::empty({}, x.options());
    Check(gpu::PercentileRange(x.size(0), Data(dense), range.data_ptr<float>(), CurrentStream()));
    return range;
  }

  at::Tensor Norm(const at::Tensor& x) const override {
    TORCH_CHECK(x.is_contiguous(), "norm of a tensor that is not contiguous");
    at::Tensor norm = at::empty({}, x.options());
    at::Tensor scratch = at::empty({gpu::kNormBlocks}, x.options());
    Check(gpu::Norm(x.numel(), Data(x), norm.data_ptr<float>(), scratch.data_ptr<float>(),
                    CurrentStream()));
    return norm;
  }

  std::vector<at::Tensor> SelectHeads(const std::vector<at::Tensor>& tensors,
                                      const at::Tensor& heads) const override {
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

  void StepAdam(double learning_rate, double epsilon, double clip_norm, const at::Tensor& norm,
                const at::Tensor& step, const at::Tensor& values, const at::Tensor& grad,
                const at::Tensor& first_moment, const at::Tensor& second_moment) const override {
    TORCH_CHECK(values.numel() % 4 == 0, "Adam: ", values.numel(), " values, no multiple of 4");
    Check(gpu::StepAdam({values.numel(), learning_rate, epsilon, clip_norm}, Data(norm), Data(step),
                        values.data_ptr<float>(), grad.data_ptr<float>(),
                        first_moment.data_ptr<float>(), second_moment.data_ptr<float>(),
                        CurrentStream()));
  }
};

}  // namespace

const GpuLayers* FindGpuLayers() {
  static const CudaLayers* const layers = new CudaLayers();
  return layers;
}

}  // namespace pompc
