// ShardPlan: what makes the tables of several servers ("shards") behave as one behind one rate
// limiter, as pure arithmetic. The client that draws (sharded_sampler.h) owns it.
//
// Draws. Each window of a batch comes from a shard with probability (its windows / all windows),
// and there each window is equally likely: the batch is drawn uniformly over all windows, however
// unevenly the shards are filled. Counts are those of the last answers.
//
// Rate limits hold for the sums over the shards. Batches: a RateLimiter here counts the decisions
// that the shards told and the batches drawn, and says whether one more may be. Decisions told late
// are too few, so a batch is drawn late, never early. Inserts: of the room that the limiter leaves,
// each shard is granted an equal part, as an absolute count that its own limiter enforces. A grant
// is taken back only when the shard has answered to a smaller one, and given to others after that;
// so what is granted never exceeds the room, but by the rounding: one decision a shard, and a
// segment each, since segments are stored whole. A shard that nobody writes to thereby passes its
// part on within two rounds, and one that did not answer keeps its last grant until it is back.
//
// One side can always go on, as with one server (rate_limiter.h): while the limiter allows inserts
// every shard is granted at least one decision more than it has.
//
// Thread-safety: none. Determinism: equal calls give equal results.
#ifndef POMPC_REPLAY_CLIENT_SHARD_PLAN_H_
#define POMPC_REPLAY_CLIENT_SHARD_PLAN_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "proto/pompc/v1/replay.pb.h"
#include "replay/server/rate_limiter.h"

namespace pompc {

class ShardPlan {
 public:
  struct Counts {
    int64_t decisions = 0;  // Stored ever.
    int64_t windows = 0;    // Stored now.
    double weight = 0;      // Of them together: their number, or SampleResponse.total_weight.
  };

  // updates_done: batches drawn before. Errors: RateLimiter::Create()'s.
  static absl::StatusOr<ShardPlan> Create(const v1::RateLimits& limits, int shards,
                                          int64_t updates_done);

  // A shard tells its counts, in its answer to the grant of `granted` decisions (the last one of
  // Grants(), or 0).
  void Answered(int shard, int64_t granted, const Counts& counts);
  // A shard does not answer: nothing is drawn from it until it does.
  void Lost(int shard);

  // Whether every shard has answered once. Before that neither of the next two may be used.
  bool Known() const;
  bool CanSample() const { return limiter_.CanSample(weight() > 0); }
  // What to grant each shard now; of those that are lost the last grant.
  std::vector<int64_t> Grants();

  // The shard of each window of the next batch, [batch_size]. Requires CanSample().
  std::vector<int> Assign(uint64_t seed, int batch_size) const;
  // The batch is drawn.
  void Sampled() { limiter_.Sampled(); }

  int64_t batches() const { return limiter_.updates(); }
  int64_t decisions() const { return limiter_.decisions(); }
  // Of the shards that answer:
  int64_t windows() const;
  double weight() const;
  // The shard's part of the weight: the probability that Assign() names it.
  double Share(int shard) const { return shards_[shard].counts.weight / weight(); }

 private:
  struct Shard {
    bool known = false;
    bool present = false;
    Counts counts;
    int64_t granted = 0;  // The most that it may hold for granted.
  };

  ShardPlan(const RateLimiter& limiter, int shards) : limiter_(limiter), shards_(shards) {}

  RateLimiter limiter_;
  std::vector<Shard> shards_;
};

}  // namespace pompc

#endif  // POMPC_REPLAY_CLIENT_SHARD_PLAN_H_
