#include "common/model/algorithm_fixture.h"

#include <torch/csrc/jit/serialization/pickle.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <regex>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/base/check.h"
#include "common/model/math.h"

namespace pompc {
namespace {

std::vector<std::filesystem::path> Folders() {
  const char* variable = std::getenv("POMPC_FIXTURES");
  const std::string roots = variable != nullptr ? variable : POMPC_SOURCE_DIR "/tests/fixtures";
  std::vector<std::filesystem::path> folders;
  for (const std::string& root : std::vector<std::string>(absl::StrSplit(roots, ':'))) {
    folders.push_back(std::filesystem::path(root) / "algorithm");
  }
  return folders;
}

}  // namespace

std::vector<std::string> FixtureCases(const std::string& pattern) {
  const std::regex regex(pattern);
  std::vector<std::string> names;
  for (const std::filesystem::path& folder : Folders()) {
    for (const auto& entry : std::filesystem::directory_iterator(folder)) {
      const std::string name = entry.path().stem();
      if (entry.path().extension() == ".pt" && std::regex_search(name, regex)) {
        names.push_back(name);
      }
    }
  }
  std::sort(names.begin(), names.end());
  return names;
}

AlgorithmFixture::AlgorithmFixture(const std::string& name) {
  for (const std::filesystem::path& folder : Folders()) {
    std::ifstream in(folder / (name + ".pt"), std::ios::binary);
    if (!in) continue;
    const std::vector<char> bytes((std::istreambuf_iterator<char>(in)), {});
    const c10::IValue dict = torch::jit::pickle_load(bytes);
    for (const auto& entry : dict.toGenericDict()) {
      tensors_.emplace(entry.key().toStringRef(), entry.value().toTensor());
    }
  }
  POMPC_CHECK(!tensors_.empty()) << "no fixture named " << name;
  algorithm_ = absl::StartsWith(name, "tdmpc_square") ? "tdmpc_square"
               : absl::StartsWith(name, "tdmpc2")     ? "tdmpc2"
                                                      : "bmpc";
  dtype_ = absl::EndsWith(name, "_f64") ? at::kDouble : at::kFloat;
}

const at::Tensor& AlgorithmFixture::operator[](const std::string& key) const {
  const auto it = tensors_.find(key);
  POMPC_CHECK(it != tensors_.end()) << "the fixture has no " << key;
  return it->second;
}

v1::RunConfig AlgorithmFixture::RunConfig() const {
  const bool bmpc = algorithm_ == "bmpc", square = algorithm_ == "tdmpc_square";
  const bool state_values = bmpc && Config("use_v_instead_q") > 0;
  v1::RunConfig run;
  v1::ModelConfig& model = *run.mutable_model();
  model.set_latent_dim(Config("latent_dim"));
  model.set_encoder_dim(Config("enc_dim"));
  model.set_encoder_layers(Config("num_enc_layers"));
  model.set_mlp_dim(Config("mlp_dim"));
  model.set_simnorm_dim(Config("simnorm_dim"));
  model.set_num_bins(Config("num_bins"));
  model.set_bin_min(Config("vmin"));
  model.set_bin_max(Config("vmax"));
  model.set_dropout(Config("dropout"));
  model.set_value_kind(state_values ? v1::ModelConfig::V : v1::ModelConfig::Q);
  model.set_num_value_heads(Config("num_q"));
  model.set_policy_form(bmpc ? v1::ModelConfig::TANH_MEAN : v1::ModelConfig::SQUASHED);
  model.set_log_std_min(Config("log_std_min"));
  model.set_log_std_max(Config("log_std_max"));
  model.set_predict_termination(Config("episodic") > 0);

  v1::PlannerConfig& planner = *run.mutable_planner();
  planner.set_horizon(Config("horizon"));
  planner.set_iterations(Config("iterations"));
  planner.set_large_action_extra_iterations(0);  // Already in the recorded number.
  planner.set_num_samples(Config("num_samples"));
  planner.set_num_policy_samples(Config("num_pi_trajs"));
  planner.set_num_elites(Config("num_elites"));
  planner.set_min_std(Config("min_std"));
  planner.set_max_std(Config("max_std"));
  planner.set_inverse_temperature(Config("temperature"));

  v1::LearningConfig& learning = *run.mutable_learning();
  learning.set_batch_size(Config("batch_size"));
  learning.set_window(Config("horizon"));
  learning.set_rho(Config("rho"));
  learning.set_consistency_weight(Config("consistency_coef"));
  learning.set_reward_weight(Config("reward_coef"));
  learning.set_value_weight(Config("value_coef"));
  learning.set_termination_weight(Config("termination_coef"));
  learning.set_discount_divisor(Config("discount_denom"));
  learning.set_discount_min(Config("discount_min"));
  learning.set_discount_max(Config("discount_max"));
  learning.set_value_target(state_values ? v1::LearningConfig::V_MODEL_BASED
                                         : v1::LearningConfig::Q_MODEL_FREE);
  learning.set_target_reduction(bmpc ? v1::LearningConfig::AVERAGE : v1::LearningConfig::MIN);
  learning.set_learning_rate(Config("lr"));
  learning.set_encoder_learning_rate_scale(Config("enc_lr_scale"));
  learning.set_gradient_clip_norm(Config("grad_clip_norm"));
  learning.set_target_rate(Config("tau"));
  learning.set_scale_rate(Config("tau"));
  learning.set_entropy_weight(Config("entropy_coef"));
  learning.set_return_weight(bmpc ? 0 : 1);
  learning.set_kl_weight(bmpc ? 1 : square ? Config("prior_coef") : 0);
  learning.set_kl_action_scaling(false);
  learning.set_policy_loss_on_last_latent(algorithm_ == "tdmpc2");
  if (bmpc) {
    learning.set_divergence(v1::LearningConfig::REVERSE);
    learning.set_prior_source(v1::LearningConfig::REANALYZED);
    learning.set_td_horizon(Config("td_horizon"));
    learning.set_reanalyze_windows(Config("reanalyze_interval") > 0 ? Config("reanalyze_batch_size")
                                                                    : 0);
    learning.set_reanalyze_interval(std::max(1.0, Config("reanalyze_interval")));
    learning.set_reanalyze_log_std_min(Config("expl_log_std_min"));
    learning.set_reanalyze_log_std_max(Config("expl_log_std_max"));
  }
  if (square) {
    learning.set_divergence(v1::LearningConfig::CROSS_ENTROPY);
    learning.set_prior_source(v1::LearningConfig::REPLAY);
    learning.set_cross_entropy_threshold(Config("scale_threshold"));
    learning.set_dropout_everywhere(true);
    learning.set_clip_with_stale_policy_gradient(true);
    learning.set_entropy_tanh_correction(true);
  }
  return run;
}

ModelSpec AlgorithmFixture::Spec() const {
  return ModelSpec::FromConfig(RunConfig(), Config("obs_dim"), Config("action_dim"));
}

at::Tensor AlgorithmFixture::Parameter(const std::string& prefix, const std::string& name,
                                       bool target) const {
  const std::vector<std::string> parts = absl::StrSplit(name, absl::MaxSplits('.', 2));
  const std::string rest = absl::StrCat(parts[1], ".", parts[2]);
  std::string key;
  if (parts[0] == "encoder") {
    key = "_encoder.state." + rest;
  } else if (parts[0] == "policy") {
    key = "_pi." + rest;
  } else if (parts[0] != "value") {
    key = absl::StrCat("_", parts[0], ".", rest);
  } else if (algorithm_ == "tdmpc_square") {
    static const std::vector<std::string> kOrder = {"weight", "bias", "ln.weight", "ln.bias"};
    const auto k = std::find(kOrder.begin(), kOrder.end(), parts[2]) - kOrder.begin();
    key = absl::StrCat(target ? "_target_Qs" : "_Qs", ".params.", 4 * std::stoi(parts[1]) + k);
  } else {
    key = (target ? "_target_Qs_params." : "_Qs.params.") + rest;
  }
  const auto it = tensors_.find(prefix + key);
  return it == tensors_.end() ? at::Tensor() : it->second;
}

void AlgorithmFixture::LoadWeights(Parameters& parameters) const {
  for (const NamedParameter& p : parameters.layout().parameters()) {
    const at::Tensor value = Parameter("w/", p.name, false);
    POMPC_CHECK(value.defined()) << p.name;
    parameters.View(p.name).copy_(value);
    if (p.group == ParameterGroup::kValue && parameters.target().defined()) {
      parameters.TargetView(p.name).copy_(Parameter("w/", p.name, true));
    }
  }
}

at::Tensor ReplayNoise::Next() {
  POMPC_CHECK(!draws_.empty()) << "more draws than recorded";
  const at::Tensor draw = draws_.front().to(device_);
  draws_.pop_front();
  return draw;
}

at::Tensor ReplayNoise::Normal(at::IntArrayRef shape) { return Next().reshape(shape); }

at::Tensor ReplayNoise::Heads(int64_t) { return Next().reshape({2}); }

at::Tensor ReplayNoise::Index(const at::Tensor& probability) {
  const at::Tensor draw = Next();
  if (draw.numel() > 1) return SampleIndex(probability, draw.reshape(probability.sizes()));
  const at::Tensor cdf = probability.to(at::kDouble).cumsum(-1);
  return (cdf / cdf.narrow(-1, cdf.size(-1) - 1, 1) <= draw).sum(-1);
}

void ReplayNoise::FillNormal(at::Tensor& out) { out.copy_(Normal(out.sizes())); }

void ReplayNoise::FillHeads(int64_t num_heads, std::array<int64_t, 2>& heads) {
  const at::Tensor draw = Heads(num_heads);
  heads = {draw[0].item<int64_t>(), draw[1].item<int64_t>()};
}

void ReplayNoise::FillIndex(const at::Tensor& probability, std::vector<int64_t>& index) {
  const at::Tensor draw = Index(probability);
  for (size_t row = 0; row < index.size(); ++row) {
    index[row] = draw[static_cast<int64_t>(row)].item<int64_t>();
  }
}

at::Tensor ReplayNoise::DropoutMask(at::IntArrayRef shape, double) { return Next().reshape(shape); }

testing::AssertionResult CloseAbsolute(const at::Tensor& actual, const at::Tensor& expected,
                                       double tolerance) {
  const at::Tensor a = actual.detach().squeeze().to(at::kCPU, at::kDouble);
  const at::Tensor e = expected.detach().squeeze().to(at::kCPU, at::kDouble);
  if (a.sizes() != e.sizes()) {
    return testing::AssertionFailure() << "shape " << a.sizes() << ", expected " << e.sizes();
  }
  const double error = (a - e).abs().max().item<double>();
  if (error <= tolerance) return testing::AssertionSuccess();
  return testing::AssertionFailure() << "differs by " << error << ", allowed " << tolerance;
}

testing::AssertionResult Close(const at::Tensor& actual, const at::Tensor& expected,
                               double tolerance) {
  const double largest = expected.abs().max().item<double>();
  return CloseAbsolute(actual, expected, tolerance * largest);
}

}  // namespace pompc
