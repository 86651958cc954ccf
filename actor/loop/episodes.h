// Episodes: the environments of a process, each in the middle of an episode.
//
// Shapes: E environments, O observation size, A action size.
// Thread-safety: none; one thread owns an Episodes, which steps on threads of its own.
// Errors: those of Environment.
#ifndef POMPC_ACTOR_LOOP_EPISODES_H_
#define POMPC_ACTOR_LOOP_EPISODES_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "actor/env/environment.h"
#include "actor/env/environment_batch.h"
#include "common/model/tensor.h"
#include "proto/pompc/v1/config.pb.h"
#include "proto/pompc/v1/learner.pb.h"

namespace pompc {

// Of the environments of a run.
EnvironmentOptions EnvironmentOptionsOf(const v1::EnvironmentConfig& config);

class Episodes {
 public:
  // `count` environments of the config's task, stepped by `threads` threads; the calling thread is
  // one of them unless it is `busy` with something else. Seed() and Start() each of them next.
  static absl::StatusOr<std::unique_ptr<Episodes>> Create(const v1::EnvironmentConfig& config,
                                                          int count, int threads,
                                                          bool busy = false);
  // The environments of an actor in its groups, in order, as even as can be.
  static absl::StatusOr<std::vector<std::unique_ptr<Episodes>>> CreateGroups(
      const v1::RunConfig& config);
  // Waits for a step under way.
  ~Episodes();

  int count() const { return static_cast<int>(batch_->size()); }
  const v1::TaskSizes& sizes() const { return sizes_; }

  void Seed(int e, uint32_t seed) { batch_->environment(e).Seed(seed); }
  void SaveState(int e, EnvironmentState* state) const { batch_->environment(e).SaveState(state); }
  // Begins environment e's next episode.
  absl::Status Start(int e);
  // One decision of every environment. actions: [E, A] float32, contiguous. The results, [E], are
  // valid until the next call; Start() those whose episode ended before it.
  absl::StatusOr<absl::Span<const StepResult>> Step(const at::Tensor& actions);
  // Step() in two parts, for a caller that has something else to do meanwhile. `actions` must stay
  // as they are; no other call in between.
  absl::Status StartStep(const at::Tensor& actions);
  absl::StatusOr<absl::Span<const StepResult>> FinishStep();
  // From the start of the last step until its last environment was done.
  absl::Duration step_duration() const { return batch_->step_duration(); }

  // [E, O] float32 and bool [E]: what to decide on, and whether an episode starts there. Both are
  // overwritten by Start() and Step().
  const at::Tensor& observations() const { return observations_; }
  const at::Tensor& starts() const { return starts_; }
  absl::Span<const float> observation(int e) const;

  // Adds a batched plan to every present episode: its time in equal shares.
  void CountPlan(double seconds, bool nonfinite);
  // Environment e's present episode so far: return_, decisions, env_steps and its plans; the other
  // fields are unset.
  const v1::Episode& tally(int e) const { return tallies_[e]; }
  // Control steps of all environments so far.
  int64_t env_steps() const { return env_steps_; }

 private:
  Episodes(const v1::EnvironmentConfig& config, std::unique_ptr<EnvironmentBatch> batch);

  absl::Span<float> MutableObservation(int e);

  const int action_repeat_;
  const std::unique_ptr<EnvironmentBatch> batch_;
  v1::TaskSizes sizes_;
  at::Tensor observations_, starts_;
  std::vector<StepResult> results_;
  std::vector<v1::Episode> tallies_;
  int64_t env_steps_ = 0;
  bool stepping_ = false;
};

}  // namespace pompc

#endif  // POMPC_ACTOR_LOOP_EPISODES_H_
