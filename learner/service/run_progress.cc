#include "learner/service/run_progress.h"

#include <utility>

namespace pompc {
namespace {

constexpr absl::Duration kMarkEvery = absl::Seconds(1);
constexpr absl::Duration kRateOver = absl::Seconds(5);

}  // namespace

void RunProgress::Set(const Counts& counts) {
  const absl::Time now = clock_->Now();
  absl::MutexLock lock(&mu_);
  counts_ = counts;
  if (marks_.empty() || now - marks_.back().time >= kMarkEvery) {
    marks_.push_back({now, counts.decisions, counts.updates});
    while (now - marks_.front().time > kRateOver) marks_.pop_front();
  }
}

void RunProgress::SetLosses(std::map<std::string, double> losses) {
  absl::MutexLock lock(&mu_);
  losses_ = std::move(losses);
}

RunMoment RunProgress::Now() const {
  const absl::Time now = clock_->Now();
  absl::MutexLock lock(&mu_);
  return Moment(now);
}

RunMoment RunProgress::Moment(absl::Time now) const {
  RunMoment moment = {.decisions = counts_.decisions,
                      .updates = counts_.updates,
                      .seconds = seconds_before_ + absl::ToDoubleSeconds(now - start_),
                      .time = now,
                      .updates_per_decision = counts_.updates_per_decision};
  if (marks_.empty() || now - marks_.front().time < kMarkEvery) return moment;
  const double elapsed = absl::ToDoubleSeconds(now - marks_.front().time);
  moment.updates_per_second =
      static_cast<double>(counts_.updates - marks_.front().updates) / elapsed;
  moment.decisions_per_second =
      static_cast<double>(counts_.decisions - marks_.front().decisions) / elapsed;
  return moment;
}

void RunProgress::FillStatus(v1::RunStatus* status) const {
  const absl::Time now = clock_->Now();
  absl::MutexLock lock(&mu_);
  status->set_phase(counts_.phase);
  status->set_decisions(counts_.decisions);
  status->set_total_decisions(total_decisions_);
  status->set_env_steps(counts_.decisions * action_repeat_);
  status->set_updates(counts_.updates);
  status->set_parameter_version(counts_.parameter_version);
  status->set_replay_rows(counts_.replay_rows);
  status->set_sample_age_updates(counts_.sample_age_updates);
  status->set_parameter_lag_updates(counts_.parameter_lag_updates);
  status->set_updates_per_decision(counts_.updates_per_decision);
  const RunMoment moment = Moment(now);
  status->set_seconds(moment.seconds);
  status->mutable_losses()->insert(losses_.begin(), losses_.end());
  status->set_updates_per_second(moment.updates_per_second);
  status->set_decisions_per_second(moment.decisions_per_second);
  // Each decision of a trained actor is one plan.
  if (counts_.planning) status->set_plans_per_second(status->decisions_per_second());
}

}  // namespace pompc
