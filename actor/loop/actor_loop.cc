#include "actor/loop/actor_loop.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/log.h"
#include "common/base/rng.h"
#include "common/base/status_macros.h"
#include "common/model/device.h"

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

absl::StatusOr<std::unique_ptr<ActorLoop>> ActorLoop::Create(
    const v1::RunConfig& config, const JoinedRun& join,
    std::vector<std::unique_ptr<Episodes>> groups, const ActingPeers& peers) {
  int count = 0;
  for (const auto& episodes : groups) count += episodes->count();
  if (join.answer.index() < 0 || join.answer.index() > kMaxEnvironments / count - 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("actor index ", join.answer.index(), " with ", count,
                     " environments an actor: a run has at most ", kMaxEnvironments));
  }
  POMPC_ASSIGN_OR_RETURN(
      std::unique_ptr<ActingPolicy> policy,
      ActingPolicy::Create(config, groups.front()->sizes(),
                           {.first_environment = static_cast<uint32_t>(join.answer.index() * count),
                            .device = config.actor().device()}));
  return std::unique_ptr<ActorLoop>(
      new ActorLoop(config, join, std::move(groups), std::move(policy), peers));
}

ActorLoop::ActorLoop(const v1::RunConfig& config, const JoinedRun& join,
                     std::vector<std::unique_ptr<Episodes>> groups,
                     std::unique_ptr<ActingPolicy> policy, const ActingPeers& peers)
    : config_(config),
      join_(join),
      peers_(peers),
      metrics_(peers.metrics),
      policy_(std::move(policy)),
      zeros_(groups.front()->sizes().action_dim(), 0.0f),
      reporter_(peers.learner, join.answer.writer_id(), peers.clock),
      watch_(peers.learner, peers.clock) {
  for (std::unique_ptr<Episodes>& episodes : groups) {
    Group& group = groups_.emplace_back();
    group.first = num_environments_;
    num_environments_ += static_cast<uint32_t>(episodes->count());
    group.episodes = std::move(episodes);
  }
  for (Group& group : groups_) {
    for (int e = 0; e < group.episodes->count(); ++e) {
      group.writers.emplace_back(
          EpisodeWriterOptions{.num_columns = static_cast<int>(kNumRowColumns),
                               .segment_rows = config.actor().segment_rows(),
                               .environment = group.first + static_cast<uint64_t>(e),
                               .num_environments = num_environments_},
          peers.replay);
    }
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
  for (size_t turn = 0; !Leaving(); ++turn) {
    Group& group = groups_[turn % groups_.size()];
    POMPC_RETURN_IF_ERROR(FinishStep(group));
    POMPC_RETURN_IF_ERROR(CheckLearner());
    POMPC_RETURN_IF_ERROR(TakeParameters());
    if (!Leaving()) POMPC_RETURN_IF_ERROR(Decide(group));
  }
  return Flush();
}

absl::Status ActorLoop::StartEpisodes() {
  uint64_t life = static_cast<uint64_t>(snapshot_decisions_);
  // Decisions alone do not tell lives apart while none are published: all through the seed phase.
  if (join_.answer.predecessors() > 0) {
    life = SeedFor(join_.answer.predecessors(), RngRole::kEnvironment, 0, life);
  }
  first_step_ = life << 32;
  for (Group& group : groups_) {
    for (int e = 0; e < group.episodes->count(); ++e) {
      const uint32_t environment =
          static_cast<uint32_t>(join_.answer.index()) * num_environments_ + group.first + e;
      const uint64_t seed = SeedFor(config_.seed(), RngRole::kEnvironment, environment, life);
      group.episodes->Seed(e, static_cast<uint32_t>(seed));
      POMPC_RETURN_IF_ERROR(group.episodes->Start(e));
    }
  }
  return absl::OkStatus();
}

bool ActorLoop::LagsTooFar() const {
  if (config_.actor().max_parameter_lag_updates() == 0) return decisions() >= due_decisions_;
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
      due_decisions_ = decisions() + newest->next_decisions() - newest->decisions();
      metrics_.parameters.Took(newest->version(), peers_.clock->Now());
      const DeviceMemory memory = MemoryOf(policy_->device());
      metrics_.gpu_allocated_bytes->Set(static_cast<double>(memory.allocated_bytes));
      metrics_.gpu_reserved_bytes->Set(static_cast<double>(memory.reserved_bytes));
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

absl::Status ActorLoop::Decide(Group& group) {
  Episodes& episodes = *group.episodes;
  const absl::Time start = peers_.clock->Now();
  const uint64_t step = first_step_ + static_cast<uint64_t>(group.decisions);
  POMPC_ASSIGN_OR_RETURN(
      group.decision, policy_->Act(episodes.observations(), episodes.starts(), step, group.first));
  const Decision& decision = group.decision;
  ++group.decisions;
  const absl::Duration planned = peers_.clock->Now() - start;
  if (decision.planned) metrics_.plan_duration->Observe(absl::ToDoubleSeconds(planned));
  if (decision.num_nonfinite > 0) {
    if (metrics_.plan_nonfinite->Value() == 0) {
      POMPC_LOG(WARNING) << "planner met values that are not finite; from now on only counted"
                         << " params_version=" << policy_->version()
                         << " acted_at_random=" << decision.plan_failed;
    }
    metrics_.plan_nonfinite->Increment(static_cast<double>(decision.num_nonfinite));
  }
  episodes.CountPlan(absl::ToDoubleSeconds(planned), decision.num_nonfinite > 0);

  group.observation = episodes.observations().clone();
  group.updates = policy_->updates();
  group.version = policy_->version();
  group.snapshot_decisions = snapshot_decisions_;
  POMPC_RETURN_IF_ERROR(episodes.StartStep(decision.action));
  group.stepping = true;
  return absl::OkStatus();
}

absl::Status ActorLoop::FinishStep(Group& group) {
  if (!group.stepping) return absl::OkStatus();
  group.stepping = false;
  Episodes& episodes = *group.episodes;
  const absl::Time start = peers_.clock->Now();
  const int64_t env_steps = episodes.env_steps();
  POMPC_ASSIGN_OR_RETURN(const absl::Span<const StepResult> results, episodes.FinishStep());
  metrics_.physics_wait->Increment(absl::ToDoubleSeconds(peers_.clock->Now() - start));
  metrics_.step_duration->Observe(absl::ToDoubleSeconds(episodes.step_duration()));
  metrics_.decisions->Increment(episodes.count());
  metrics_.env_steps->Increment(static_cast<double>(episodes.env_steps() - env_steps));

  const Decision& decision = group.decision;
  for (int e = 0; e < episodes.count(); ++e) {
    const Row row = {.observation = RowOf(group.observation, e),
                     .action = RowOf(decision.action, e),
                     .reward = static_cast<float>(results[e].reward),
                     .terminated = results[e].terminated ? 1.0f : 0.0f,
                     .prior_mean = RowOf(decision.prior_mean, e),
                     .prior_std = RowOf(decision.prior_std, e),
                     .updates = group.updates};
    if (results[e].terminated || results[e].truncated) {
      POMPC_RETURN_IF_ERROR(EndEpisode(group, e, row));
    } else {
      EpisodeWriter& writer = group.writers[e];
      POMPC_RETURN_IF_ERROR(
          AwaitTaken(writer, writer.AddRow(RowBytes(row), peers_.clock->Now() + kPoll)));
    }
  }
  return absl::OkStatus();
}

absl::Status ActorLoop::EndEpisode(Group& group, int e, const Row& last_decision) {
  const Row last = LastRow(group.episodes->observation(e), zeros_);
  EpisodeWriter& writer = group.writers[e];
  POMPC_RETURN_IF_ERROR(AwaitTaken(
      writer,
      writer.EndEpisode(RowBytes(last_decision), RowBytes(last), peers_.clock->Now() + kPoll)));
  v1::Episode episode = group.episodes->tally(e);
  metrics_.episodes->Increment();
  metrics_.episode_return->Observe(episode.return_());
  episode.set_role(v1::ACTOR);
  episode.set_actor_index(join_.answer.index());
  episode.set_parameter_version(group.version);
  episode.set_decisions_at(group.snapshot_decisions);
  reporter_.Add(std::move(episode));
  return group.episodes->Start(e);
}

absl::Status ActorLoop::AwaitTaken(EpisodeWriter& writer, absl::Status write) {
  while (absl::IsDeadlineExceeded(write)) {
    if (Leaving()) return absl::OkStatus();
    POMPC_RETURN_IF_ERROR(CheckLearner());
    write = writer.Send(peers_.clock->Now() + kPoll);
  }
  return write;
}

absl::Status ActorLoop::Flush() {
  const absl::Time deadline = peers_.clock->Now() + kFlushTime;
  absl::Status rows;
  if (peers_.stop->HasBeenNotified()) {  // Else the run is over, and replay takes no more rows.
    for (Group& group : groups_) {
      POMPC_RETURN_IF_ERROR(FinishStep(group));
      for (EpisodeWriter& writer : group.writers) rows.Update(writer.Send(deadline));
    }
    rows.Update(peers_.replay->Flush(deadline));
  }
  const absl::Status episodes = reporter_.Flush(deadline);
  for (const absl::Status& status : {rows, episodes}) {
    if (!status.ok()) POMPC_LOG(WARNING) << "left with something unsent: " << status;
  }
  return absl::OkStatus();
}

}  // namespace pompc
