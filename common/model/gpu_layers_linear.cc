// Layers with a product (gpu_layers.h): linear, linear with LayerNorm, inputs side by side.
#include <vector>

#include "common/model/branch.h"
#include "common/model/gpu_kernels.h"
#include "common/model/gpu_layers_cuda.h"

namespace pompc {
namespace {

using gpu::AlignedSize;
using gpu::Check;
using gpu::CurrentStream;
using gpu::Data;
using gpu::Optional;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

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

}  // namespace

at::Tensor CudaLayers::Linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                              bool wide, bool track) const {
  return track ? LinearFunction::apply(x, weight, bias, wide)
               : LinearFunction::forward(nullptr, x, weight, bias, wide);
}

bool CudaLayers::Supports(int64_t out, const NormedLinearOptions& options) const {
  return gpu::Supports(out, options.activation, options.simnorm_dim);
}

at::Tensor CudaLayers::NormedLinear(const at::Tensor& x, const at::Tensor& weight,
                                    const at::Tensor& bias, const at::Tensor& gain,
                                    const at::Tensor& shift, const at::Tensor& mask,
                                    const NormedLinearOptions& options, bool track) const {
  return track ? NormedLinearFunction::apply(x, weight, bias, gain, shift, Optional{mask}, options)
               : NormedLinearFunction::forward(nullptr, x, weight, bias, gain, shift, {mask},
                                               options);
}

at::Tensor CudaLayers::Join(const at::Tensor& z, const at::Tensor& a) const {
  TORCH_CHECK(z.sizes().slice(0, z.dim() - 1) == a.sizes().slice(0, a.dim() - 1), "latents of ",
              z.sizes(), " and actions of ", a.sizes());
  return JoinFunction::apply(z.contiguous(), a.contiguous());
}

}  // namespace pompc
