#include "learner/client/learner_watch.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/base/log.h"
#include "common/rpc/status.h"

namespace pompc {

absl::Status LearnerWatch::Check(const absl::Status& stream, const v1::JoinRequest* join) {
  const absl::Time now = clock_->Now();
  if (stream.ok()) {
    away_since_ = absl::InfiniteFuture();
    next_ask_ = now + kAskEvery;
    return absl::OkStatus();
  }
  if (now < next_ask_) return absl::OkStatus();
  const absl::Time deadline = now + absl::Seconds(1);
  const absl::Status answer = join != nullptr ? learner_->Join(*join, deadline).status()
                                              : learner_->GetStatus(deadline).status();
  next_ask_ = clock_->Now() + kAskEvery;
  if (answer.ok()) {  // It is there, if not ready to publish.
    away_since_ = absl::InfiniteFuture();
    if (join != nullptr) POMPC_LOG(INFO) << "joined again index=" << join->index();
    return absl::OkStatus();
  }
  if (IsRefusal(answer)) return answer;
  away_since_ = std::min(away_since_, now);
  if (now - away_since_ < kLearnerPatience) return absl::OkStatus();
  return absl::UnavailableError(absl::StrCat("no learner for ",
                                             absl::FormatDuration(now - away_since_),
                                             "; last error: ", answer.ToString()));
}

}  // namespace pompc
