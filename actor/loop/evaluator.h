// Evaluator: how well a set of parameters plays, on start states that are the same every time.
//
// All episodes of an evaluation run at once, planned for in one batch; each counts until its own
// end. Start states and draws come from the stream kEvaluation alone.
//
// Thread-safety: none. Determinism: on CPU, equal (config, snapshot) => bit-equal results.
#ifndef POMPC_ACTOR_LOOP_EVALUATOR_H_
#define POMPC_ACTOR_LOOP_EVALUATOR_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "actor/env/environment.h"
#include "actor/loop/acting_policy.h"
#include "actor/loop/episodes.h"
#include "actor/loop/peers.h"
#include "common/base/clock.h"
#include "proto/pompc/v1/config.pb.h"
#include "proto/pompc/v1/learner.pb.h"

namespace pompc {

class EvaluationVideos;

// One episode as it was played.
struct EpisodeRecording {
  std::vector<EnvironmentState> states;  // Before each decision.
  std::vector<double> returns;           // After each decision.
};

class Evaluator {
 public:
  // Runs config.evaluation.episodes environments. INVALID_ARGUMENT: no such task, or planner
  // settings or device that cannot be.
  static absl::StatusOr<std::unique_ptr<Evaluator>> Create(const v1::RunConfig& config);

  const v1::TaskSizes& sizes() const { return episodes_->sizes(); }

  // Blocks for the episodes. A snapshot that is not trained acts at random. The episodes are
  // complete but for actor_index, in the order of their start states; the first one is recorded in
  // `recording`, unless that is null. CANCELLED: `stop` was raised. INVALID_ARGUMENT: the snapshot
  // does not fit.
  absl::StatusOr<std::vector<v1::Episode>> Evaluate(const v1::ParameterSnapshot& snapshot,
                                                    Clock* clock, const Event& stop,
                                                    EpisodeRecording* recording = nullptr);

 private:
  Evaluator(const v1::RunConfig& config, std::unique_ptr<Episodes> episodes,
            std::unique_ptr<ActingPolicy> policy);

  const uint64_t seed_;
  const std::unique_ptr<Episodes> episodes_;
  const std::unique_ptr<ActingPolicy> policy_;
};

// The life of an evaluator process: joins the run as `index` (JoinRequest.index), evaluates the
// newest trained snapshot whenever its decisions have reached the next multiple of
// config.evaluation.every_decisions, and always the snapshot with which the run is finished. With
// `videos`, makes one of each evaluation when that is reported, before it looks for the next.
//
// Blocks until the run is finished or `stop` is raised: OK. UNAVAILABLE: no learner for 5 minutes,
// which an evaluation does not count towards. Others: a snapshot that does not fit, or an
// environment that does not start. Whatever it returns, it first tries for up to 10 s to report
// what it has.
absl::Status RunEvaluator(const v1::RunConfig& config, std::optional<int64_t> index,
                          const ActingPeers& peers, EvaluationVideos* videos = nullptr);

}  // namespace pompc

#endif  // POMPC_ACTOR_LOOP_EVALUATOR_H_
