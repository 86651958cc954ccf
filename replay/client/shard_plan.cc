#include "replay/client/shard_plan.h"

#include <algorithm>

#include "common/base/rng.h"
#include "common/base/status_macros.h"
#include "replay/client/shards.h"

namespace pompc {

absl::StatusOr<ShardPlan> ShardPlan::Create(const v1::RateLimits& limits, int shards,
                                            int64_t updates_done) {
  POMPC_ASSIGN_OR_RETURN(RateLimiter limiter, RateLimiter::Create(limits));
  limiter.SetUpdates(updates_done);
  return ShardPlan(limiter, shards);
}

void ShardPlan::Answered(int shard, int64_t granted, const Counts& counts) {
  Shard& s = shards_[shard];
  limiter_.Inserted(counts.decisions - s.counts.decisions);
  s = {.known = true, .present = true, .counts = counts, .granted = granted};
}

void ShardPlan::Lost(int shard) { shards_[shard].present = false; }

bool ShardPlan::Known() const {
  return std::all_of(shards_.begin(), shards_.end(), [](const Shard& s) { return s.known; });
}

int64_t ShardPlan::windows() const {
  int64_t windows = 0;
  for (const Shard& s : shards_) windows += s.present ? s.counts.windows : 0;
  return windows;
}

double ShardPlan::weight() const {
  double weight = 0;
  for (const Shard& s : shards_) weight += s.present ? s.counts.weight : 0;
  return weight;
}

std::vector<int64_t> ShardPlan::Grants() {
  const auto unused = [](const Shard& s) {
    return std::max<int64_t>(0, s.granted - s.counts.decisions);
  };
  // Room for the shards that answer, and what of it is not granted yet.
  int64_t room = limiter_.InsertRoom(weight() > 0), present = 0;
  for (const Shard& s : shards_) {
    room -= s.present ? 0 : unused(s);
    present += s.present ? 1 : 0;
  }
  const int64_t part = present == 0 ? 0 : (std::max<int64_t>(0, room) + present - 1) / present;
  int64_t pool = part * present;
  for (const Shard& s : shards_) pool -= s.present ? unused(s) : 0;

  std::vector<int64_t> grants;
  for (Shard& s : shards_) {
    int64_t grant = s.granted;
    if (s.present) {
      const int64_t held = s.counts.decisions + unused(s), target = s.counts.decisions + part;
      const int64_t raise = std::clamp<int64_t>(target - held, 0, std::max<int64_t>(0, pool));
      grant = std::min(target, held + raise);
      pool -= raise;
      s.granted = std::max(s.granted, grant);  // Until it has answered to a smaller one.
    }
    grants.push_back(grant);
  }
  return grants;
}

std::vector<int> ShardPlan::Assign(uint64_t seed, int batch_size) const {
  std::vector<double> weights;
  for (const Shard& s : shards_) weights.push_back(s.present ? s.counts.weight : 0);
  // Of its own: the shards draw from the streams of the smaller indices.
  Rng rng(seed, RngRole::kReplaySampler, static_cast<uint32_t>(shards_.size()), batches());
  return DrawShards(weights, batch_size, rng);
}

}  // namespace pompc
