#include "actor/loop/peers.h"

#include "absl/strings/str_cat.h"
#include "common/base/log.h"
#include "common/rpc/status.h"

namespace pompc {

v1::JoinRequest MakeJoinRequest(v1::Role role, std::optional<int64_t> index,
                                const v1::TaskSizes& sizes) {
  v1::JoinRequest request;
  request.set_role(role);
  if (index.has_value()) request.set_index(*index);
  *request.mutable_sizes() = sizes;
  return request;
}

absl::StatusOr<v1::JoinResponse> JoinRun(const ActingPeers& peers, v1::Role role,
                                         std::optional<int64_t> index, const v1::TaskSizes& sizes) {
  const v1::JoinRequest request = MakeJoinRequest(role, index, sizes);
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
  const absl::Status stream = peers_.parameters->status();
  const absl::Time now = peers_.clock->Now();
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
  const absl::Status joined = peers_.learner->Join(join_, now + absl::Seconds(1)).status();
  next_join_ = peers_.clock->Now() + kJoinEvery;
  if (joined.ok()) {
    last_contact_ = peers_.clock->Now();  // It is there, if not ready to publish.
    POMPC_LOG(INFO) << "joined again index=" << join_.index();
  }
  return IsRefusal(joined) ? joined : absl::OkStatus();
}

}  // namespace pompc
