// ActorLoop: the life of an actor. It plans, steps its environments, writes rows to replay, reports
// episodes and takes new parameters, until the run is finished or it is told to stop.
//
// The environments are split into G groups, which take turns. A turn: (1) wait until the group's
// last step is done; (2) write its rows, and at an episode's end the last observation; report the
// episode and start the next; (3) take the newest parameters; (4) while they lag too far behind the
// learner, or in lock-step behind the decisions made, wait for newer ones; (5) decide for the
// group's environments in one batch; (6) start to step them. So while one group is planned for the
// others step. One group alone is stepped in (1), by this thread too.
//
// When the learner is away the actor goes on with the parameters it has, for as long as replay
// takes its rows; an episode report is kept until it is acknowledged. When replay holds rows back
// (its rate limiter, or it is away) the actor waits with the row in hand.
//
// Thread-safety: none; Run() is called once. Besides the calling thread there is the reporter's.
// Determinism: equal (seed, index, predecessors, G) and equal snapshots at equal decisions give
//   bit-equal rows; while actions are random the rows of an environment do not depend on G
//   (acting_policy.h). The step of the environments' seeds and the high half of every decision's
//   step are the run's decisions as of the first snapshot, as in the sequential loop; those of an
//   actor that takes another's place follow from its number too, so that it does not repeat what
//   that one did in the seed phase.
#ifndef POMPC_ACTOR_LOOP_ACTOR_LOOP_H_
#define POMPC_ACTOR_LOOP_ACTOR_LOOP_H_

#include <cstdint>
#include <memory>
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
  // `groups`: the config's environments, at least one group; they are seeded here.
  // INVALID_ARGUMENT: config, sizes or index that cannot be.
  static absl::StatusOr<std::unique_ptr<ActorLoop>> Create(
      const v1::RunConfig& config, const JoinedRun& join,
      std::vector<std::unique_ptr<Episodes>> groups, const ActingPeers& peers);

  // Blocks until the run is finished or `stop` is raised, then flushes for up to 10 s what is worth
  // it: OK. UNAVAILABLE: the learner has been away for 5 minutes. Others: a broken snapshot, an
  // environment that does not start, or replay refused a segment for good.
  absl::Status Run();

  // Of each environment of the first group; others may have one less.
  int64_t decisions() const { return groups_.front().decisions; }

 private:
  struct Group {
    uint32_t first = 0;      // Index of its first environment among the actor's.
    int64_t decisions = 0;   // Of each of its environments.
    bool stepping = false;   // Of what follows:
    at::Tensor observation;  // [E, O] that was decided on.
    Decision decision;
    // Of the parameters that decided.
    int64_t updates = 0, version = 0, snapshot_decisions = 0;

    std::unique_ptr<Episodes> episodes;  // Last, and so the first to go: it steps with `decision`.
    std::vector<EpisodeWriter> writers;
  };

  ActorLoop(const v1::RunConfig& config, const JoinedRun& join,
            std::vector<std::unique_ptr<Episodes>> groups, std::unique_ptr<ActingPolicy> policy,
            const ActingPeers& peers);

  // Seeds the environments and starts their first episodes.
  absl::Status StartEpisodes();
  // Whether to leave: told to stop, or the newest snapshot says that the run is finished.
  bool Leaving() const;
  // Until there are parameters that are new enough, or Leaving().
  absl::Status TakeParameters();
  bool LagsTooFar() const;
  // Decides for the group and starts to step it.
  absl::Status Decide(Group& group);
  // Waits for the step under way, if any, and writes its rows.
  absl::Status FinishStep(Group& group);
  absl::Status EndEpisode(Group& group, int e, const Row& last_decision);
  absl::Status CheckLearner() { return watch_.Check(peers_.parameters->status(), &join_.request); }
  // Follows a write to this writer until the row is taken, or Leaving().
  absl::Status AwaitTaken(EpisodeWriter& writer, absl::Status write);
  absl::Status Flush();

  const v1::RunConfig config_;
  const JoinedRun join_;
  const ActingPeers peers_;
  const ActorMetrics metrics_;
  const std::unique_ptr<ActingPolicy> policy_;
  const std::vector<float> zeros_;  // [A], of an episode's last row.
  std::vector<Group> groups_;
  uint32_t num_environments_ = 0;  // Of all groups.
  EpisodeReporter reporter_;
  LearnerWatch watch_;
  uint64_t first_step_ = 0;         // Of the random streams.
  uint64_t learner_id_ = 0;         // Of the learner whose parameters are in use.
  int64_t snapshot_decisions_ = 0;  // Decisions of the run when the parameters were published.
  int64_t due_decisions_ = 0;       // Value of decisions() at which newer parameters are due.
};

}  // namespace pompc

#endif  // POMPC_ACTOR_LOOP_ACTOR_LOOP_H_
