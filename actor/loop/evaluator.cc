#include "actor/loop/evaluator.h"

#include <utility>

#include "absl/cleanup/cleanup.h"
#include "actor/loop/episode_reporter.h"
#include "actor/loop/evaluation_videos.h"
#include "actor/loop/metrics.h"
#include "common/base/log.h"
#include "common/base/mean.h"
#include "common/base/rng.h"
#include "common/base/status_macros.h"

namespace pompc {
namespace {

constexpr absl::Duration kPoll = absl::Milliseconds(200);  // Between looks at stop and learner.
constexpr absl::Duration kFlushTime = absl::Seconds(10);

// Steps of the stream kEvaluation: of start states, and of the first decision.
constexpr uint64_t kStartStep = 0;
constexpr uint64_t kFirstDecisionStep = 1;

}  // namespace

absl::StatusOr<std::unique_ptr<Evaluator>> Evaluator::Create(const v1::RunConfig& config) {
  POMPC_ASSIGN_OR_RETURN(std::unique_ptr<Episodes> episodes,
                         Episodes::Create(config.environment(), config.evaluation().episodes(),
                                          config.evaluation().threads()));
  POMPC_ASSIGN_OR_RETURN(std::unique_ptr<ActingPolicy> policy,
                         ActingPolicy::Create(config, episodes->sizes(),
                                              {.mode = PlanMode::kEvaluate,
                                               .planner_stream = RngRole::kEvaluation,
                                               .device = config.actor().device()}));
  return std::unique_ptr<Evaluator>(new Evaluator(config, std::move(episodes), std::move(policy)));
}

Evaluator::Evaluator(const v1::RunConfig& config, std::unique_ptr<Episodes> episodes,
                     std::unique_ptr<ActingPolicy> policy)
    : seed_(config.seed()), episodes_(std::move(episodes)), policy_(std::move(policy)) {}

absl::StatusOr<std::vector<v1::Episode>> Evaluator::Evaluate(const v1::ParameterSnapshot& snapshot,
                                                             Clock* clock, const Event& stop,
                                                             EpisodeRecording* recording) {
  POMPC_RETURN_IF_ERROR(policy_->Load(snapshot));
  const int count = episodes_->count();
  for (int e = 0; e < count; ++e) {
    const uint64_t seed =
        SeedFor(seed_, RngRole::kEvaluation, static_cast<uint32_t>(e), kStartStep);
    episodes_->Seed(e, static_cast<uint32_t>(seed));
    POMPC_RETURN_IF_ERROR(episodes_->Start(e));
  }
  if (recording != nullptr) *recording = {};
  std::vector<v1::Episode> finished(count);
  int running = count;
  for (uint64_t decision = 0; running > 0; ++decision) {
    if (stop.HasBeenNotified()) return absl::CancelledError("told to stop");
    const absl::Time start = clock->Now();
    POMPC_ASSIGN_OR_RETURN(const Decision plan,
                           policy_->Act(episodes_->observations(), episodes_->starts(),
                                        kFirstDecisionStep + decision));
    episodes_->CountPlan(absl::ToDoubleSeconds(clock->Now() - start), plan.num_nonfinite > 0);
    const bool record = recording != nullptr && finished.front().decisions() == 0;
    if (record) episodes_->SaveState(0, &recording->states.emplace_back());
    POMPC_ASSIGN_OR_RETURN(const absl::Span<const StepResult> results,
                           episodes_->Step(plan.action));
    if (record) recording->returns.push_back(episodes_->tally(0).return_());
    for (int e = 0; e < count; ++e) {
      if (!results[e].terminated && !results[e].truncated) continue;
      if (finished[e].decisions() == 0) {
        finished[e] = episodes_->tally(e);
        finished[e].set_role(v1::EVALUATOR);
        finished[e].set_parameter_version(snapshot.version());
        finished[e].set_decisions_at(snapshot.decisions());
        --running;
      }
      // It stays in the batch, uncounted, so that its end does not change the draws of the others.
      POMPC_RETURN_IF_ERROR(episodes_->Start(e));
    }
  }
  return finished;
}

absl::Status RunEvaluator(const v1::RunConfig& config, std::optional<int64_t> index,
                          const ActingPeers& peers, EvaluationVideos* videos) {
  POMPC_ASSIGN_OR_RETURN(const std::unique_ptr<Evaluator> evaluator, Evaluator::Create(config));
  const ParametersMetrics parameters(peers.metrics);
  const int64_t every = config.evaluation().every_decisions();
  const absl::StatusOr<JoinedRun> join = JoinRun(peers, v1::EVALUATOR, index, evaluator->sizes());
  if (peers.stop->HasBeenNotified()) return absl::OkStatus();
  if (!join.ok()) return join.status();
  EpisodeReporter reporter(peers.learner, join->answer.writer_id(), peers.clock);
  // However this ends: an evaluation may have cost minutes.
  const absl::Cleanup flush = [&] {
    const absl::Status flushed = reporter.Flush(peers.clock->Now() + kFlushTime);
    if (!flushed.ok()) POMPC_LOG(WARNING) << "left with something unsent: " << flushed;
  };
  const auto next_after = [every](int64_t decisions) { return (decisions / every + 1) * every; };
  int64_t held_version = -1, next_at = 0;
  std::optional<uint64_t> learner_id;
  LearnerWatch watch(peers.learner, peers.clock);
  bool finished = false;
  while (!finished && !peers.stop->HasBeenNotified()) {
    const absl::StatusOr<SnapshotPtr> newer =
        peers.parameters->WaitForNewer(held_version, peers.clock->Now() + kPoll);
    POMPC_RETURN_IF_ERROR(
        watch.Check(newer.ok() ? absl::OkStatus() : peers.parameters->status(), &join->request));
    if (absl::IsDeadlineExceeded(newer.status())) continue;
    if (!newer.ok()) return newer.status();
    const v1::ParameterSnapshot& snapshot = **newer;
    // Which evaluations are there is for the learner to say, whenever it is another process: of a
    // run that was resumed some are, and some may be lost that it had acknowledged.
    if (snapshot.learner_id() != learner_id) {
      learner_id = snapshot.learner_id();
      // What it is about to be told counts as there.
      reporter.Flush(peers.clock->Now() + kFlushTime).IgnoreError();
      const absl::StatusOr<v1::RunStatus> status =
          AskLearner(*peers.stop, peers.clock, peers.clock->Now() + kLearnerPatience,
                     [&](absl::Time deadline) { return peers.learner->GetStatus(deadline); });
      if (peers.stop->HasBeenNotified()) break;
      if (!status.ok()) return status.status();
      next_at = next_after(status->evaluation_decisions());
    }
    held_version = snapshot.version();
    finished = snapshot.run_finished();
    if (!finished && (!snapshot.trained() || snapshot.decisions() < next_at)) continue;
    parameters.Took(snapshot.version(), peers.clock->Now());
    absl::StatusOr<std::vector<v1::Episode>> episodes = evaluator->Evaluate(
        snapshot, peers.clock, *peers.stop, videos == nullptr ? nullptr : videos->recording());
    if (absl::IsCancelled(episodes.status())) break;
    if (!episodes.ok()) return episodes.status();
    POMPC_LOG(INFO) << "evaluated decisions=" << snapshot.decisions()
                    << " params_version=" << snapshot.version()
                    << " mean_return=" << Mean(*episodes, &v1::Episode::return_);
    const v1::Episode first = episodes->front();
    for (v1::Episode& episode : *episodes) {
      episode.set_actor_index(join->answer.index());
      reporter.Add(std::move(episode));
    }
    next_at = next_after(snapshot.decisions());
    if (videos != nullptr) videos->Make(first, *peers.stop);
  }
  return absl::OkStatus();
}

}  // namespace pompc
