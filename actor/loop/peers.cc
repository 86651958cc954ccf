#include "actor/loop/peers.h"

#include "common/base/log.h"
#include "common/base/nonce.h"

namespace pompc {

v1::JoinRequest MakeJoinRequest(v1::Role role, std::optional<int64_t> index,
                                const v1::TaskSizes& sizes) {
  v1::JoinRequest request;
  request.set_role(role);
  if (index.has_value()) request.set_index(*index);
  *request.mutable_sizes() = sizes;
  request.set_nonce(DrawNonce());
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

}  // namespace pompc
