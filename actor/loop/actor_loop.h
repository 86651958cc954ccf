// ActorLoop: the life of an actor. It plans, steps its environments, writes rows to replay, reports
// episodes and takes new parameters, until the run is finished or it is told to stop.
//
// One decision: (1) take the newest parameters; (2) while they lag too far behind the learner, or
// in lock-step behind the decisions made, wait for newer ones; (3) decide for all E environments in
// one batch; (4) step each; (5) write its row, and at its episode's end the last observation;
// report the episode and start the next.
//
// When the learner is away the actor goes on with the parameters it has, for as long as replay
// takes its rows; an episode report is kept until it is acknowledged. When replay holds rows back
// (its rate limiter, or it is away) the actor waits with the row in hand.
//
// Thread-safety: none; Run() is called once. Besides the calling thread there is the reporter's.
// Determinism: equal (seed, index) and equal snapshots at equal decisions give bit-equal rows. The
//   run's decisions as of the first snapshot are the step of the environments' seeds and the high
//   half of every decision's step, so that an actor that was restarted does not repeat itself.
#ifndef POMPC_ACTOR_LOOP_ACTOR_LOOP_H_
#define POMPC_ACTOR_LOOP_ACTOR_LOOP_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "actor/loop/acting_policy.h"
#include "actor/loop/episode_reporter.h"
#include "actor/loop/episodes.h"
#include "actor/loop/metrics.h"
#include "actor/loop/peers.h"
#include "learner/client/row.h"
#include "proto/pompc/v1/config.pb.h"
#include "proto/pompc/v1/learner.pb.h"
#include "replay/client/episode_writer.h"

namespace pompc {

class ActorLoop {
 public:
  // `episodes`: the config's environments; they are seeded here. `join`: the learner's answer.
  // INVALID_ARGUMENT: config, sizes or index that cannot be.
  static absl::StatusOr<std::unique_ptr<ActorLoop>> Create(const v1::RunConfig& config,
                                                           const v1::JoinResponse& join,
                                                           std::unique_ptr<Episodes> episodes,
                                                           const ActingPeers& peers);

  // Blocks until the run is finished or `stop` is raised, then flushes for up to 10 s what is worth
  // it: OK. UNAVAILABLE: the learner has been away for 5 minutes. Others: a broken snapshot, an
  // environment that does not start, or replay refused a segment for good.
  absl::Status Run();

  int64_t decisions() const { return decisions_; }  // Of each environment.

 private:
  ActorLoop(const v1::RunConfig& config, const v1::JoinResponse& join,
            std::unique_ptr<Episodes> episodes, std::unique_ptr<ActingPolicy> policy,
            const ActingPeers& peers);

  // Seeds the environments and starts their first episodes.
  absl::Status StartEpisodes();
  // Whether to leave: told to stop, or the newest snapshot says that the run is finished.
  bool Leaving() const;
  // Until there are parameters that are new enough, or Leaving().
  absl::Status TakeParameters();
  bool LagsTooFar() const;
  absl::Status Decide();
  absl::Status EndEpisode(int e, const Row& last_decision);
  absl::Status CheckLearner() { return watch_.Check(peers_.parameters->status(), joined_with_); }
  // Follows a write to e's writer until the row is taken, or Leaving().
  absl::Status AwaitTaken(int e, absl::Status write);
  void Flush();

  const v1::RunConfig config_;
  const v1::JoinResponse join_;
  const ActingPeers peers_;
  const ActorMetrics metrics_;
  const std::unique_ptr<Episodes> episodes_;
  const std::unique_ptr<ActingPolicy> policy_;
  const std::vector<float> zeros_;  // [A], of an episode's last row.
  std::vector<EpisodeWriter> writers_;
  EpisodeReporter reporter_;
  LearnerWatch watch_;
  const std::optional<v1::JoinRequest> joined_with_;
  uint64_t first_step_ = 0;  // Of the random streams.
  int64_t decisions_ = 0;
  uint64_t learner_id_ = 0;         // Of the learner whose parameters are in use.
  int64_t snapshot_decisions_ = 0;  // Decisions of the run when the parameters were published.
  int64_t due_decisions_ = 0;       // Value of decisions_ at which newer parameters are due.
};

}  // namespace pompc

#endif  // POMPC_ACTOR_LOOP_ACTOR_LOOP_H_
