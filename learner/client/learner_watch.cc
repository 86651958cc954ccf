#include "learner/client/learner_watch.h"

#include "absl/strings/str_cat.h"
#include "common/base/log.h"
#include "common/rpc/status.h"

namespace pompc {

absl::Status LearnerWatch::Check(const absl::Status& stream,
                                 const std::optional<v1::JoinRequest>& join) {
  const absl::Time now = clock_->Now();
  if (stream.ok()) {
    last_contact_ = now;
    next_join_ = now + kJoinEvery;
  }
  if (now - last_contact_ >= kLearnerPatience) {
    return absl::UnavailableError(absl::StrCat("no learner for ",
                                               absl::FormatDuration(now - last_contact_),
                                               "; last error: ", stream.ToString()));
  }
  if (now < next_join_) return absl::OkStatus();
  const absl::Time deadline = now + absl::Seconds(1);
  const absl::Status answer = join.has_value() ? learner_->Join(*join, deadline).status()
                                               : learner_->GetStatus(deadline).status();
  next_join_ = clock_->Now() + kJoinEvery;
  if (answer.ok()) {
    last_contact_ = clock_->Now();  // It is there, if not ready to publish.
    if (join.has_value()) POMPC_LOG(INFO) << "joined again index=" << join->index();
  }
  return IsRefusal(answer) ? answer : absl::OkStatus();
}

}  // namespace pompc
