#include "actor/loop/episode_reporter.h"

#include <utility>

#include "common/base/log.h"
#include "common/rpc/status.h"

namespace pompc {
namespace {

// Of one attempt, which bounds how long the destructor waits.
constexpr absl::Duration kCallTimeout = absl::Seconds(2);
// Before a report is sent again; the client has already retried within the attempt.
constexpr absl::Duration kRetryPause = absl::Seconds(1);

}  // namespace

EpisodeReporter::EpisodeReporter(LearnerClient* client, uint64_t reporter_id, Clock* clock)
    : client_(client),
      reporter_id_(reporter_id),
      clock_(clock),
      thread_("reporter", [this] { SendLoop(); }) {}

EpisodeReporter::~EpisodeReporter() {
  absl::MutexLock lock(&mu_);
  stopping_ = true;
}

void EpisodeReporter::Add(v1::Episode episode) {
  absl::MutexLock lock(&mu_);
  *pending_.add_episodes() = std::move(episode);
}

int64_t EpisodeReporter::learner_updates() const {
  absl::MutexLock lock(&mu_);
  return learner_updates_;
}

void EpisodeReporter::ForgetLearnerUpdates() {
  absl::MutexLock lock(&mu_);
  learner_updates_ = 0;
}

absl::Status EpisodeReporter::Flush(absl::Time deadline) {
  absl::MutexLock lock(&mu_);
  if (clock_->AwaitUntil(&mu_, absl::Condition(this, &EpisodeReporter::Idle), deadline)) {
    return absl::OkStatus();
  }
  return absl::DeadlineExceededError("the learner has not acknowledged all episodes");
}

void EpisodeReporter::SendLoop() {
  absl::MutexLock lock(&mu_);
  uint64_t sequence = 0;
  while (true) {
    mu_.Await(absl::Condition(this, &EpisodeReporter::MayProceed));
    if (stopping_) return;
    v1::ReportEpisodesRequest report = std::move(pending_);
    pending_.Clear();
    report.set_reporter_id(reporter_id_);
    report.set_sequence(++sequence);
    sending_ = true;
    while (sending_ && !stopping_) {
      mu_.Unlock();
      const absl::StatusOr<v1::ReportEpisodesResponse> response =
          client_->ReportEpisodes(report, clock_->Now() + kCallTimeout);
      mu_.Lock();
      if (response.ok()) {
        learner_updates_ = response->learner_updates();
        sending_ = false;
      } else if (IsRefusal(response.status()) || absl::IsCancelled(response.status())) {
        // CANCELLED: our client was closed, nobody will answer any more.
        POMPC_LOG(ERROR) << "the learner refused episodes: " << response.status()
                         << " episodes=" << report.episodes_size();
        sending_ = false;
      } else {
        clock_->AwaitUntil(&mu_, absl::Condition(&stopping_), clock_->Now() + kRetryPause);
      }
    }
  }
}

}  // namespace pompc
