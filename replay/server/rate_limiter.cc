#include "replay/server/rate_limiter.h"

#include <algorithm>
#include <cmath>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace pompc {
namespace {

// Of InsertRoom(): without an end, yet far from an overflow.
constexpr int64_t kMaxRoom = int64_t{1} << 50;

}  // namespace

absl::StatusOr<RateLimiter> RateLimiter::Create(const v1::RateLimits& limits) {
  if (limits.seed_decisions() < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("limits.seed_decisions: ", limits.seed_decisions(), "; must be at least 0"));
  }
  if (limits.pretrain_updates() < 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "limits.pretrain_updates: ", limits.pretrain_updates(), "; must be at least 0"));
  }
  if (!std::isfinite(limits.updates_per_decision()) || limits.updates_per_decision() <= 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("limits.updates_per_decision: ", limits.updates_per_decision(),
                     "; must be greater than 0"));
  }
  const double ahead = limits.max_updates_ahead();
  const double behind = limits.max_updates_behind();
  if (!(ahead >= 0) || !(behind >= 0) || !std::isfinite(ahead) || !std::isfinite(behind)) {
    return absl::InvalidArgumentError(absl::StrCat("limits.max_updates_ahead, max_updates_behind: ",
                                                   ahead, ", ", behind, "; must be at least 0"));
  }
  if (ahead + behind < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("limits.max_updates_ahead + max_updates_behind: ", ahead + behind,
                     "; must be at least 1, one update, or inserts and samples would block each "
                     "other for ever"));
  }
  return RateLimiter(limits);
}

double RateLimiter::Lead() const {
  return static_cast<double>(updates_ - limits_.pretrain_updates()) -
         limits_.updates_per_decision() *
             static_cast<double>(decisions_ - limits_.seed_decisions());
}

bool RateLimiter::CanInsert(bool has_window) const {
  if (granted_.has_value()) return decisions_ < *granted_;
  if (!has_window || decisions_ < limits_.seed_decisions()) return true;
  if (updates_ < limits_.pretrain_updates()) return false;
  return Lead() > -limits_.max_updates_behind();
}

int64_t RateLimiter::InsertRoom(bool has_window) const {
  if (!CanInsert(has_window)) return 0;
  // Any room will do for what is always allowed: when it is used, there is more.
  int64_t room = std::max<int64_t>(1, limits_.seed_decisions() - decisions_);
  if (updates_ >= limits_.pretrain_updates()) {
    const double in_band = (Lead() + limits_.max_updates_behind()) / limits_.updates_per_decision();
    if (in_band >= kMaxRoom) return kMaxRoom;
    room = std::max(room, static_cast<int64_t>(std::ceil(in_band)));
  }
  return room;
}

bool RateLimiter::CanSample(bool has_window) const {
  if (!has_window || decisions_ < limits_.seed_decisions()) return false;
  if (updates_ < limits_.pretrain_updates()) return true;
  return Lead() + 1 <= limits_.max_updates_ahead();
}

}  // namespace pompc
