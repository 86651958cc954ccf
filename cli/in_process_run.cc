#include "cli/in_process_run.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "common/base/rng.h"
#include "common/base/status_macros.h"
#include "learner/client/row.h"

namespace pompc {
namespace {

// The longest that anything here may wait for replay: it answers at once, as the order of decisions
// and updates is the limiter's own.
constexpr absl::Duration kNoWait = absl::Seconds(1);

absl::Span<const float> RowOf(const at::Tensor& matrix, int row) {
  const int64_t size = matrix.size(1);
  return {matrix.const_data_ptr<float>() + row * size, static_cast<size_t>(size)};
}

// Stores at once, in the calling thread.
class DirectWriter final : public ReplayWriter {
 public:
  explicit DirectWriter(Replay* replay) : replay_(replay) {}

  absl::Status Append(v1::Segment segment, absl::Time) override {
    segment.set_writer_id(1);
    segment.set_sequence(++sequence_);
    absl::Status stored = absl::InternalError("replay does not take rows that are due");
    replay_->Append(replay_->NewTicket(), std::move(segment),
                    [&stored](const absl::StatusOr<Replay::Appended>& appended) {
                      stored = appended.status();
                    });
    return stored;
  }
  absl::Status Flush(absl::Time) override { return absl::OkStatus(); }

 private:
  Replay* const replay_;
  uint64_t sequence_ = 0;
};

}  // namespace

absl::StatusOr<std::unique_ptr<InProcessRun>> InProcessRun::Create(const v1::RunConfig& config) {
  POMPC_ASSIGN_OR_RETURN(
      std::unique_ptr<Episodes> episodes,
      Episodes::Create(config.environment(), config.actor().environments_per_actor(),
                       config.actor().threads()));
  POMPC_ASSIGN_OR_RETURN(
      std::unique_ptr<ActingPolicy> policy,
      ActingPolicy::Create(config, episodes->sizes(), {.device = config.actor().device()}));
  POMPC_ASSIGN_OR_RETURN(const std::vector<at::Device> devices,
                         FindLearnerDevices(config.learner()));
  const BatchShape shape = {config.learning().window(), config.learning().batch_size(),
                            episodes->sizes(), config.replay().importance_exponent()};
  POMPC_ASSIGN_OR_RETURN(std::unique_ptr<ParallelUpdater> updates,
                         ParallelUpdater::Create(config, shape, devices, RealClock()));

  std::unique_ptr<InProcessRun> run(
      new InProcessRun(config, std::move(episodes), std::move(policy), shape, std::move(updates)));
  v1::RateLimits limits = run->schedule_.limits();
  // The loop itself keeps to the schedule, several environments at a time, and the last row of an
  // episode must not wait for pretraining.
  limits.set_pretrain_updates(0);
  limits.set_max_updates_ahead(std::numeric_limits<int32_t>::max());
  limits.set_max_updates_behind(std::numeric_limits<int32_t>::max());
  v1::ConfigureRequest configure;
  *configure.mutable_table() = MakeTableConfig(config, run->sizes(), "in-process", limits);
  configure.mutable_table()->set_journal(v1::TableConfig::NONE);  // They go with the run.
  POMPC_RETURN_IF_ERROR(run->replay_.Configure(configure));
  for (int e = 0; e < run->episodes_->count(); ++e) {
    const uint64_t seed =
        SeedFor(config.seed(), RngRole::kEnvironment, static_cast<uint32_t>(e), 0);
    run->episodes_->Seed(e, static_cast<uint32_t>(seed));
    POMPC_RETURN_IF_ERROR(run->episodes_->Start(e));
  }
  POMPC_RETURN_IF_ERROR(run->policy_->Load(run->Snapshot()));
  return run;
}

InProcessRun::InProcessRun(const v1::RunConfig& config, std::unique_ptr<Episodes> episodes,
                           std::unique_ptr<ActingPolicy> policy, const BatchShape& shape,
                           std::unique_ptr<ParallelUpdater> updates)
    : config_(config),
      episodes_(std::move(episodes)),
      policy_(std::move(policy)),
      shape_(shape),
      updates_(std::move(updates)),
      schedule_(RunSchedule::ForNewTable(config, episodes_->sizes(), 0, 0)),
      zeros_(episodes_->sizes().action_dim(), 0.0f),
      replay_(RealClock(), &metrics_),
      sampler_(config.learning().batch_size(), &replay_, RealClock()),
      writer_(std::make_unique<DirectWriter>(&replay_)) {
  for (int e = 0; e < episodes_->count(); ++e) {
    episode_writers_.emplace_back(
        EpisodeWriterOptions{.num_columns = static_cast<int>(kNumRowColumns),
                             .segment_rows = 1,
                             .environment = static_cast<uint64_t>(e),
                             .num_environments = static_cast<uint64_t>(episodes_->count())},
        writer_.get());
  }
}

const char* InProcessRun::phase() const {
  if (Complete()) return "finished";
  if (!Seeded()) return "seeding";
  return schedule_.Pretraining(updates()) ? "pretraining" : "training";
}

v1::ParameterSnapshot InProcessRun::Snapshot() const {
  v1::ParameterSnapshot snapshot;
  snapshot.set_updates(updates());
  snapshot.set_decisions(decisions_);
  snapshot.set_trained(Seeded() && !schedule_.Pretraining(updates()));
  // 0: untrained, which without pretraining the trained ones of 0 updates are not.
  snapshot.set_version(snapshot.trained() ? updates() + 1 : 0);
  snapshot.set_data(updater().parameters()->Snapshot(config_.learner().publish_dtype()));
  return snapshot;
}

absl::StatusOr<InProcessRun::Progress> InProcessRun::Step() {
  Progress progress;
  POMPC_ASSIGN_OR_RETURN(progress.episodes, Decide());
  if (!Seeded()) return progress;
  POMPC_RETURN_IF_ERROR(PublishIfDue());  // Without pretraining, what is there at its end.
  // Many environments may end the seed phase before any of them has filled a window.
  if (replay_.Info().windows() == 0) return progress;
  const int64_t due =
      std::min(schedule_.final_updates(),
               schedule_.limits().pretrain_updates() +
                   static_cast<int64_t>(
                       schedule_.limits().updates_per_decision() *
                       static_cast<double>(decisions_ - schedule_.limits().seed_decisions())));
  while (updates() < due) {
    POMPC_ASSIGN_OR_RETURN(std::optional<UpdateStats> stats, MakeUpdate());
    if (stats.has_value()) progress.stats = std::move(stats);
    POMPC_RETURN_IF_ERROR(PublishIfDue());
  }
  return progress;
}

absl::StatusOr<std::vector<v1::Episode>> InProcessRun::Decide() {
  const absl::Time start = RealClock()->Now();
  POMPC_ASSIGN_OR_RETURN(const Decision decision,
                         policy_->Act(episodes_->observations(), episodes_->starts(),
                                      static_cast<uint64_t>(own_decisions_)));
  episodes_->CountPlan(absl::ToDoubleSeconds(RealClock()->Now() - start),
                       decision.num_nonfinite > 0);
  ++own_decisions_;
  decisions_ += episodes_->count();
  const at::Tensor obs = episodes_->observations().clone();
  POMPC_ASSIGN_OR_RETURN(const absl::Span<const StepResult> results,
                         episodes_->Step(decision.action));
  const absl::Time deadline = RealClock()->Now() + kNoWait;
  std::vector<v1::Episode> finished;
  for (int e = 0; e < episodes_->count(); ++e) {
    const Row row = {.observation = RowOf(obs, e),
                     .action = RowOf(decision.action, e),
                     .reward = static_cast<float>(results[e].reward),
                     .terminated = results[e].terminated ? 1.0f : 0.0f,
                     .prior_mean = RowOf(decision.prior_mean, e),
                     .prior_std = RowOf(decision.prior_std, e),
                     .updates = policy_->updates()};
    if (!results[e].terminated && !results[e].truncated) {
      POMPC_RETURN_IF_ERROR(episode_writers_[e].AddRow(RowBytes(row), deadline));
      continue;
    }
    const Row last = LastRow(episodes_->observation(e), zeros_);
    POMPC_RETURN_IF_ERROR(episode_writers_[e].EndEpisode(RowBytes(row), RowBytes(last), deadline));
    v1::Episode episode = episodes_->tally(e);
    episode.set_role(v1::ACTOR);
    episode.set_parameter_version(policy_->version());
    episode.set_decisions_at(snapshot_.decisions());
    finished.push_back(std::move(episode));
    POMPC_RETURN_IF_ERROR(episodes_->Start(e));
  }
  return finished;
}

absl::StatusOr<std::optional<UpdateStats>> InProcessRun::MakeUpdate() {
  POMPC_RETURN_IF_ERROR(sampler_.Next(RealClock()->Now() + kNoWait, &columns_));
  const UpdateRequest request =
      NextUpdate(config_, schedule_.Pretraining(updates()), decisions_, updates());
  POMPC_ASSIGN_OR_RETURN(UpdateResult result, updates_->Update(request, columns_));
  if (result.reanalyzed.has_value()) {
    POMPC_RETURN_IF_ERROR(WriteBack(*result.reanalyzed, shape_, columns_, sampler_).status());
  }
  if (result.td_error.defined()) {
    POMPC_RETURN_IF_ERROR(WritePriorities(result.td_error, columns_, sampler_).status());
  }
  return std::move(result.stats);
}

absl::Status InProcessRun::PublishIfDue() {
  if (schedule_.Pretraining(updates())) return absl::OkStatus();
  const bool first = !snapshot_.trained();
  if (!first && updates() - snapshot_.updates() < config_.learner().publish_every()) {
    return absl::OkStatus();
  }
  snapshot_ = Snapshot();
  POMPC_RETURN_IF_ERROR(policy_->Load(snapshot_));
  snapshot_.clear_data();
  return absl::OkStatus();
}

}  // namespace pompc
