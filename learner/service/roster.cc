#include "learner/service/roster.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/log.h"
#include "common/base/status_macros.h"
#include "google/protobuf/util/message_differencer.h"

namespace pompc {
namespace {

constexpr int64_t kMaxIndex = (int64_t{1} << 24) - 1;  // What Rng takes.

absl::Status CheckRange(const char* field, int64_t value, int64_t min, int64_t max) {
  if (min <= value && value <= max) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(field, ": ", value, " is not in [", min, ", ", max, "]"));
}

}  // namespace

Roster::Roster(const v1::RunConfig& config, std::optional<v1::TaskSizes> sizes,
               std::vector<std::string> replay_addresses, Clock* clock)
    : config_(config),
      replay_addresses_(std::move(replay_addresses)),
      clock_(clock),
      sizes_(std::move(sizes)),
      next_writer_id_(absl::ToUnixMicros(clock->Now())) {}

absl::Status Roster::CheckSizes(const v1::TaskSizes& sizes) const {
  POMPC_RETURN_IF_ERROR(CheckRange("sizes.observation_dim", sizes.observation_dim(), 1, 1'000'000));
  POMPC_RETURN_IF_ERROR(CheckRange("sizes.action_dim", sizes.action_dim(), 1, 10'000));
  POMPC_RETURN_IF_ERROR(
      CheckRange("sizes.episode_decisions", sizes.episode_decisions(), 1, 1'000'000'000));
  const int32_t window = config_.learning().window();
  if (sizes.episode_decisions() < window) {
    return absl::FailedPreconditionError(
        absl::StrCat("sizes.episode_decisions: ", sizes.episode_decisions(),
                     " is shorter than learning.window, which is ", window));
  }
  if (sizes.can_terminate() && !config_.model().predict_termination()) {
    return absl::FailedPreconditionError(
        "sizes.can_terminate: episodes of this task can terminate; set "
        "model.predict_termination=true");
  }
  return absl::OkStatus();
}

absl::StatusOr<v1::JoinResponse> Roster::Join(const v1::JoinRequest& request) {
  if (!v1::Role_IsValid(request.role()) || request.role() == v1::ROLE_UNSPECIFIED) {
    return absl::InvalidArgumentError(absl::StrCat(
        "role: ", request.role(), " is none of ACTOR (1), EVALUATOR (2), REANALYZE (3)"));
  }
  if (request.has_index()) {
    POMPC_RETURN_IF_ERROR(CheckRange("index", request.index(), 0, kMaxIndex));
  }
  if (request.nonce() == 0) {
    return absl::InvalidArgumentError(
        "nonce: 0; must be a random number > 0, another in each process");
  }
  POMPC_RETURN_IF_ERROR(CheckSizes(request.sizes()));
  const bool lock_step = config_.actor().max_parameter_lag_updates() == 0;
  if (request.role() == v1::REANALYZE &&
      (lock_step || config_.learning().prior_source() == v1::LearningConfig::REPLAY)) {
    return absl::FailedPreconditionError(
        lock_step ? "role: REANALYZE; a run in lock-step (actor.max_parameter_lag_updates = 0) has "
                    "no workers that go at a pace of their own"
                  : "role: REANALYZE; this run keeps planner priors as they were stored "
                    "(learning.prior_source = REPLAY)");
  }

  absl::MutexLock lock(&mu_);
  using google::protobuf::util::MessageDifferencer;
  if (sizes_.has_value() && !MessageDifferencer::Equals(*sizes_, request.sizes())) {
    return absl::FailedPreconditionError(
        absl::StrCat("sizes: this run has {", sizes_->ShortDebugString(), "}, the request has {",
                     request.sizes().ShortDebugString(), "}"));
  }
  POMPC_ASSIGN_OR_RETURN(const Member member, Enter(request));
  sizes_ = request.sizes();
  v1::JoinResponse response;
  response.set_index(member.index);
  response.set_writer_id(member.writer_id);
  response.set_predecessors(member.predecessors);
  for (const std::string& address : replay_addresses_) response.add_replay_addresses(address);
  return response;
}

absl::StatusOr<Roster::Member> Roster::Enter(const v1::JoinRequest& request) {
  if (const auto known = members_.find(request.nonce()); known != members_.end()) {
    const Member& member = known->second;
    if (member.role != request.role() || (request.has_index() && request.index() != member.index)) {
      return absl::InvalidArgumentError(absl::StrCat("nonce: ", request.nonce(), " is that of ",
                                                     v1::Role_Name(member.role), " ", member.index,
                                                     "; must be another in each join"));
    }
    return member;
  }
  int64_t& next_index = next_index_[request.role()];
  if (!request.has_index() && next_index > kMaxIndex) {
    return absl::ResourceExhaustedError(absl::StrCat("index: all ", kMaxIndex, " are taken"));
  }
  Member member{.role = request.role(),
                .index = request.has_index() ? request.index() : next_index,
                .writer_id = next_writer_id_};
  member.predecessors = std::count_if(members_.begin(), members_.end(), [&](const auto& entry) {
    return entry.second.role == member.role && entry.second.index == member.index;
  });
  if (member.role == v1::ACTOR && member.index > 0 &&
      config_.actor().max_parameter_lag_updates() == 0) {
    return absl::FailedPreconditionError(absl::StrCat(
        "index: ", member.index,
        "; this run is in lock-step (actor.max_parameter_lag_updates = 0), which has one actor, of "
        "index 0; one that takes its place says --index 0"));
  }
  next_index = std::max(next_index, member.index + 1);
  ++next_writer_id_;
  members_.emplace(request.nonce(), member);
  POMPC_LOG(INFO) << "joined role=" << v1::Role_Name(member.role) << " index=" << member.index
                  << " writer_id=" << member.writer_id;
  return member;
}

std::optional<v1::TaskSizes> Roster::AwaitSizes(absl::Time deadline) const {
  absl::MutexLock lock(&mu_);
  const auto known = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) { return sizes_.has_value(); };
  clock_->AwaitUntil(&mu_, absl::Condition(&known), deadline);
  return sizes_;
}

bool Roster::evaluator_joined() const {
  absl::MutexLock lock(&mu_);
  return next_index_.contains(v1::EVALUATOR);
}

}  // namespace pompc
