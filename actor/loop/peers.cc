#include "actor/loop/peers.h"

#include "absl/strings/str_cat.h"
#include "common/base/log.h"

namespace pompc {

absl::StatusOr<v1::JoinResponse> JoinRun(const ActingPeers& peers, v1::Role role,
                                         std::optional<int64_t> index, const v1::TaskSizes& sizes) {
  v1::JoinRequest request;
  request.set_role(role);
  if (index.has_value()) request.set_index(*index);
  *request.mutable_sizes() = sizes;
  absl::StatusOr<v1::JoinResponse> join =
      AskLearner(*peers.stop, peers.clock, peers.clock->Now() + kLearnerPatience,
                 [&](absl::Time deadline) { return peers.learner->Join(request, deadline); });
  if (join.ok()) {
    POMPC_LOG(INFO) << "joined the run as " << v1::Role_Name(role) << " index=" << join->index()
                    << " writer_id=" << join->writer_id();
  }
  return join;
}

absl::Status LearnerWatch::Check() {
  const absl::Status stream = parameters_->status();
  const absl::Time now = clock_->Now();
  if (stream.ok()) last_contact_ = now;
  if (now - last_contact_ < kLearnerPatience) return absl::OkStatus();
  return absl::UnavailableError(absl::StrCat("no learner for ",
                                             absl::FormatDuration(now - last_contact_),
                                             "; last error: ", stream.ToString()));
}

}  // namespace pompc
