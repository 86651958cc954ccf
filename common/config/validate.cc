#include "common/config/validate.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <optional>
#include <set>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/config/config.h"
#include "common/config/schema.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/text_format.h"
#include "proto/pompc/v1/options.pb.h"

namespace pompc {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using v1::LearningConfig;
using v1::ModelConfig;

// Control steps of an episode when episode_steps is unset: the limit of the tasks we ship.
constexpr int64_t kDefaultEpisodeSteps = 1000;

// The shortest decimal that reads back as `value`; integers without an exponent.
std::string Number(double value) {
  if (std::abs(value) < 1e15 && value == std::trunc(value)) {
    return absl::StrCat(static_cast<int64_t>(value));
  }
  char text[32];
  return std::string(text, std::to_chars(text, text + sizeof(text), value).ptr);
}

std::string Allowed(const v1::Range& range) {
  if (!range.has_min()) return absl::StrCat("at most ", Number(range.max()));
  if (!range.has_max()) {
    return absl::StrCat(range.open_min() ? "greater than " : "at least ", Number(range.min()));
  }
  return absl::StrCat("in ", range.open_min() ? "(" : "[", Number(range.min()), ", ",
                      Number(range.max()), "]");
}

bool InRange(const v1::Range& range, double value) {
  if (range.has_min() && (range.open_min() ? value <= range.min() : value < range.min())) {
    return false;
  }
  return !range.has_max() || value <= range.max();
}

// Nothing for what is not a number.
std::optional<double> NumericValue(const Message& message, const FieldDescriptor& field) {
  const auto& reflection = *message.GetReflection();
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT32:
      return reflection.GetInt32(message, &field);
    case FieldDescriptor::CPPTYPE_INT64:
      return static_cast<double>(reflection.GetInt64(message, &field));
    case FieldDescriptor::CPPTYPE_UINT64:
      return static_cast<double>(reflection.GetUInt64(message, &field));
    case FieldDescriptor::CPPTYPE_DOUBLE:
      return reflection.GetDouble(message, &field);
    default:
      return std::nullopt;
  }
}

// Collects the rules that do not hold. A rule that one of whose fields is out of range says
// nothing: that field's own mistake is reported, and what it should have been is unknown.
class Rules {
 public:
  Rules(const v1::RunConfig& config, const std::set<std::string>& out_of_range)
      : config_(config), out_of_range_(out_of_range) {}

  // Unless `holds`: "PATH = VALUE[, PATH = VALUE...]: why". `paths`: every field that the rule
  // reads.
  template <typename... Parts>
  void Require(bool holds, const std::vector<std::string>& paths, const Parts&... why) {
    if (holds) return;
    for (const std::string& path : paths) {
      if (out_of_range_.contains(path)) return;
    }
    std::vector<std::string> values;
    for (const std::string& path : paths) values.push_back(PathAndValue(path));
    mistakes_.push_back(absl::StrCat(absl::StrJoin(values, ", "), ": ", why...));
  }

  std::vector<std::string> Take() { return std::move(mistakes_); }

 private:
  std::string PathAndValue(const std::string& wanted) const {
    std::string result;
    ForEachField(
        config_, [&](const std::string& path, const Message& holder, const FieldDescriptor& field) {
          if (path != wanted) return;
          const bool unset =
              !field.has_default_value() && !holder.GetReflection()->HasField(holder, &field);
          std::string value = "unset";
          if (!unset) {
            google::protobuf::TextFormat::PrintFieldValueToString(holder, &field, -1, &value);
          }
          result = absl::StrCat(path, " = ", value);
        });
    return result;
  }

  const v1::RunConfig& config_;
  const std::set<std::string>& out_of_range_;
  std::vector<std::string> mistakes_;
};

bool IsDevice(const std::string& device) {
  if (device == "cpu" || device == "cuda") return true;
  return device.starts_with("cuda:") && device.size() > 5 && device.size() <= 8 &&
         std::all_of(device.begin() + 5, device.end(), [](char c) { return c >= '0' && c <= '9'; });
}

void CheckModelAndPlanner(const v1::RunConfig& config, Rules& rules) {
  const ModelConfig& m = config.model();
  rules.Require(m.latent_dim() % std::max(1, m.simnorm_dim()) == 0,
                {"model.latent_dim", "model.simnorm_dim"},
                "latent_dim must be a multiple of simnorm_dim");
  rules.Require(m.bin_min() < m.bin_max(), {"model.bin_min", "model.bin_max"},
                "bin_min must be less than bin_max");
  rules.Require(m.log_std_min() < m.log_std_max(), {"model.log_std_min", "model.log_std_max"},
                "log_std_min must be less than log_std_max");

  const v1::PlannerConfig& p = config.planner();
  rules.Require(p.num_policy_samples() <= p.num_samples(),
                {"planner.num_policy_samples", "planner.num_samples"},
                "num_policy_samples must be at most num_samples");
  rules.Require(p.num_elites() <= p.num_samples(), {"planner.num_elites", "planner.num_samples"},
                "num_elites must be at most num_samples");
  rules.Require(p.min_std() <= p.max_std(), {"planner.min_std", "planner.max_std"},
                "min_std must be at most max_std");
}

void CheckLosses(const v1::RunConfig& config, Rules& rules) {
  const LearningConfig& l = config.learning();
  const ModelConfig& m = config.model();
  const bool learned = l.prior_source() == LearningConfig::LEARNED;
  const bool replayed = l.prior_source() == LearningConfig::REPLAY;
  const bool cross_entropy = l.divergence() == LearningConfig::CROSS_ENTROPY;
  const bool squashed = m.policy_form() == ModelConfig::SQUASHED;
  // A weight out of range was meant to be one.
  const bool has_kl_weight = l.kl_weight() != 0 || l.kl_weight_final() != 0;
  const bool uses_divergence =
      l.policy_objective() == LearningConfig::REGULARISED && (has_kl_weight || l.has_target_kl());

  rules.Require(
      (m.value_kind() == ModelConfig::Q) == (l.value_target() == LearningConfig::Q_MODEL_FREE),
      {"model.value_kind", "learning.value_target"},
      "value_kind Q goes with Q_MODEL_FREE, V with V_MODEL_BASED");
  rules.Require(l.td_horizon() == 1 || l.value_target() == LearningConfig::V_MODEL_BASED,
                {"learning.td_horizon", "learning.value_target"},
                "only V_MODEL_BASED looks further than 1 step");
  rules.Require(l.discount_min() <= l.discount_max(),
                {"learning.discount_min", "learning.discount_max"},
                "discount_min must be at most discount_max");

  if (l.policy_objective() == LearningConfig::BC) {
    rules.Require(has_kl_weight, {"learning.policy_objective", "learning.kl_weight"},
                  "BC needs a kl_weight, or the policy learns nothing");
  } else if (l.policy_objective() != LearningConfig::AWAC) {
    rules.Require(l.return_weight() > 0 || has_kl_weight || l.has_target_kl(),
                  {"learning.return_weight", "learning.kl_weight"},
                  "one must be greater than 0, or the policy learns nothing");
  }
  rules.Require(l.has_kl_weight_final() == l.has_kl_weight_steps(),
                {"learning.kl_weight_final", "learning.kl_weight_steps"},
                "set both for a schedule, or neither");
  rules.Require(!l.has_target_kl() || !l.has_kl_weight_final(),
                {"learning.target_kl", "learning.kl_weight_final"},
                "the KL weight is either tuned to a target or scheduled");
  rules.Require(
      !l.has_target_kl() || l.kl_weight() > 0, {"learning.target_kl", "learning.kl_weight"},
      "tuning starts from kl_weight and works on its logarithm: it must be greater than 0");
  rules.Require(!l.has_target_kl() || !cross_entropy, {"learning.target_kl", "learning.divergence"},
                "a cross entropy has no target in nats of KL");
  if (uses_divergence && cross_entropy) {
    rules.Require(l.return_weight() > 0, {"learning.divergence", "learning.return_weight"},
                  "CROSS_ENTROPY is scaled by the spread of the return: return_weight must be "
                  "greater than 0");
    rules.Require(replayed, {"learning.divergence", "learning.prior_source"},
                  "CROSS_ENTROPY needs prior_source REPLAY");
    rules.Require(squashed, {"learning.divergence", "model.policy_form"},
                  "CROSS_ENTROPY needs policy_form SQUASHED");
  } else if (uses_divergence) {
    rules.Require(!squashed, {"learning.divergence", "model.policy_form"},
                  "FORWARD and REVERSE have a closed form for policy_form TANH_MEAN only");
  }

  rules.Require(squashed || !l.entropy_tanh_correction(),
                {"learning.entropy_tanh_correction", "model.policy_form"},
                "the correction is for policy_form SQUASHED only");
  if (l.policy_objective() != LearningConfig::REGULARISED) {
    rules.Require(!l.has_target_kl(), {"learning.policy_objective", "learning.target_kl"},
                  "only a REGULARISED policy has a KL to tune");
    rules.Require(replayed, {"learning.policy_objective", "learning.prior_source"},
                  "an objective that is not REGULARISED needs prior_source REPLAY");
    rules.Require(squashed && m.value_kind() == ModelConfig::Q,
                  {"learning.policy_objective", "model.policy_form", "model.value_kind"},
                  "an objective that is not REGULARISED needs policy_form SQUASHED and Q heads");
    rules.Require(!l.policy_loss_on_last_latent(),
                  {"learning.policy_objective", "learning.policy_loss_on_last_latent"},
                  "the last latent has neither a replayed action nor a planner prior");
  }
  rules.Require(!learned || uses_divergence || config.planner().proposal_mix() > 0,
                {"learning.prior_source", "learning.kl_weight", "planner.proposal_mix"},
                "nothing uses the LEARNED prior: give it a weight, or say prior_source REPLAY and "
                "reanalyze_windows 0");
  rules.Require(!learned || !squashed, {"learning.prior_source", "model.policy_form"},
                "a LEARNED prior needs policy_form TANH_MEAN");
  rules.Require(config.planner().proposal_mix() == 0 || learned,
                {"planner.proposal_mix", "learning.prior_source"},
                "only a LEARNED prior can propose sequences");
  rules.Require(!l.policy_loss_on_last_latent() || !uses_divergence || learned,
                {"learning.policy_loss_on_last_latent", "learning.prior_source"},
                "the last latent has no planner prior: needs kl_weight 0 or a LEARNED prior");
  rules.Require(l.reanalyze_windows() <= l.batch_size(),
                {"learning.reanalyze_windows", "learning.batch_size"},
                "reanalyze_windows must be at most batch_size");
  rules.Require(l.prior_source() != LearningConfig::REANALYZED || l.reanalyze_windows() > 0,
                {"learning.prior_source", "learning.reanalyze_windows"},
                "REANALYZED needs windows to re-plan");
  rules.Require(!replayed || l.reanalyze_windows() == 0,
                {"learning.prior_source", "learning.reanalyze_windows"},
                "REPLAY keeps the prior as stored: reanalyze_windows must be 0");
  rules.Require(l.reanalyze_log_std_min() < l.reanalyze_log_std_max(),
                {"learning.reanalyze_log_std_min", "learning.reanalyze_log_std_max"},
                "reanalyze_log_std_min must be less than reanalyze_log_std_max");
}

// max_parameter_lag_updates 0: the actor counts what is called for from its own decisions, which
// must be all there are and each be in replay before the next.
void CheckLockStep(const v1::RunConfig& config, double seed_phase, Rules& rules) {
  const v1::ActorConfig& a = config.actor();
  rules.Require(
      a.num_actors() == 1 && a.environments_per_actor() == 1,
      {"actor.max_parameter_lag_updates", "actor.num_actors", "actor.environments_per_actor"},
      "lock-step (lag 0) is for one environment in one actor");
  rules.Require(
      a.segment_rows() == 1 && config.replay().rate_tolerance_updates() == 1,
      {"actor.max_parameter_lag_updates", "actor.segment_rows", "replay.rate_tolerance_updates"},
      "lock-step (lag 0) needs segment_rows 1 and rate_tolerance_updates 1");
  rules.Require(seed_phase > config.learning().window(),
                {"actor.max_parameter_lag_updates", "learning.seed_decisions",
                 "learning.seed_episodes", "learning.window"},
                "in lock-step (lag 0) the seed phase of ", Number(seed_phase),
                " decisions must fill a window, or the first update never comes");
}

// What would make the run wait for ever, or end before it learns.
void CheckFlow(const v1::RunConfig& config, Rules& rules) {
  const LearningConfig& l = config.learning();
  const v1::EnvironmentConfig& e = config.environment();
  // In double, which no value overflows.
  const double episode_steps = e.has_episode_steps() ? e.episode_steps() : kDefaultEpisodeSteps;
  const double episode = std::max(1.0, std::floor(episode_steps / std::max(1, e.action_repeat())));
  const double seed_phase = std::max<double>(l.seed_decisions(), l.seed_episodes() * episode);

  rules.Require(l.window() <= episode,
                {"learning.window", "environment.episode_steps", "environment.action_repeat"},
                "an episode of ", Number(episode), " decisions holds no such window");
  rules.Require(config.total_decisions() > seed_phase,
                {"total_decisions", "learning.seed_decisions", "learning.seed_episodes",
                 "environment.episode_steps", "environment.action_repeat"},
                "the run would end in its seed phase of ", Number(seed_phase), " decisions");
  // An episode's last observation is a row of its own.
  const double seed_rows = seed_phase + std::floor(seed_phase / episode) + 1;
  rules.Require(config.replay().capacity_rows() >= seed_rows,
                {"replay.capacity_rows", "learning.seed_decisions", "learning.seed_episodes",
                 "environment.episode_steps", "environment.action_repeat"},
                "must hold the ", Number(seed_rows), " rows of the seed phase");

  const v1::ActorConfig& a = config.actor();
  if (a.max_parameter_lag_updates() == 0) {
    CheckLockStep(config, seed_phase, rules);
  } else {
    rules.Require(config.learner().publish_every() <= a.max_parameter_lag_updates(),
                  {"learner.publish_every", "actor.max_parameter_lag_updates"},
                  "actors would wait for parameters that are not yet due: publish_every must be "
                  "at most max_parameter_lag_updates");
  }
  // A learner at the upper end of the band waits for rows; the next segment, which comes whole,
  // must not lead out of the lower end.
  rules.Require(
      a.segment_rows() * l.updates_per_decision() <= 2 * config.replay().rate_tolerance_updates(),
      {"replay.rate_tolerance_updates", "actor.segment_rows", "learning.updates_per_decision"},
      "one segment is worth ", Number(a.segment_rows() * l.updates_per_decision()),
      " updates and must fit into the band of 2 * rate_tolerance_updates, or both sides wait");
  rules.Require(a.groups() <= a.environments_per_actor(),
                {"actor.groups", "actor.environments_per_actor"},
                "each group needs an environment: groups must be at most environments_per_actor");

  const v1::LearnerConfig& learner = config.learner();
  for (const auto& [path, device] :
       {std::pair("actor.device", a.device()), std::pair("learner.device", learner.device()),
        std::pair("reanalyze.device", config.reanalyze().device())}) {
    rules.Require(IsDevice(device), {path}, "must be cpu, cuda or cuda:N");
  }
  rules.Require(config.learning().batch_size() % std::max(1, learner.data_parallel()) == 0,
                {"learner.data_parallel", "learning.batch_size"},
                "each GPU has an equal part of the batch: batch_size must be a multiple of "
                "data_parallel");
  rules.Require(learner.data_parallel() == 1 || learner.device() != "cuda",
                {"learner.data_parallel", "learner.device"},
                "the first of several GPUs is given with its number: cuda:N");
  rules.Require(!learner.has_reanalyze_device() || IsDevice(learner.reanalyze_device()),
                {"learner.reanalyze_device"}, "must be cpu, cuda or cuda:N");
  rules.Require(!learner.has_reanalyze_device() || learner.reanalyze_ahead(),
                {"learner.reanalyze_device", "learner.reanalyze_ahead"},
                "only windows that are planned ahead are planned elsewhere");
  rules.Require(
      !learner.reanalyze_ahead() || config.replay().rate_tolerance_updates() >= 2,
      {"learner.reanalyze_ahead", "replay.rate_tolerance_updates"},
      "one batch is drawn ahead of its update: rate_tolerance_updates must be at least 2");
  rules.Require(learner.matmul_precision() != v1::BF16, {"learner.matmul_precision"},
                "updates are computed in FP32 or TF32; BF16 is for planning");
  const bool workers = config.reanalyze().num_workers() > 0;
  rules.Require(!workers || config.learning().prior_source() != LearningConfig::REPLAY,
                {"reanalyze.num_workers", "learning.prior_source"},
                "REPLAY keeps the prior as stored: no worker may re-plan it");
  rules.Require(!workers || a.max_parameter_lag_updates() > 0,
                {"reanalyze.num_workers", "actor.max_parameter_lag_updates"},
                "a run in lock-step has no workers that go at a pace of their own");
  rules.Require(!e.task().empty(), {"environment.task"}, "must name a task");
}

}  // namespace

std::vector<std::string> Mistakes(const v1::RunConfig& config) {
  std::vector<std::string> mistakes;
  std::set<std::string> out_of_range;
  ForEachField(
      config, [&](const std::string& path, const Message& holder, const FieldDescriptor& field) {
        if (!field.has_default_value() && !holder.GetReflection()->HasField(holder, &field)) return;
        const std::optional<double> value = NumericValue(holder, field);
        if (!value.has_value()) return;
        const bool has_range = field.options().HasExtension(v1::range);
        const v1::Range& range = field.options().GetExtension(v1::range);
        if (std::isfinite(*value) && InRange(range, *value)) return;
        mistakes.push_back(absl::StrCat(path, " = ", Number(*value), ": must be ",
                                        has_range ? Allowed(range) : "finite"));
        out_of_range.insert(path);
      });
  Rules rules(config, out_of_range);
  CheckModelAndPlanner(config, rules);
  CheckLosses(config, rules);
  CheckFlow(config, rules);
  for (std::string& mistake : rules.Take()) mistakes.push_back(std::move(mistake));
  return mistakes;
}

absl::Status Validate(const v1::RunConfig& config) {
  const std::vector<std::string> mistakes = Mistakes(config);
  if (mistakes.empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrJoin(mistakes, "\n"));
}

}  // namespace pompc
