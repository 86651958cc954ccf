// EvaluationVideos: how the parameters of each evaluation play, as films in a folder.
//
// One for each evaluation, of its first episode: steps-0000060000-return-861.3.mp4, environment
// steps of the parameters and that episode's return. None is ever removed. Where films cannot be
// made (no libOSMesa, no ffmpeg) one warning says so, and evaluations go on without.
//
// Thread-safety: none; used from one thread.
#ifndef POMPC_ACTOR_LOOP_EVALUATION_VIDEOS_H_
#define POMPC_ACTOR_LOOP_EVALUATION_VIDEOS_H_

#include <string>

#include "absl/status/status.h"
#include "actor/env/environment.h"
#include "actor/loop/evaluator.h"
#include "common/base/clock.h"
#include "proto/pompc/v1/config.pb.h"
#include "proto/pompc/v1/learner.pb.h"

namespace pompc {

class EvaluationVideos {
 public:
  // `folder` is created with the first film.
  EvaluationVideos(const v1::EnvironmentConfig& config, std::string folder);

  // For Evaluator::Evaluate(); null where films cannot be made.
  EpisodeRecording* recording() { return possible_ ? &recording_ : nullptr; }

  // Draws what was recorded last: `episode`, the evaluation's first. Blocks for that, at most until
  // `stop` is raised, which leaves nothing. Failures are logged.
  void Make(const v1::Episode& episode, const Event& stop);

 private:
  absl::Status Draw(const std::string& path, const Event& stop) const;

  const EnvironmentOptions environment_;
  const std::string folder_;
  bool possible_ = true;
  EpisodeRecording recording_;
};

}  // namespace pompc

#endif  // POMPC_ACTOR_LOOP_EVALUATION_VIDEOS_H_
