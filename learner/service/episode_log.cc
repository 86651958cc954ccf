#include "learner/service/episode_log.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/log.h"
#include "common/base/mean.h"
#include "common/base/status_macros.h"

namespace pompc {
namespace {

constexpr size_t kTrainingReturns = 10;  // Over which the training return is a mean.

absl::Status CheckEpisode(int index, const v1::Episode& episode, int64_t newest_version,
                          int64_t most_decisions) {
  const auto wrong = [index](const char* field, const std::string& what) {
    return absl::InvalidArgumentError(absl::StrCat("episodes[", index, "].", field, ": ", what));
  };
  if (episode.role() != v1::ACTOR && episode.role() != v1::EVALUATOR) {
    return wrong("role", absl::StrCat(episode.role(), " is neither ACTOR (1) nor EVALUATOR (2)"));
  }
  const struct {
    const char* field;
    int64_t value, min;
  } counts[] = {
      {"actor_index", episode.actor_index(), 0},
      {"parameter_version", episode.parameter_version(), 0},
      {"decisions_at", episode.decisions_at(), 0},
      {"decisions", episode.decisions(), 1},
      {"env_steps", episode.env_steps(), 1},
      {"nonfinite_plans", episode.nonfinite_plans(), 0},
  };
  for (const auto& count : counts) {
    if (count.value < count.min) {
      return wrong(count.field, absl::StrCat(count.value, " is less than ", count.min));
    }
  }
  if (episode.parameter_version() > newest_version) {
    return wrong("parameter_version", absl::StrCat(episode.parameter_version(), " is more than ",
                                                   newest_version, ", the newest published"));
  }
  if (episode.decisions_at() > most_decisions) {
    return wrong("decisions_at", absl::StrCat(episode.decisions_at(), " is more than ",
                                              most_decisions, ", the decisions of the run"));
  }
  if (!std::isfinite(episode.return_())) {
    return wrong("return_", absl::StrCat(episode.return_(), " is not finite"));
  }
  if (!std::isfinite(episode.plan_seconds()) || episode.plan_seconds() < 0) {
    return wrong("plan_seconds",
                 absl::StrCat(episode.plan_seconds(), " is not finite and at least 0"));
  }
  return absl::OkStatus();
}

}  // namespace

EpisodeLog::EpisodeLog(const v1::RunConfig& config, const v1::RunBooks& books, RunRecords* records,
                       Clock* clock, MetricsRegistry* metrics)
    : total_decisions_(config.total_decisions()),
      evaluation_episodes_(config.evaluation().episodes()),
      records_(records),
      clock_(clock),
      training_return_gauge_(metrics->GetGauge("pompc_learner_training_return")),
      evaluation_return_gauge_(metrics->GetGauge("pompc_learner_evaluation_return")),
      last_sequences_(books.last_report_sequences().begin(), books.last_report_sequences().end()),
      training_episodes_(books.training_episodes()),
      training_returns_(books.training_returns().begin(), books.training_returns().end()) {
  if (books.has_evaluation_return()) {
    evaluation_return_ = books.evaluation_return();
    best_evaluation_return_ = books.best_evaluation_return();
    evaluation_decisions_ = books.evaluation_decisions();
  }
  training_return_gauge_->Set(TrainingReturn());
  // Not 0, which a return can be and which, after better ones, would be a collapse.
  evaluation_return_gauge_->Set(
      evaluation_return_.value_or(std::numeric_limits<double>::quiet_NaN()));
}

absl::Status EpisodeLog::Report(const v1::ReportEpisodesRequest& request, int64_t newest_version,
                                absl::FunctionRef<RunMoment()> moment) {
  if (request.reporter_id() == 0) return absl::InvalidArgumentError("reporter_id: 0 is not one");
  if (request.sequence() == 0) {
    return absl::InvalidArgumentError("sequence: 0; the first of a reporter is 1");
  }
  // Parameters of an earlier process may be ahead of this one, which counts from its checkpoint on,
  // and the last ones of a run beyond its end.
  const int64_t most_decisions = std::max(total_decisions_, moment().decisions);
  for (int i = 0; i < request.episodes_size(); ++i) {
    POMPC_RETURN_IF_ERROR(CheckEpisode(i, request.episodes(i), newest_version, most_decisions));
  }
  absl::MutexLock lock(&mu_);
  if (!open_) return absl::UnavailableError("the learner has not started yet, or is leaving");
  uint64_t& last_sequence = last_sequences_[request.reporter_id()];
  if (request.sequence() <= last_sequence) return absl::OkStatus();
  // The records come first: until they are written nothing counts, so that the reporter may send
  // the report again.
  std::map<int64_t, Evaluation> pending = pending_;
  std::vector<Evaluation> evaluations;
  for (const v1::Episode& episode : request.episodes()) {
    if (episode.role() != v1::EVALUATOR) continue;
    Evaluation& evaluation = pending[episode.actor_index()];
    if (evaluation.parameter_version != episode.parameter_version()) {
      if (!evaluation.returns.empty()) {
        POMPC_LOG(WARNING) << "evaluation left unfinished parameter_version="
                           << evaluation.parameter_version
                           << " episodes=" << evaluation.returns.size();
      }
      evaluation = {episode.decisions_at(), {}, episode.parameter_version()};
    }
    evaluation.returns.push_back(episode.return_());
    if (static_cast<int32_t>(evaluation.returns.size()) < evaluation_episodes_) continue;
    evaluations.push_back(std::move(evaluation));
    evaluation = {};
  }
  if (const absl::Status added = records_->AddReport(request.episodes(), evaluations, moment);
      !added.ok()) {
    POMPC_LOG(ERROR) << "cannot record episodes status=" << added;
    return absl::UnavailableError(added.message());
  }
  last_sequence = request.sequence();
  pending_ = std::move(pending);
  for (const v1::Episode& episode : request.episodes()) {
    if (episode.role() == v1::ACTOR) CountTraining(episode.return_());
    if (episode.role() == v1::EVALUATOR) evaluator_reported_ = true;
  }
  for (const Evaluation& evaluation : evaluations) CountEvaluation(evaluation);
  return absl::OkStatus();
}

void EpisodeLog::CountTraining(double value) {
  ++training_episodes_;
  training_returns_.push_back(value);
  if (training_returns_.size() > kTrainingReturns) training_returns_.pop_front();
  training_return_gauge_->Set(TrainingReturn());
}

void EpisodeLog::CountEvaluation(const Evaluation& evaluation) {
  evaluated_version_ = std::max(evaluated_version_, evaluation.parameter_version);
  evaluation_return_ = Mean(evaluation.returns);
  evaluation_decisions_ = evaluation.decisions_at;
  best_evaluation_return_ =
      std::max(best_evaluation_return_.value_or(*evaluation_return_), *evaluation_return_);
  evaluation_return_gauge_->Set(*evaluation_return_);
  POMPC_LOG(INFO) << "evaluated decisions=" << evaluation.decisions_at
                  << " return=" << *evaluation_return_ << " episodes=" << evaluation.returns.size();
}

bool EpisodeLog::AwaitEvaluation(int64_t version, absl::Time deadline) const {
  absl::MutexLock lock(&mu_);
  const auto evaluated = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    return evaluated_version_ >= version;
  };
  return clock_->AwaitUntil(&mu_, absl::Condition(&evaluated), deadline);
}

bool EpisodeLog::evaluator_reported() const {
  absl::MutexLock lock(&mu_);
  return evaluator_reported_;
}

void EpisodeLog::Open() {
  absl::MutexLock lock(&mu_);
  open_ = true;
}

void EpisodeLog::Close() {
  absl::MutexLock lock(&mu_);
  open_ = false;
}

void EpisodeLog::FillStatus(v1::RunStatus* status) const {
  absl::MutexLock lock(&mu_);
  status->set_episodes(training_episodes_);
  status->set_training_return(TrainingReturn());
  status->set_evaluation_return(evaluation_return_.value_or(0));
  status->set_best_evaluation_return(best_evaluation_return_.value_or(0));
  status->set_evaluation_decisions(evaluation_decisions_);
}

void EpisodeLog::FillBooks(v1::RunBooks* books) const {
  absl::MutexLock lock(&mu_);
  books->set_training_episodes(training_episodes_);
  for (double value : training_returns_) books->add_training_returns(value);
  if (evaluation_return_.has_value()) {
    books->set_evaluation_return(*evaluation_return_);
    books->set_best_evaluation_return(*best_evaluation_return_);
    books->set_evaluation_decisions(evaluation_decisions_);
  }
  books->mutable_last_report_sequences()->insert(last_sequences_.begin(), last_sequences_.end());
  for (const auto& [name, bytes] : records_->record_bytes()) {
    (*books->mutable_record_bytes())[name] = bytes;
  }
}

double EpisodeLog::TrainingReturn() const {
  return training_returns_.empty() ? 0 : Mean(training_returns_);
}

}  // namespace pompc
