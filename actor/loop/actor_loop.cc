#include "actor/loop/actor_loop.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/log.h"
#include "common/base/rng.h"
#include "common/base/status_macros.h"

namespace pompc {
namespace {

// How long one wait for parameters or replay lasts before stop, end and learner are looked at.
constexpr absl::Duration kPoll = absl::Milliseconds(200);
constexpr absl::Duration kFlushTime = absl::Seconds(10);
constexpr int64_t kMaxEnvironments = 1 << 24;  // Indices of a random stream.

absl::Span<const float> RowOf(const at::Tensor& matrix, int row) {
  const int64_t size = matrix.size(1);
  return {matrix.const_data_ptr<float>() + row * size, static_cast<size_t>(size)};
}

}  // namespace

absl::StatusOr<std::unique_ptr<ActorLoop>> ActorLoop::Create(const v1::RunConfig& config,
                                                             const v1::JoinResponse& join,
                                                             std::unique_ptr<Episodes> episodes,
                                                             const ActingPeers& peers) {
  const int count = episodes->count();
  if (join.index() < 0 || join.index() > kMaxEnvironments / count - 1) {
    return absl::InvalidArgumentError(absl::StrCat("actor index ", join.index(), " with ", count,
                                                   " environments an actor: a run has at most ",
                                                   kMaxEnvironments));
  }
  const uint32_t index = static_cast<uint32_t>(join.index());
  POMPC_ASSIGN_OR_RETURN(
      std::unique_ptr<ActingPolicy> policy,
      ActingPolicy::Create(config, episodes->sizes(),
                           {.planner_index = index,
                            .first_environment = index * static_cast<uint32_t>(count),
                            .device = config.actor().device()}));
  return std::unique_ptr<ActorLoop>(
      new ActorLoop(config, join, std::move(episodes), std::move(policy), peers));
}

ActorLoop::ActorLoop(const v1::RunConfig& config, const v1::JoinResponse& join,
                     std::unique_ptr<Episodes> episodes, std::unique_ptr<ActingPolicy> policy,
                     const ActingPeers& peers)
    : config_(config),
      join_(join),
      peers_(peers),
      metrics_(peers.metrics),
      episodes_(std::move(episodes)),
      policy_(std::move(policy)),
      zeros_(episodes_->sizes().action_dim(), 0.0f),
      reporter_(peers.learner, join.writer_id(), peers.clock),
      watch_(peers.learner, peers.clock),
      joined_with_(MakeJoinRequest(v1::ACTOR, join.index(), episodes_->sizes())) {
  for (int e = 0; e < episodes_->count(); ++e) {
    writers_.emplace_back(
        EpisodeWriterOptions{.num_columns = static_cast<int>(kNumRowColumns),
                             .segment_rows = config.actor().segment_rows(),
                             .environment = static_cast<uint64_t>(e),
                             .num_environments = static_cast<uint64_t>(episodes_->count())},
        peers.replay);
  }
}

bool ActorLoop::Leaving() const {
  if (peers_.stop->HasBeenNotified()) return true;
  const SnapshotPtr newest = peers_.parameters->Newest();
  return newest != nullptr && newest->run_finished();
}

absl::Status ActorLoop::Run() {
  POMPC_RETURN_IF_ERROR(TakeParameters());
  if (!Leaving()) POMPC_RETURN_IF_ERROR(StartEpisodes());
  while (!Leaving()) {
    POMPC_RETURN_IF_ERROR(Decide());
    POMPC_RETURN_IF_ERROR(CheckLearner());
    POMPC_RETURN_IF_ERROR(TakeParameters());
  }
  Flush();
  return absl::OkStatus();
}

absl::Status ActorLoop::StartEpisodes() {
  const uint64_t start = static_cast<uint64_t>(snapshot_decisions_);
  first_step_ = start << 32;
  for (int e = 0; e < episodes_->count(); ++e) {
    const uint32_t environment = static_cast<uint32_t>(join_.index() * episodes_->count() + e);
    const uint64_t seed = SeedFor(config_.seed(), RngRole::kEnvironment, environment, start);
    episodes_->Seed(e, static_cast<uint32_t>(seed));
    POMPC_RETURN_IF_ERROR(episodes_->Start(e));
  }
  return absl::OkStatus();
}

bool ActorLoop::LagsTooFar() const {
  if (config_.actor().max_parameter_lag_updates() == 0) return decisions_ >= due_decisions_;
  return reporter_.learner_updates() - policy_->updates() >
         config_.actor().max_parameter_lag_updates();
}

absl::Status ActorLoop::TakeParameters() {
  const absl::Time start = peers_.clock->Now();
  while (true) {
    const SnapshotPtr newest = peers_.parameters->Newest();
    if (newest != nullptr && newest->version() != policy_->version()) {
      // A learner that started again from its checkpoint counts from there: waiting for what it had
      // counted before could last for ever, since it may need this actor's rows to get there.
      if (newest->learner_id() != learner_id_) reporter_.ForgetLearnerUpdates();
      learner_id_ = newest->learner_id();
      POMPC_RETURN_IF_ERROR(policy_->Load(*newest));
      snapshot_decisions_ = newest->decisions();
      due_decisions_ = decisions_ + newest->next_decisions() - newest->decisions();
      metrics_.params_version->Set(static_cast<double>(newest->version()));
      metrics_.params_received->Set(absl::ToDoubleSeconds(peers_.clock->Now() - absl::UnixEpoch()));
    }
    // Without a first snapshot it is unknown whether the seed phase, and so random acting, is over.
    if (policy_->version() >= 0 && !LagsTooFar()) break;
    const absl::Status newer =
        peers_.parameters->WaitForNewer(policy_->version(), peers_.clock->Now() + kPoll).status();
    if (!newer.ok() && !absl::IsDeadlineExceeded(newer)) return newer;
    if (Leaving()) break;
    POMPC_RETURN_IF_ERROR(CheckLearner());
  }
  metrics_.params_wait->Increment(absl::ToDoubleSeconds(peers_.clock->Now() - start));
  return absl::OkStatus();
}

absl::Status ActorLoop::Decide() {
  const absl::Time start = peers_.clock->Now();
  const uint64_t step = first_step_ + static_cast<uint64_t>(decisions_);
  POMPC_ASSIGN_OR_RETURN(const Decision decision,
                         policy_->Act(episodes_->observations(), episodes_->starts(), step));
  ++decisions_;
  const absl::Time planned = peers_.clock->Now();
  if (decision.planned) {
    metrics_.plan_duration->Observe(absl::ToDoubleSeconds(planned - start));
  }
  if (decision.num_nonfinite > 0) {
    if (metrics_.plan_nonfinite->Value() == 0) {
      POMPC_LOG(WARNING) << "planner met values that are not finite; from now on only counted"
                         << " params_version=" << policy_->version()
                         << " acted_at_random=" << decision.plan_failed;
    }
    metrics_.plan_nonfinite->Increment(static_cast<double>(decision.num_nonfinite));
  }
  episodes_->CountPlan(absl::ToDoubleSeconds(planned - start), decision.num_nonfinite > 0);

  const at::Tensor obs = episodes_->observations().clone();
  const int64_t env_steps = episodes_->env_steps();
  POMPC_ASSIGN_OR_RETURN(const absl::Span<const StepResult> results,
                         episodes_->Step(decision.action));
  metrics_.step_duration->Observe(absl::ToDoubleSeconds(peers_.clock->Now() - planned));
  metrics_.decisions->Increment(episodes_->count());
  metrics_.env_steps->Increment(static_cast<double>(episodes_->env_steps() - env_steps));

  for (int e = 0; e < episodes_->count(); ++e) {
    const Row row = {.observation = RowOf(obs, e),
                     .action = RowOf(decision.action, e),
                     .reward = static_cast<float>(results[e].reward),
                     .terminated = results[e].terminated ? 1.0f : 0.0f,
                     .prior_mean = RowOf(decision.prior_mean, e),
                     .prior_std = RowOf(decision.prior_std, e),
                     .updates = policy_->updates()};
    if (results[e].terminated || results[e].truncated) {
      POMPC_RETURN_IF_ERROR(EndEpisode(e, row));
    } else {
      POMPC_RETURN_IF_ERROR(
          AwaitTaken(e, writers_[e].AddRow(RowBytes(row), peers_.clock->Now() + kPoll)));
    }
  }
  return absl::OkStatus();
}

absl::Status ActorLoop::EndEpisode(int e, const Row& last_decision) {
  const Row last = LastRow(episodes_->observation(e), zeros_);
  POMPC_RETURN_IF_ERROR(
      AwaitTaken(e, writers_[e].EndEpisode(RowBytes(last_decision), RowBytes(last),
                                           peers_.clock->Now() + kPoll)));
  v1::Episode episode = episodes_->tally(e);
  metrics_.episodes->Increment();
  metrics_.episode_return->Observe(episode.return_());
  episode.set_role(v1::ACTOR);
  episode.set_actor_index(join_.index());
  episode.set_parameter_version(policy_->version());
  episode.set_decisions_at(snapshot_decisions_);
  reporter_.Add(std::move(episode));
  return episodes_->Start(e);
}

absl::Status ActorLoop::AwaitTaken(int e, absl::Status write) {
  while (absl::IsDeadlineExceeded(write)) {
    if (Leaving()) return absl::OkStatus();
    POMPC_RETURN_IF_ERROR(CheckLearner());
    write = writers_[e].Send(peers_.clock->Now() + kPoll);
  }
  return write;
}

void ActorLoop::Flush() {
  const absl::Time deadline = peers_.clock->Now() + kFlushTime;
  absl::Status rows;
  if (peers_.stop->HasBeenNotified()) {  // Else the run is over, and replay takes no more rows.
    for (EpisodeWriter& writer : writers_) rows.Update(writer.Send(deadline));
    rows.Update(peers_.replay->Flush(deadline));
  }
  const absl::Status episodes = reporter_.Flush(deadline);
  for (const absl::Status& status : {rows, episodes}) {
    if (!status.ok()) POMPC_LOG(WARNING) << "left with something unsent: " << status;
  }
}

}  // namespace pompc
