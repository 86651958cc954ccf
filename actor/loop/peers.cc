#include "actor/loop/peers.h"

#include <utility>

#include "common/base/log.h"
#include "common/base/nonce.h"
#include "common/base/status_macros.h"

namespace pompc {

absl::StatusOr<JoinedRun> JoinRun(const ActingPeers& peers, v1::Role role,
                                  std::optional<int64_t> index, const v1::TaskSizes& sizes) {
  v1::JoinRequest request;
  request.set_role(role);
  if (index.has_value()) request.set_index(*index);
  *request.mutable_sizes() = sizes;
  request.set_nonce(DrawNonce());
  POMPC_ASSIGN_OR_RETURN(
      v1::JoinResponse answer,
      AskLearner(*peers.stop, peers.clock, peers.clock->Now() + kLearnerPatience,
                 [&](absl::Time deadline) { return peers.learner->Join(request, deadline); }));
  POMPC_LOG(INFO) << "joined the run as " << v1::Role_Name(role) << " index=" << answer.index()
                  << " writer_id=" << answer.writer_id();
  request.set_index(answer.index());
  return JoinedRun{.request = std::move(request), .answer = std::move(answer)};
}

}  // namespace pompc
