// The networks of a plan: matrix products and what follows each.
#include <ATen/Functions.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>

#include <cmath>

#include "common/planner/fused_layer.h"
#include "common/planner/graph_plan_recording.h"
#include "common/planner/plan_kernels.h"

namespace pompc {
namespace {

// Logits of fewer rows than this are decoded faster by a kernel of its own.
constexpr int64_t kFusedDecodeRows = 4096;

// y = x w^T on the current stream. x [M, K], w [N, K]; or batches of both. y float32 or as x.
void Product(const at::Tensor& x, const at::Tensor& w, at::Tensor y) {
  const at::Tensor wt = w.transpose(-1, -2);
  const bool widens = y.scalar_type() != x.scalar_type();
  if (x.dim() == 3) {
    widens ? at::bmm_out(y, x, wt, y.scalar_type()) : at::bmm_out(y, x, wt);
  } else {
    widens ? at::mm_out(y, x, wt, y.scalar_type()) : at::mm_out(y, x, wt);
  }
}

}  // namespace

void GraphPlanner::Graph::EncodeObservations(const Stream& stream, const Stream& proposals) {
  at::Tensor x = obs_;
  for (size_t i = 0; i < weights_.encoder.size(); ++i) {
    const Layer& layer = weights_.encoder[i];
    NormArgs norm = InPlace(encoded_[i], layer);
    norm.simnorm = i + 1 == weights_.encoder.size();
    NormedLayer(x, layer.weight, encoded_[i], norm, stream);
    x = encoded_[i];
  }
  if (proposals_ > 0) Order(stream, proposals);
  const auto shared = [&](const Layer& layer, at::Tensor& product) {
    at::addmm_out(product, layer.bias, x, layer.weight.narrow(1, 0, latent_).t());
  };
  shared(weights_.dynamics_at_observation, dynamics_product_);
  shared(weights_.reward_at_observation, reward_product_);
  if (proposals_ == 0) return;
  const c10::cuda::CUDAStreamGuard guard(proposals);
  for (int i = 0; i < kLayers; ++i) {
    const Layer& layer = weights_.policy_at_observation[i];
    const at::Tensor& from = i == 0 ? x : first_policy_[i - 1];
    if (i + 1 < kLayers) {
      NormedLayer(from, layer.weight, first_policy_[i], InPlace(first_policy_[i], layer),
                  proposals);
    } else {
      Product(from, layer.weight, first_policy_[i]);
    }
  }
}

void GraphPlanner::Graph::Step(const Chunk& chunk, const Rollout& r, int64_t t,
                               const at::Tensor& terminal, const Stream& stream) {
  const auto& layers = weights_.dynamics;
  FirstLayer(chunk, r, t, t + 1, layers[0], dynamics_product_, r.hidden, stream);
  NormedLayer(r.hidden, layers[1].weight, r.other, InPlace(r.other, layers[1]), stream);
  NormArgs norm = InPlace(r.next, layers[2]);
  norm.simnorm = true;
  const bool last = t + 1 == horizon_;
  const at::Tensor to = last ? terminal : r.later[t];
  norm.y = to.data_ptr();
  norm.y_stride = to.stride(0);
  if (last) norm.to = Among(r, 0);
  NormedLayer(r.other, layers[2].weight, r.next, norm, stream);
}

void GraphPlanner::Graph::FirstLayer(const Chunk& chunk, const Rollout& r, int64_t begin,
                                     int64_t end, const Layer& layer, const at::Tensor& shared,
                                     const at::Tensor& y, const Stream& stream) {
  const int64_t rows = chunk.count * r.per_observation;
  at::Tensor rest = y;
  if (begin == 0) {
    const at::Tensor part = y.narrow(0, 0, rows);
    NormArgs norm = InPlace(part, layer);
    norm.bias = Floats(shared) + chunk.first * shared.stride(0);
    norm.bias_groups = {static_cast<int>(r.per_observation), shared.stride(0)};
    NormedLayer(r.first, layer.weight.narrow(1, latent_, joined_ - latent_), part, norm, stream);
    rest = y.narrow(0, rows, y.size(0) - rows);
    begin = 1;
  }
  if (begin == end) return;
  NormedLayer(r.later.narrow(0, begin - 1, end - begin).flatten(0, 1), layer.weight, rest,
              InPlace(rest, layer), stream);
}

void GraphPlanner::Graph::Rewards(const Chunk& chunk, const Rollout& r, const Stream& stream) {
  const auto& layers = weights_.reward;
  FirstLayer(chunk, r, 0, horizon_, layers[0], reward_product_, r.reward_hidden, stream);
  NormedLayer(r.reward_hidden, layers[1].weight, r.reward_other, InPlace(r.reward_other, layers[1]),
              stream);
  DecodeArgs decode = Decode(r.reward_logits, layers[2], horizon_);
  decode.scale = 1;
  decode.ratio = static_cast<float>(options_.discount);
  decode.out = reward_.data_ptr<float>();
  decode.to = Among(r, chunk.first);
  if (DecodesFused(r.reward_other)) {
    DecodeLayer(r.reward_other, layers[2].weight, decode, stream);
  } else {
    Product(r.reward_other, layers[2].weight, r.reward_logits);
    C10_CUDA_CHECK(DecodeSum(decode, stream.stream()));
  }
}

void GraphPlanner::Graph::TerminalLogits(const Chunk& chunk, const Lane& lane, int iteration,
                                         const Stream& stream) {
  const int64_t rows = chunk.count * samples_;
  if (q_heads_) {
    PolicyNetwork(lane.terminal.narrow(1, 0, latent_), lane.value_hidden[0], lane.value_other[0],
                  lane.policy_output, stream);
    PolicyArgs policy = Policy(chunk, samples_, lane.policy_output, 1);
    policy.to = lane.terminal.narrow(1, latent_, action_).data_ptr();
    policy.to_stride = lane.terminal.stride(0);
    policy.iteration = iteration;
    C10_CUDA_CHECK(DrawPolicyActions(policy, stream.stream()));
  }
  const auto layers = weights_.HeadLayers(lane.head_weights, lane.head_vectors);
  const at::Tensor input = q_heads_ ? lane.terminal : lane.terminal.narrow(1, 0, latent_);
  NormedLayer(input.unsqueeze(0).expand({2, -1, -1}), layers[0].weight, lane.value_hidden,
              InPlace(lane.value_hidden.flatten(0, 1), layers[0], rows), stream);
  NormedLayer(lane.value_hidden, layers[1].weight, lane.value_other,
              InPlace(lane.value_other.flatten(0, 1), layers[1], rows), stream);
  if (!DecodesFused(lane.value_other)) {
    Product(lane.value_other, layers[2].weight, lane.value_logits);
  }
}

void GraphPlanner::Graph::AddTerminalValue(const Chunk& chunk, const Lane& lane,
                                           const Stream& stream) {
  const auto layers = weights_.HeadLayers(lane.head_weights, lane.head_vectors);
  DecodeArgs decode = Decode(lane.value_logits.flatten(0, 1), layers[2], 2);
  decode.bias_stride = layers[2].bias.stride(0);
  decode.scale = static_cast<float>(0.5 * std::pow(options_.discount, horizon_));
  decode.ratio = 1;
  decode.base = Floats(reward_);
  decode.out = value_.data_ptr<float>();
  decode.to.offset = static_cast<int>(chunk.first * samples_);
  if (!DecodesFused(lane.value_other)) {
    C10_CUDA_CHECK(DecodeSum(decode, stream.stream()));
    return;
  }
  decode.terms = 1;
  for (int head = 0; head < 2; ++head) {
    DecodeLayer(lane.value_other[head], layers[2].weight[head], decode, stream);
    decode.bias += decode.bias_stride;
    decode.base = decode.out;
  }
}

void GraphPlanner::Graph::PolicyNetwork(const at::Tensor& z, const at::Tensor& hidden,
                                        const at::Tensor& other, const at::Tensor& output,
                                        const Stream& stream) {
  const auto& layers = weights_.policy;
  NormedLayer(z, layers[0].weight, hidden, InPlace(hidden, layers[0]), stream);
  NormedLayer(hidden, layers[1].weight, other, InPlace(other, layers[1]), stream);
  Product(other, layers[2].weight, output);
}

void GraphPlanner::Graph::NormedLayer(const at::Tensor& x, const at::Tensor& weight,
                                      const at::Tensor& product, const NormArgs& norm,
                                      const Stream& stream) const {
  const int in = static_cast<int>(x.size(-1));
  if (!norm.bfloat16 || !SupportsFusedLayer(norm.width, in)) {
    Product(x, weight, product);
    C10_CUDA_CHECK(Normalise(norm, stream.stream()));
    return;
  }
  FusedLayerArgs args;
  args.norm = norm;
  args.in = in;
  args.x = x.data_ptr();
  args.x_stride = x.stride(-2);
  args.weight = weight.data_ptr();
  args.weight_stride = weight.stride(-2);
  if (x.dim() == 3) {
    args.heads = static_cast<int>(x.size(0));
    args.x_head_stride = x.stride(0);
    args.weight_head_stride = weight.stride(0);
  }
  args.leaves_room = options_.leaves_room;
  C10_CUDA_CHECK(FusedLayer(args, stream.stream()));
}

bool GraphPlanner::Graph::DecodesFused(const at::Tensor& x) const {
  return x.scalar_type() == at::kBFloat16 && x.numel() / x.size(-1) >= kFusedDecodeRows &&
         SupportsFusedDecode(static_cast<int>(x.size(-1)));
}

void GraphPlanner::Graph::DecodeLayer(const at::Tensor& x, const at::Tensor& weight,
                                      const DecodeArgs& decode, const Stream& stream) const {
  FusedDecodeArgs args;
  args.decode = decode;
  args.in = static_cast<int>(x.size(1));
  args.x = x.data_ptr();
  args.x_stride = x.stride(0);
  args.x_term_stride = decode.rows * x.stride(0);
  args.weight = weight.data_ptr();
  args.weight_stride = weight.stride(0);
  args.weight_rows = static_cast<int>(weight.size(0));
  args.leaves_room = options_.leaves_room;
  C10_CUDA_CHECK(FusedDecode(args, stream.stream()));
}

NormArgs GraphPlanner::Graph::InPlace(const at::Tensor& x, const Layer& layer,
                                      int64_t head_rows) const {
  NormArgs norm;
  norm.bfloat16 = x.scalar_type() == at::kBFloat16;
  norm.rows = static_cast<int>(x.size(0));
  norm.width = static_cast<int>(x.size(1));
  norm.x = norm.y = x.data_ptr();
  norm.x_stride = norm.y_stride = x.stride(0);
  norm.bias = Floats(layer.bias);
  norm.gain = Floats(layer.gain);
  norm.shift = Floats(layer.shift);
  if (head_rows > 0) {
    norm.bias_groups = norm.norm_groups = {static_cast<int>(head_rows), layer.bias.stride(0)};
  }
  return norm;
}

DecodeArgs GraphPlanner::Graph::Decode(const at::Tensor& logits, const Layer& layer,
                                       int64_t terms) const {
  DecodeArgs decode = {};
  decode.logits = Floats(logits);
  decode.stride = logits.stride(0);
  decode.bins = spec_.config.num_bins();
  decode.bin_min = static_cast<float>(spec_.config.bin_min());
  decode.bin_max = static_cast<float>(spec_.config.bin_max());
  decode.bias = Floats(layer.bias);
  decode.rows = static_cast<int>(logits.size(0) / terms);
  decode.terms = static_cast<int>(terms);
  return decode;
}

}  // namespace pompc
