// The rule that couples inserts to samples: v1::RateLimits of replay.proto, as a pure state
// machine.
//
// Counts decisions inserted and batches drawn ("updates") and says whether each side may go on.
// With
//
//   lead = updates - pretrain_updates - updates_per_decision * (decisions - seed_decisions)
//
//   phase        while                       insert                sample
//   no window    nothing can be drawn        always                never
//   seeding      decisions < seed_decisions  always                never
//   pretraining  updates < pretrain_updates  never                 always
//   training                                 lead > -max_..behind  lead + 1 <= max_..ahead
//
// A segment that arrives when inserts are allowed is taken whole, so decisions may overshoot by one
// segment. At least one side can always go on: in training both are blocked only if
// max_updates_ahead - 1 < lead <= -max_updates_behind, which Create() rules out.
//
// A table that several servers share has one limiter, with the client that draws from all of them
// (replay/client/shard_plan.h); each server's own then only counts, and inserts are allowed up to
// what it was granted.
//
// Thread-safety: none. No clock, no threads; Replay (replay.h) makes peers wait.
#ifndef POMPC_REPLAY_SERVER_RATE_LIMITER_H_
#define POMPC_REPLAY_SERVER_RATE_LIMITER_H_

#include <cstdint>
#include <optional>

#include "absl/status/statusor.h"
#include "proto/pompc/v1/replay.pb.h"

namespace pompc {

class RateLimiter {
 public:
  // INVALID_ARGUMENT, naming the field: a value out of range, or a band so narrow that inserts and
  // samples would block each other for ever.
  static absl::StatusOr<RateLimiter> Create(const v1::RateLimits& limits);

  // `has_window`: whether a window could be drawn now.
  bool CanInsert(bool has_window) const;
  bool CanSample(bool has_window) const;
  // Decisions after which CanInsert() turns false if no batch is drawn meanwhile, within rounding;
  // 0 when it is.
  int64_t InsertRoom(bool has_window) const;

  // From now on inserts are allowed while decisions() < `decisions`, whatever the limits say.
  void Grant(int64_t decisions) { granted_ = decisions; }

  void Inserted(int64_t decisions) { decisions_ += decisions; }
  void Sampled() { ++updates_; }
  // Counts on from `updates`, for a learner that goes back to a checkpoint. >= 0.
  void SetUpdates(int64_t updates) { updates_ = updates; }

  int64_t decisions() const { return decisions_; }
  int64_t updates() const { return updates_; }

 private:
  explicit RateLimiter(const v1::RateLimits& limits) : limits_(limits) {}

  // Updates made beyond what the decisions call for; negative: too few.
  double Lead() const;

  v1::RateLimits limits_;
  int64_t decisions_ = 0;
  int64_t updates_ = 0;
  std::optional<int64_t> granted_;
};

}  // namespace pompc

#endif  // POMPC_REPLAY_SERVER_RATE_LIMITER_H_
