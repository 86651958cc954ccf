#include "common/planner/packed_plan.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/model/kernels.h"

namespace pompc {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// Sequences [first, first + rows) of one observation.
struct Block {
  int64_t observation, first, rows;
};

// Everything that a plan writes to; kept by the thread from plan to plan. N sequences of which P
// are proposals, S = N - P; C rows of a block.
struct Workspace {
  std::vector<Block> proposals, samples;
  std::vector<float> latent;                            // [B, L]
  std::vector<float> dynamics_product, reward_product;  // [B, width] see PackedMlp.
  std::vector<float> policy_output, prior_output;       // [B, 2A] at the latents.
  std::vector<float> actions;                           // [B, N, H, A]
  std::vector<float> value;                             // [B, N]
  std::vector<float> proposal_latent;                   // [B, P, L] z_H
  std::vector<float> proposal_value, proposal_weight;   // [B, P] before the terminal value.
  std::vector<float> mean, std;                         // [B, H, A]
  std::vector<int64_t> order;                           // [N] best first, as far as E.
  std::vector<int64_t> elite;                           // [B, E]
  std::vector<int64_t> index;                           // [B] of the elite that is drawn.
  // Draws.
  std::vector<at::Tensor> proposal_eps;  // H of [B, P, A]
  at::Tensor sample_eps;                 // [B, H, S, A]
  at::Tensor terminal_eps;               // [B, N, A]
  at::Tensor mask;                       // [2, B N, width] or undefined.
  at::Tensor action_eps;                 // [B, A]
  at::Tensor score;                      // [B, E] elite weights.
  // Of one block.
  std::vector<float> za;                      // [C, L + A]
  std::vector<float> logits;                  // [C, K]
  std::vector<float> output;                  // [C, 2A] of policy or prior.
  std::vector<float> block_value, weight;     // [C]
  std::vector<float> decoded, other_decoded;  // [C]
  std::vector<float> scratch;
};

void Resize(at::Tensor& t, at::IntArrayRef shape) {
  if (!t.defined() || t.sizes() != shape) t = at::empty(shape, at::kFloat);
}

// A tensor to write to: `t` itself if nobody else can see it.
float* Writable(at::Tensor& t, at::IntArrayRef shape) {
  const bool own = t.defined() && t.use_count() == 1 && t.storage().use_count() == 1 &&
                   t.sizes() == shape && t.is_contiguous() && t.scalar_type() == at::kFloat;
  if (!own) t = at::empty(shape, at::kFloat);
  return t.data_ptr<float>();
}

at::Tensor Dense(const at::Tensor& t) {
  return (t.scalar_type() == at::kFloat ? t : t.to(at::kFloat)).contiguous();
}

// Equal blocks whose size suits the kernels (multiples of 12 rows).
void AddBlocks(int64_t observation, int64_t first, int64_t count, std::vector<Block>& blocks) {
  constexpr int64_t kUnit = 12;
  if (count == 0) return;
  const int64_t num = (count + PackedMlp::kBlockRows - 1) / PackedMlp::kBlockRows;
  const int64_t units = (count + num * kUnit - 1) / (num * kUnit);
  for (int64_t r = 0; r < count; r += units * kUnit) {
    blocks.push_back({observation, first + r, std::min(units * kUnit, count - r)});
  }
}

class PackedPlan {
 public:
  PackedPlan(const PackedPlanInput& input, Noise& noise, Workspace& workspace)
      : model_(input.model),
        config_(input.options.config),
        model_config_(input.spec.config),
        options_(input.options),
        request_(input.request),
        noise_(noise),
        w_(workspace),
        kernels_(Kernels()),
        batch_(input.request.obs.size(0)),
        horizon_(config_.horizon()),
        samples_(config_.num_samples()),
        proposals_(config_.num_policy_samples()),
        elites_(config_.num_elites()),
        action_(input.spec.action_dim),
        latent_(model_config_.latent_dim()),
        width_(latent_ + action_) {}

  absl::Status Run(int iterations, const at::Tensor& initial_mean, PlanResult& result,
                   at::Tensor& mean) {
    Prepare();
    EncodeObservations();
    DrawProposals();
    for (const Block& block : w_.proposals) RollOutProposals(block);
    SetInitialMean(initial_mean);
    int64_t num_nonfinite = 0;
    for (int i = 0; i < iterations; ++i) {
      DrawIteration();
      for (const Block& block : w_.proposals) EvaluateProposals(block);
      for (const Block& block : w_.samples) EvaluateSamples(block);
      for (float& value : w_.value) {
        if (std::isfinite(value)) continue;
        value = -kInfinity;
        ++num_nonfinite;
      }
      for (int64_t b = 0; b < batch_; ++b) Refit(b);
    }
    return Finish(num_nonfinite, result, mean);
  }

 private:
  void Prepare() {
    w_.proposals.clear();
    w_.samples.clear();
    for (int64_t b = 0; b < batch_; ++b) {
      AddBlocks(b, 0, proposals_, w_.proposals);
      AddBlocks(b, proposals_, samples_ - proposals_, w_.samples);
    }
    constexpr int64_t kRows = PackedMlp::kBlockRows;
    w_.latent.resize(batch_ * latent_);
    w_.dynamics_product.resize(batch_ * model_.dynamics.first_width());
    w_.reward_product.resize(batch_ * model_.reward.first_width());
    w_.policy_output.resize(batch_ * 2 * action_);
    w_.prior_output.resize(batch_ * 2 * action_);
    w_.actions.resize(batch_ * samples_ * horizon_ * action_);
    w_.value.resize(batch_ * samples_);
    w_.proposal_latent.resize(batch_ * proposals_ * latent_);
    w_.proposal_value.resize(batch_ * proposals_);
    w_.proposal_weight.resize(batch_ * proposals_);
    w_.mean.resize(batch_ * horizon_ * action_);
    w_.std.resize(batch_ * horizon_ * action_);
    w_.order.resize(samples_);
    w_.elite.resize(batch_ * elites_);
    w_.index.resize(batch_);
    w_.za.resize(kRows * width_);
    w_.logits.resize(kRows * model_config_.num_bins());
    w_.output.resize(kRows * 2 * action_);
    for (auto* column : {&w_.block_value, &w_.weight, &w_.decoded, &w_.other_decoded}) {
      column->resize(kRows);
    }
    w_.scratch.resize(std::max<size_t>(w_.scratch.size(), model_.scratch_size));
    Resize(w_.score, {batch_, elites_});
  }

  void EncodeObservations() {
    const at::Tensor obs = Dense(request_.obs);
    const float* z = w_.latent.data();
    Forward(model_.encoder, batch_, {obs.const_data_ptr<float>(), model_.encoder.in()},
            w_.latent.data(), latent_);
    Forward(model_.policy, batch_, {z, latent_}, w_.policy_output.data(), 2 * action_);
    if (model_.prior.has_value()) {
      Forward(*model_.prior, batch_, {z, latent_}, w_.prior_output.data(), 2 * action_);
    }
    for (int64_t b = 0; b < batch_; ++b) {
      model_.dynamics.SharedProduct(z + b * latent_, w_.scratch.data(),
                                    Product(w_.dynamics_product, b));
      model_.reward.SharedProduct(z + b * latent_, w_.scratch.data(),
                                  Product(w_.reward_product, b));
    }
  }

  void DrawProposals() {
    if (proposals_ == 0) return;
    w_.proposal_eps.resize(horizon_);
    for (at::Tensor& eps : w_.proposal_eps) {
      Resize(eps, {batch_, proposals_, action_});
      noise_.FillNormal(eps);
    }
  }

  void DrawIteration() {
    Resize(w_.sample_eps, {batch_, horizon_, samples_ - proposals_, action_});
    noise_.FillNormal(w_.sample_eps);
    if (TakesActions()) {
      Resize(w_.terminal_eps, {batch_, samples_, action_});
      noise_.FillNormal(w_.terminal_eps);
    }
    noise_.FillHeads(static_cast<int64_t>(model_.value.size()), heads_);
    w_.mask.reset();
    if (options_.dropout > 0) {
      w_.mask = noise_.DropoutMask({2, batch_ * samples_, model_.value.front().first_width()},
                                   options_.dropout);
    }
  }

  // Proposals: rolled out once. What they are worth without the terminal value is kept.
  void RollOutProposals(const Block& block) {
    const int64_t row = block.observation * proposals_ + block.first;
    RollOut(block, [&](int64_t t) { Propose(block, t); });
    for (int64_t r = 0; r < block.rows; ++r) {
      std::copy_n(Za(r), latent_, &w_.proposal_latent[(row + r) * latent_]);
    }
    std::copy_n(w_.block_value.data(), block.rows, &w_.proposal_value[row]);
    std::copy_n(w_.weight.data(), block.rows, &w_.proposal_weight[row]);
  }

  void EvaluateProposals(const Block& block) {
    const int64_t row = block.observation * proposals_ + block.first;
    for (int64_t r = 0; r < block.rows; ++r) {
      std::copy_n(&w_.proposal_latent[(row + r) * latent_], latent_, Za(r));
    }
    std::copy_n(&w_.proposal_value[row], block.rows, w_.block_value.data());
    std::copy_n(&w_.proposal_weight[row], block.rows, w_.weight.data());
    AddTerminalValue(block);
  }

  void EvaluateSamples(const Block& block) {
    RollOut(block, [&](int64_t t) { Sample(block, t); });
    AddTerminalValue(block);
  }

  // Through the horizon: za then holds z_H; block_value the discounted rewards; weight gamma^H, or
  // 0 where the episode has ended. act(t) puts the actions of step t into za and w_.actions.
  template <typename Act>
  void RollOut(const Block& block, const Act& act) {
    std::fill_n(w_.block_value.data(), block.rows, 0.0f);
    std::fill_n(w_.weight.data(), block.rows, 1.0f);
    const float discount = static_cast<float>(options_.discount);
    for (int64_t t = 0; t < horizon_; ++t) {
      act(t);
      // At the first step all sequences are at the latent of the observation.
      const auto input = [&](std::vector<float>& product) {
        return PackedMlp::Input{w_.za.data(), width_,
                                t == 0 ? Product(product, block.observation) : nullptr};
      };
      Decode(model_.reward, block.rows, input(w_.reward_product), w_.decoded.data());
      Forward(model_.dynamics, block.rows, input(w_.dynamics_product), w_.za.data(), width_);
      if (model_.termination.has_value()) {
        Forward(*model_.termination, block.rows, {w_.za.data(), width_}, w_.other_decoded.data(),
                1);
      }
      for (int64_t r = 0; r < block.rows; ++r) {
        w_.block_value[r] += w_.weight[r] * w_.decoded[r];
        w_.weight[r] *= discount;
        if (model_.termination.has_value() && !(w_.other_decoded[r] <= 0)) w_.weight[r] *= 0;
      }
    }
  }

  void AddTerminalValue(const Block& block) {
    const int64_t row = block.observation * samples_ + block.first;
    if (TakesActions()) {
      Forward(model_.policy, block.rows, {w_.za.data(), width_}, w_.output.data(), 2 * action_);
      const float* eps = w_.terminal_eps.const_data_ptr<float>() + row * action_;
      PolicyActions(ModelRange(), block.rows, w_.output.data(), 2 * action_, eps, Za(0) + latent_);
    }
    float* const decoded[2] = {w_.decoded.data(), w_.other_decoded.data()};
    for (int64_t h = 0; h < 2; ++h) {
      const PackedMlp& head = model_.value[heads_[h]];
      PackedMlp::Input input = {w_.za.data(), width_};
      if (w_.mask.defined()) {
        input.mask =
            w_.mask.const_data_ptr<float>() + (h * batch_ * samples_ + row) * head.first_width();
      }
      Decode(head, block.rows, input, decoded[h]);
    }
    for (int64_t r = 0; r < block.rows; ++r) {
      w_.value[row + r] =
          w_.block_value[r] + w_.weight[r] * (0.5f * (decoded[0][r] + decoded[1][r]));
    }
  }

  // Actions of the sampling policy at step t, or for the last ones of the intermediate prior.
  void Propose(const Block& block, int64_t t) {
    const int64_t from_policy =
        proposals_ - std::llround(config_.proposal_mix() * static_cast<double>(proposals_));
    const int64_t num_policy = std::clamp<int64_t>(from_policy - block.first, 0, block.rows);
    const LogStdRange range =
        request_.mode == PlanMode::kReanalyze ? options_.reanalyze_log_std : ModelRange();
    ProposeFrom(model_.policy, w_.policy_output, range, block, t, 0, num_policy);
    if (num_policy < block.rows) {
      ProposeFrom(*model_.prior, w_.prior_output, ModelRange(), block, t, num_policy, block.rows);
    }
    for (int64_t r = 0; r < block.rows; ++r) {
      std::copy_n(Za(r) + latent_, action_, Action(block, r, t));
    }
  }

  // Rows [begin, end) of the block. first_output: the network's outputs at the observations.
  void ProposeFrom(const PackedMlp& network, const std::vector<float>& first_output,
                   LogStdRange range, const Block& block, int64_t t, int64_t begin, int64_t end) {
    const float* output = first_output.data() + block.observation * 2 * action_;
    if (t > 0) {
      Forward(network, end - begin, {Za(begin), width_}, w_.output.data(), 2 * action_);
      output = w_.output.data();
    }
    const float* eps = w_.proposal_eps[t].const_data_ptr<float>() +
                       (block.observation * proposals_ + block.first + begin) * action_;
    PolicyActions(range, end - begin, output, t > 0 ? 2 * action_ : 0, eps, Za(begin) + latent_);
  }

  void PolicyActions(LogStdRange range, int64_t rows, const float* output, int64_t output_stride,
                     const float* eps, float* action) {
    const bool squashed = model_config_.policy_form() == v1::ModelConfig::SQUASHED;
    kernels_.policy_action({action_, output_stride, squashed, range.min, range.max}, rows, output,
                           eps, action, width_);
  }

  // clamp(mean + std eps, -1, 1); NaN stays.
  void Sample(const Block& block, int64_t t) {
    const int64_t step = block.observation * horizon_ + t;
    const float* mean = &w_.mean[step * action_];
    const float* std = &w_.std[step * action_];
    const float* eps = w_.sample_eps.const_data_ptr<float>() +
                       (step * (samples_ - proposals_) + block.first - proposals_) * action_;
    for (int64_t r = 0; r < block.rows; ++r, eps += action_) {
      float* action = Action(block, r, t);
      for (int64_t a = 0; a < action_; ++a) {
        action[a] = std::clamp(mean[a] + std[a] * eps[a], -1.0f, 1.0f);
      }
      std::copy_n(action, action_, Za(r) + latent_);
    }
  }

  void SetInitialMean(const at::Tensor& initial) {
    std::fill(w_.std.begin(), w_.std.end(), static_cast<float>(config_.max_std()));
    std::fill(w_.mean.begin(), w_.mean.end(), 0.0f);
    if (!initial.defined()) return;
    const at::Tensor previous = Dense(initial);
    at::Tensor reset;
    if (request_.reset.defined()) reset = request_.reset.contiguous();
    const int64_t size = horizon_ * action_;
    for (int64_t b = 0; b < batch_; ++b) {
      if (reset.defined() && reset.const_data_ptr<bool>()[b]) continue;
      // Moved on by one step.
      std::copy_n(previous.const_data_ptr<float>() + b * size + action_, size - action_,
                  &w_.mean[b * size]);
    }
  }

  // RefitToElites for one observation.
  void Refit(int64_t b) {
    const float* value = &w_.value[b * samples_];
    for (int64_t n = 0; n < samples_; ++n) w_.order[n] = n;
    const auto better = [value](int64_t i, int64_t j) {
      return value[i] > value[j] || (value[i] == value[j] && i < j);
    };
    std::partial_sort(w_.order.begin(), w_.order.begin() + elites_, w_.order.end(), better);
    int64_t* elite = &w_.elite[b * elites_];
    std::copy_n(w_.order.begin(), elites_, elite);

    float* score = w_.score.data_ptr<float>() + b * elites_;
    const double inverse_temperature = config_.inverse_temperature();
    const double best = value[elite[0]];
    double sum = 0;
    for (int64_t e = 0; e < elites_; ++e) {
      score[e] = static_cast<float>(std::exp(inverse_temperature * (value[elite[e]] - best)));
      sum += score[e];
    }
    double total = 1e-9;
    for (int64_t e = 0; e < elites_; ++e) {
      score[e] = static_cast<float>(score[e] / sum);
      total += score[e];
    }
    const int64_t size = horizon_ * action_;
    for (int64_t i = 0; i < size; ++i) {
      // A rejected sequence weighs 0, and its actions may be NaN.
      const auto action = [&](int64_t e) -> double {
        return value[elite[e]] == -kInfinity ? 0.0f
                                             : w_.actions[(b * samples_ + elite[e]) * size + i];
      };
      double mean = 0, square = 0;
      for (int64_t e = 0; e < elites_; ++e) mean += score[e] * action(e);
      mean /= total;
      for (int64_t e = 0; e < elites_; ++e) {
        square += score[e] * (action(e) - mean) * (action(e) - mean);
      }
      w_.mean[b * size + i] = static_cast<float>(mean);
      w_.std[b * size + i] = static_cast<float>(
          std::clamp(std::sqrt(square / total), config_.min_std(), config_.max_std()));
    }
  }

  absl::Status Finish(int64_t num_nonfinite, PlanResult& result, at::Tensor& mean) {
    int64_t hopeless = 0;
    for (int64_t b = 0; b < batch_; ++b) {
      if (w_.value[b * samples_ + w_.elite[b * elites_]] == -kInfinity) ++hopeless;
    }
    noise_.FillIndex(w_.score, w_.index);
    if (request_.mode == PlanMode::kAct) {
      Resize(w_.action_eps, {batch_, action_});
      noise_.FillNormal(w_.action_eps);
    }
    if (hopeless > 0) {
      return absl::FailedPreconditionError(
          absl::StrCat("no action sequence of ", hopeless, " observations has a finite value"));
    }
    result.num_nonfinite = num_nonfinite;
    float* value = Writable(result.value, {batch_});
    const std::array<int64_t, 2> shape = {batch_, action_};
    float* action = Writable(result.action, shape);
    float* elite = Writable(result.elite, shape);
    float* first_mean = Writable(result.mean, shape);
    float* prior_mean = Writable(result.prior_mean, shape);
    float* prior_std = Writable(result.prior_std, shape);
    result.candidates = at::Tensor();
    result.candidate_value = at::Tensor();
    if (request_.keep_candidates) {
      result.candidates =
          at::from_blob(w_.actions.data(), {batch_, samples_, horizon_, action_}, at::kFloat)
              .clone();
      result.candidate_value =
          at::from_blob(w_.value.data(), {batch_, samples_}, at::kFloat).clone();
    }
    const bool stores_mean = config_.prior_centre() == v1::PlannerConfig::MEAN;
    for (int64_t b = 0; b < batch_; ++b) {
      const int64_t drawn = b * samples_ + w_.elite[b * elites_ + w_.index[b]];
      const int64_t row = b * action_, step = b * horizon_ * action_;
      value[b] = w_.value[drawn];
      std::copy_n(&w_.actions[drawn * horizon_ * action_], action_, elite + row);
      std::copy_n(&w_.mean[step], action_, first_mean + row);
      std::copy_n(&w_.std[step], action_, prior_std + row);
      std::copy_n((stores_mean ? first_mean : elite) + row, action_, prior_mean + row);
    }
    const int64_t size = batch_ * action_;
    switch (request_.mode) {
      case PlanMode::kAct: {
        const float* eps = w_.action_eps.const_data_ptr<float>();
        for (int64_t i = 0; i < size; ++i) {
          action[i] = std::clamp(elite[i] + prior_std[i] * eps[i], -1.0f, 1.0f);
        }
        break;
      }
      case PlanMode::kEvaluate: {
        const bool executes_mean = config_.evaluation_action() == v1::PlannerConfig::MEAN;
        std::copy_n(executes_mean ? first_mean : elite, size, action);
        break;
      }
      case PlanMode::kReanalyze:
        std::copy_n(elite, size, action);
        break;
    }
    const std::array<int64_t, 3> plan_shape = {batch_, horizon_, action_};
    std::copy(w_.mean.begin(), w_.mean.end(), Writable(mean, plan_shape));
    return absl::OkStatus();
  }

  void Forward(const PackedMlp& mlp, int64_t rows, const PackedMlp::Input& input, float* y,
               int64_t y_stride) {
    mlp.Forward(rows, input, w_.scratch.data(), y, y_stride);
  }

  // Two-hot logits of `mlp`, decoded. -> out [rows]
  void Decode(const PackedMlp& mlp, int64_t rows, const PackedMlp::Input& input, float* out) {
    Forward(mlp, rows, input, w_.logits.data(), mlp.out());
    kernels_.decode(rows, mlp.out(), model_config_.bin_min(), model_config_.bin_max(),
                    w_.logits.data(), out);
  }

  float* Za(int64_t row) { return &w_.za[row * width_]; }
  float* Action(const Block& block, int64_t row, int64_t t) {
    const int64_t sequence = block.observation * samples_ + block.first + row;
    return &w_.actions[(sequence * horizon_ + t) * action_];
  }
  // The row of observation b in products [B, width].
  float* Product(std::vector<float>& products, int64_t b) const {
    return products.data() + b * (static_cast<int64_t>(products.size()) / batch_);
  }
  bool TakesActions() const { return model_config_.value_kind() == v1::ModelConfig::Q; }
  LogStdRange ModelRange() const {
    return {model_config_.log_std_min(), model_config_.log_std_max()};
  }

  const PackedModel& model_;
  const v1::PlannerConfig& config_;
  const v1::ModelConfig& model_config_;
  const MppiOptions& options_;
  const PlanRequest& request_;
  Noise& noise_;
  Workspace& w_;
  const KernelTable& kernels_;
  const int64_t batch_, horizon_, samples_, proposals_, elites_, action_, latent_, width_;
  std::array<int64_t, 2> heads_ = {};
};

}  // namespace

absl::Status PlanPacked(const PackedPlanInput& input, Noise& noise, PlanResult& result,
                        at::Tensor& mean) {
  thread_local Workspace workspace;
  return PackedPlan(input, noise, workspace)
      .Run(input.iterations, input.initial_mean, result, mean);
}

}  // namespace pompc
