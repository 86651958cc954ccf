#include "learner/service/learner_run.h"

#include <algorithm>
#include <array>
#include <filesystem>
#include <iterator>
#include <map>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/file.h"
#include "common/base/log.h"
#include "common/base/rng.h"
#include "common/base/status_macros.h"
#include "common/config/config.h"
#include "common/model/device.h"
#include "google/protobuf/text_format.h"
#include "learner/service/divergence.h"

namespace pompc {
namespace {

// How long the loop waits at most before it looks after everything else.
constexpr absl::Duration kMoment = absl::Milliseconds(100);
constexpr absl::Duration kInfoEvery = absl::Seconds(1);

// A learner that died may have published versions after its last checkpoint. So that no number
// means two sets of parameters, its successor skips more than that can be.
constexpr int64_t kVersionGap = 1'000'000;

absl::StatusOr<std::optional<RunCheckpoint>> LoadIfResuming(const LearnerRunOptions& options) {
  const std::string path = RunCheckpointPath(options.run_dir);
  if (!options.resume) {
    if (!std::filesystem::exists(path)) return std::nullopt;
    return absl::AlreadyExistsError(
        absl::StrCat(options.run_dir, " holds a run: resume it, or give another folder"));
  }
  POMPC_ASSIGN_OR_RETURN(RunCheckpoint checkpoint, LoadRunCheckpoint(path));
  POMPC_RETURN_IF_ERROR(CheckResumable(checkpoint.config, options.config));
  return checkpoint;
}

// What is known before the run goes on.
RunProgress::Counts CountsOf(const RunCheckpoint& checkpoint) {
  RunProgress::Counts counts;
  counts.decisions = checkpoint.books.decisions();
  const auto updates = checkpoint.state.tensors.find("updates");
  if (updates != checkpoint.state.tensors.end()) counts.updates = updates->second.item<int64_t>();
  counts.parameter_version = checkpoint.books.parameter_version();
  return counts;
}

}  // namespace

absl::StatusOr<std::unique_ptr<LearnerRun>> LearnerRun::Create(const LearnerRunOptions& options,
                                                               ReplayLink* link, Clock* clock,
                                                               MetricsRegistry* metrics) {
  POMPC_ASSIGN_OR_RETURN(std::vector<at::Device> devices,
                         FindLearnerDevices(options.config.learner()));
  POMPC_ASSIGN_OR_RETURN(std::unique_ptr<RunLock> lock, RunLock::Acquire(options.run_dir));
  POMPC_ASSIGN_OR_RETURN(std::optional<RunCheckpoint> resumed, LoadIfResuming(options));
  RunFrontOptions front_options;
  front_options.run_dir = options.run_dir;
  front_options.stat_names = StatNames();
  front_options.replay_addresses = options.replay_addresses;
  *front_options.identity.mutable_config() = options.config;
  if (resumed.has_value()) {
    front_options.books = resumed->books;
    if (!std::filesystem::exists(RunStatusPath(options.run_dir))) {
      front_options.books.set_parameter_version(resumed->books.parameter_version() + kVersionGap);
    }
    front_options.identity.set_run_id(resumed->books.run_id());
  } else {
    front_options.identity.set_run_id(NewRunId(options.config, clock->Now()));
  }
  POMPC_RETURN_IF_ERROR(WriteFileAtomically(absl::StrCat(options.run_dir, "/config.textproto"),
                                            ConfigToText(options.config)));
  POMPC_ASSIGN_OR_RETURN(std::unique_ptr<RunFront> front,
                         RunFront::Create(front_options, clock, metrics));
  if (resumed.has_value()) front->progress.Set(CountsOf(*resumed));
  std::error_code ignored;
  std::filesystem::remove(RunStatusPath(options.run_dir), ignored);  // Of an earlier process.
  return std::unique_ptr<LearnerRun>(new LearnerRun(std::move(lock), options, std::move(devices),
                                                    std::move(resumed), std::move(front), link,
                                                    clock, metrics));
}

LearnerRun::LearnerRun(std::unique_ptr<RunLock> lock, const LearnerRunOptions& options,
                       std::vector<at::Device> devices, std::optional<RunCheckpoint> resumed,
                       std::unique_ptr<RunFront> front, ReplayLink* link, Clock* clock,
                       MetricsRegistry* metrics)
    : lock_(std::move(lock)),
      options_(options),
      devices_(std::move(devices)),
      all_are_back_(clock->Now() + (options.resume ? options.return_wait : absl::ZeroDuration())),
      resumed_(std::move(resumed)),
      front_(std::move(front)),
      link_(link),
      clock_(clock),
      metrics_(metrics) {
  metrics_.final_decisions->Set(static_cast<double>(options.config.total_decisions()));
  MeasureMachine();
}

absl::Status LearnerRun::Run(const Event& stop) {
  SetCpuThreads(options_.config.learner().threads());
  std::optional<v1::TaskSizes> sizes;
  while (!(sizes = front_->roster.AwaitSizes(clock_->Now() + kMoment)).has_value()) {
    if (stop.HasBeenNotified()) return absl::CancelledError("asked to stop");
  }
  POMPC_RETURN_IF_ERROR(Start(*sizes, stop));
  front_->episodes.Open();
  POMPC_RETURN_IF_ERROR(Loop(stop));
  const bool complete = schedule_->Complete(decisions_, updater().updates());
  if (complete) {
    POMPC_RETURN_IF_ERROR(SaveCheckpoint());
    POMPC_RETURN_IF_ERROR(Finish(stop));
  }
  front_->episodes.Close();  // What is acknowledged must be in the last checkpoint.
  POMPC_RETURN_IF_ERROR(SaveCheckpoint());
  POMPC_RETURN_IF_ERROR(SaveStatus());
  return complete ? absl::OkStatus() : absl::CancelledError("asked to stop");
}

absl::Status LearnerRun::Start(const v1::TaskSizes& sizes, const Event& stop) {
  const v1::RunConfig& config = options_.config;
  shape_ = {config.learning().window(), config.learning().batch_size(), sizes,
            config.replay().importance_exponent()};
  POMPC_ASSIGN_OR_RETURN(updates_, ParallelUpdater::Create(config, shape_, devices_, clock_));

  if (config.learner().reanalyze_ahead() && updater().Reanalyzes()) {
    at::Device device = devices_[0];
    if (config.learner().has_reanalyze_device()) {
      POMPC_ASSIGN_OR_RETURN(
          device, FindDevice("learner.reanalyze_device", config.learner().reanalyze_device()));
    }
    POMPC_ASSIGN_OR_RETURN(reanalyzer_, Reanalyzer::Create(config, shape_, device, clock_));
  }
  courier_.emplace(&front_->publisher, clock_, metrics_.publish_duration);

  schedule_ = RunSchedule::ForNewTable(config, sizes, 0, 0);
  v1::TableConfig table =
      MakeTableConfig(config, sizes, front_->identity.run_id(), schedule_->limits());
  if (resumed_.has_value()) {
    const v1::RunBooks& books = resumed_->books;
    POMPC_RETURN_IF_ERROR(updates_->Restore(resumed_->state));
    known_tables_ = books.known_tables();
    POMPC_ASSIGN_OR_RETURN(const v1::InfoResponse info, link_->Info(stop));
    if (info.table().run_id() == table.run_id() && info.inserted_rows() > 0) {
      const auto servers = std::max<int64_t>(1, std::ssize(options_.replay_addresses));
      schedule_ = RunSchedule::ForOldTable(config, info, servers, books, updater().updates());
      table = info.table();
      decisions_ = schedule_->decisions_offset() + info.inserted_decisions();
      NoteTable(info.table_id());
      POMPC_LOG(INFO) << "replay kept rows=" << info.rows() << " decisions=" << decisions_
                      << " checkpoint_decisions=" << books.decisions()
                      << " decisions_elsewhere=" << schedule_->decisions_offset();
    } else {
      schedule_ = RunSchedule::ForNewTable(config, sizes, books.decisions(), updater().updates());
      *table.mutable_limits() = schedule_->limits();
      decisions_ = books.decisions();
    }
  }
  // Before replay has the table, so that it never has rows of a run that cannot be resumed.
  POMPC_RETURN_IF_ERROR(SaveCheckpoint());
  const int64_t updates_done = updater().updates() - schedule_->updates_offset();
  POMPC_ASSIGN_OR_RETURN(sampler_, link_->Open(config, table, updates_done));

  const bool trained = resumed_.has_value() && !schedule_->Pretraining(updater().updates());
  resumed_.reset();
  POMPC_RETURN_IF_ERROR(Publish(trained, /*run_finished=*/false));
  next_info_ = clock_->Now();
  next_checkpoint_ = next_info_ + absl::Seconds(config.learner().checkpoint_every_seconds());
  POMPC_LOG(INFO) << "run started run_id=" << front_->identity.run_id() << " sizes={"
                  << sizes.ShortDebugString() << "}"
                  << " updates=" << updater().updates() << " decisions=" << decisions_
                  << " final_updates=" << schedule_->final_updates();
  return absl::OkStatus();
}

// (1) TakeBatch, (2) MakeUpdate, (3) PublishIfDue, (4) CheckpointIfDue, (5) ShowProgress.
absl::Status LearnerRun::Loop(const Event& stop) {
  while (!stop.HasBeenNotified() && !schedule_->Complete(decisions_, updater().updates())) {
    POMPC_ASSIGN_OR_RETURN(const bool have_batch, TakeBatch(stop));
    if (have_batch) POMPC_RETURN_IF_ERROR(MakeUpdate());
    POMPC_RETURN_IF_ERROR(PublishIfDue());
    POMPC_RETURN_IF_ERROR(CheckpointIfDue());
    ShowProgress(Phase());
  }
  return absl::OkStatus();
}

absl::StatusOr<bool> LearnerRun::TakeBatch(const Event& stop) {
  bool have_batch = false;
  const absl::Time start = clock_->Now();
  if (updater().updates() < schedule_->final_updates()) {
    const absl::Status next = NextColumns(start + kMoment);
    if (!next.ok() && !absl::IsDeadlineExceeded(next)) return next;
    have_batch = next.ok();
  } else {
    stop.WaitUntil(clock_, start + kMoment);  // Decisions are missing, updates are not.
  }
  const absl::Time now = clock_->Now();
  metrics_.Count(LearnerMetrics::Activity::kWaitBatch, now - start);
  if (have_batch) {
    metrics_.queue_wait->Observe(absl::ToDoubleSeconds(now - start));
    // A batch that was fetched ahead may be older than what is known.
    SetDecisions(std::max(decisions_, schedule_->decisions_offset() + columns_.inserted_decisions));
  }
  if (!have_batch || now >= next_info_) POMPC_RETURN_IF_ERROR(RefreshInfo());
  return have_batch;
}

absl::Status LearnerRun::NextColumns(absl::Time deadline) {
  planned_ahead_ = false;
  // Not in pretraining, whose parameters would be too old for the first full updates.
  if (reanalyzer_ == nullptr || updater().full_updates() == 0) {
    return sampler_->Next(deadline, &columns_);
  }
  if (!has_ahead_) {
    POMPC_RETURN_IF_ERROR(sampler_->Next(deadline, &ahead_));
    const auto update = static_cast<uint64_t>(updater().updates());
    POMPC_RETURN_IF_ERROR(
        reanalyzer_->Start(*updater().parameters(), ahead_,
                           SeedFor(options_.config.seed(), RngRole::kReanalyze, 0, update)));
    has_ahead_ = true;
  }
  if (!updater().ReanalyzeDue()) return sampler_->Next(deadline, &columns_);
  std::swap(columns_, ahead_);
  has_ahead_ = false;
  planned_ahead_ = true;
  return absl::OkStatus();
}

void LearnerRun::MeasureMachine() {
  std::error_code error;  // Of an unknown size, a disk is not full.
  const std::filesystem::space_info disk = std::filesystem::space(options_.run_dir, error);
  metrics_.disk_free_bytes->Set(static_cast<double>(disk.available));
  metrics_.disk_size_bytes->Set(static_cast<double>(disk.capacity));
  DeviceMemory sum;
  for (const at::Device& device : devices_) {
    const DeviceMemory memory = MemoryOf(device);
    sum.allocated_bytes += memory.allocated_bytes;
    sum.reserved_bytes += memory.reserved_bytes;
  }
  metrics_.gpu_allocated_bytes->Set(static_cast<double>(sum.allocated_bytes));
  metrics_.gpu_reserved_bytes->Set(static_cast<double>(sum.reserved_bytes));
}

absl::Status LearnerRun::RefreshInfo() {
  next_info_ = clock_->Now() + kInfoEvery;
  MeasureMachine();
  const absl::StatusOr<v1::InfoResponse> info = sampler_->Info();
  // Not reachable, or not configured yet: the sampler sees to both.
  if (!info.ok() || !info->has_table()) return absl::OkStatus();
  replay_rows_ = info->rows();
  const int64_t decisions = schedule_->decisions_offset() + info->inserted_decisions();
  if (decisions < decisions_) {
    return absl::DataLossError(
        absl::StrCat("replay knows of ", decisions, " decisions of the run, but knew of ",
                     decisions_, ": it lost rows (replay.journal = ",
                     v1::ReplayConfig::Journal_Name(options_.config.replay().journal()),
                     "); resume the run to go on without them"));
  }
  NoteTable(info->table_id());  // Not of one that was declared anew after such a loss.
  SetDecisions(decisions);
  return absl::OkStatus();
}

void LearnerRun::NoteTable(uint64_t table_id) {
  v1::RunBooks::TableOffsets& offsets = known_tables_[table_id];
  offsets.set_decisions(schedule_->decisions_offset());
  offsets.set_updates(schedule_->updates_offset());
}

void LearnerRun::SetDecisions(int64_t decisions) {
  decisions_ = decisions;
  metrics_.decisions->Set(static_cast<double>(decisions));
}

absl::Status LearnerRun::MakeUpdate() {
  using Activity = LearnerMetrics::Activity;
  const v1::RunConfig& config = options_.config;
  const absl::Time start = clock_->Now();
  const int64_t updates = updater().updates();
  sample_age_updates_ = MeanStaleness(shape_, columns_, updates);
  metrics_.staleness->Observe(sample_age_updates_ / config.learner().publish_every());

  UpdateRequest request = NextUpdate(config, schedule_->Pretraining(updates), decisions_, updates);
  absl::Duration waited, reanalyzed;
  if (planned_ahead_) {
    POMPC_ASSIGN_OR_RETURN(const Reanalyzer::Result plans, reanalyzer_->Finish());
    request.reanalyzed = plans.prior;
    reanalyzed = plans.duration;
    waited = clock_->Now() - start;
    metrics_.Count(Activity::kWaitReanalyze, waited);
  }
  const absl::Time ready = clock_->Now();
  updates_->AwaitRoom();
  const absl::Duration behind = clock_->Now() - ready;
  metrics_.Count(Activity::kWaitDevice, behind);
  waited += behind;
  POMPC_ASSIGN_OR_RETURN(const UpdateResult result, updates_->Update(request, columns_));
  const absl::Time updated = clock_->Now();
  metrics_.Count(Activity::kReanalyze, result.reanalyze_duration);
  metrics_.Count(Activity::kUpdate, updated - start - waited - result.reanalyze_duration);
  if (result.reanalyzed.has_value()) {
    metrics_.reanalyze_duration->Observe(
        absl::ToDoubleSeconds(planned_ahead_ ? reanalyzed : result.reanalyze_duration));
    metrics_.plan_nonfinite->Increment(static_cast<double>(result.reanalyzed->num_nonfinite));
    POMPC_RETURN_IF_ERROR(WriteBackPriors(*result.reanalyzed));
  }
  if (result.td_error.defined()) {
    const absl::Status written = WritePriorities(result.td_error, columns_, *sampler_).status();
    if (absl::IsUnavailable(written)) {
      POMPC_LOG(WARNING) << "priorities are lost status=" << written;
    } else {
      POMPC_RETURN_IF_ERROR(written);
    }
  }
  const absl::Time now = clock_->Now();
  metrics_.Count(Activity::kWriteBack, now - updated);
  metrics_.updates->Increment();
  metrics_.update_duration->Observe(absl::ToDoubleSeconds(now - start));
  if (!result.stats.has_value()) return absl::OkStatus();
  const absl::Status logged = LogStats(*result.stats);
  metrics_.Count(Activity::kLog, clock_->Now() - now);
  return logged;
}

absl::Status LearnerRun::WriteBackPriors(const ReanalyzedPrior& prior) {
  const auto written = WriteBack(prior, shape_, columns_, *sampler_);
  if (absl::IsUnavailable(written.status())) {
    POMPC_LOG(WARNING) << "reanalyzed priors are lost status=" << written.status();
    return absl::OkStatus();
  }
  POMPC_RETURN_IF_ERROR(written.status());
  metrics_.reanalyzed_rows->Increment(
      static_cast<double>(written->updated_rows() + written->stale_rows()));
  return absl::OkStatus();
}

absl::Status LearnerRun::LogStats(const UpdateStats& stats) {
  const auto values = stats.Read();
  POMPC_RETURN_IF_ERROR(CountDiverged(CheckFinite(values, updater().updates())));
  std::map<std::string, double> losses;
  for (size_t i = 0; i < values.size(); ++i) losses[StatName(static_cast<Stat>(i))] = values[i];
  metrics_.SetStats(values);
  metrics_.SetModelError(stats.ReadModelError());
  front_->progress.SetLosses(std::move(losses));
  return front_->records->AddLosses(values, [this] {
    RunMoment now = front_->progress.Now();
    now.updates = updater().updates();
    now.decisions = decisions_;
    return now;
  });
}

absl::Status LearnerRun::CountDiverged(absl::Status finite) {
  if (!finite.ok()) metrics_.nonfinite_losses->Increment();
  return finite;
}

absl::Status LearnerRun::PublishIfDue() {
  const int64_t updates = updater().updates();
  if (schedule_->Pretraining(updates)) return absl::OkStatus();
  if (!published_trained_) {
    if (!schedule_->Seeded(decisions_)) return absl::OkStatus();
  } else {
    if (updates - published_updates_ < options_.config.learner().publish_every()) {
      return absl::OkStatus();
    }
    // In lock-step an actor waits for just this version. Else a later one will do as well.
    const bool lock_step = options_.config.actor().max_parameter_lag_updates() == 0;
    if (!lock_step && !courier_->Idle()) return absl::OkStatus();
  }
  return Publish(/*trained=*/true, /*run_finished=*/false);
}

absl::Status LearnerRun::Publish(bool trained, bool run_finished) {
  const absl::Time start = clock_->Now();
  v1::ParameterSnapshot snapshot;
  snapshot.set_updates(updater().updates());
  snapshot.set_decisions(decisions_);
  snapshot.set_trained(trained);
  snapshot.set_run_finished(run_finished);
  const int64_t publish_every = options_.config.learner().publish_every();
  snapshot.set_next_decisions(
      schedule_->DecisionsFor(updater().updates() + (trained ? publish_every : 0)));
  PendingSnapshot data =
      updater().parameters()->StartSnapshot(options_.config.learner().publish_dtype());
  POMPC_RETURN_IF_ERROR(CountDiverged(courier_->Publish(std::move(snapshot), std::move(data))));
  published_trained_ = trained;
  published_updates_ = updater().updates();
  metrics_.Count(LearnerMetrics::Activity::kPublish, clock_->Now() - start);
  return absl::OkStatus();
}

absl::Status LearnerRun::CheckpointIfDue() {
  if (clock_->Now() < next_checkpoint_) return absl::OkStatus();
  const absl::Status saved = SaveCheckpoint();
  if (absl::IsInternal(saved)) return saved;
  if (!saved.ok()) POMPC_LOG(ERROR) << "cannot write a checkpoint status=" << saved;
  next_checkpoint_ =
      clock_->Now() + absl::Seconds(options_.config.learner().checkpoint_every_seconds());
  return absl::OkStatus();
}

absl::Status LearnerRun::SaveCheckpoint() {
  const absl::Time start = clock_->Now();
  POMPC_RETURN_IF_ERROR(CountDiverged(courier_->Await()));  // The books name the newest version.
  RunCheckpoint checkpoint;
  checkpoint.config = options_.config;
  checkpoint.state = updater().Save();
  // Whoever resumed from it would diverge again.
  POMPC_RETURN_IF_ERROR(CountDiverged(CheckFinite(checkpoint.state)));
  v1::RunBooks& books = checkpoint.books;
  books.set_run_id(front_->identity.run_id());
  *books.mutable_sizes() = shape_.sizes;
  books.set_decisions(decisions_);
  books.mutable_table_offsets()->set_decisions(schedule_->decisions_offset());
  books.mutable_table_offsets()->set_updates(schedule_->updates_offset());
  *books.mutable_known_tables() = known_tables_;
  books.set_parameter_version(front_->publisher.version());
  books.set_seconds(front_->progress.Now().seconds);
  front_->episodes.FillBooks(&books);
  // The run's folder is synced with the checkpoint, that of the event files was when one was made.
  absl::Status saved = front_->records->Sync();
  if (saved.ok()) saved = SaveRunCheckpoint(checkpoint, RunCheckpointPath(options_.run_dir));
  if (!saved.ok()) {
    metrics_.checkpoint_failures->Increment();
    return saved;
  }
  const absl::Time now = clock_->Now();
  metrics_.checkpoint_timestamp->Set(absl::ToDoubleSeconds(now - absl::UnixEpoch()));
  metrics_.checkpoint_duration->Observe(absl::ToDoubleSeconds(now - start));
  metrics_.Count(LearnerMetrics::Activity::kCheckpoint, now - start);
  return absl::OkStatus();
}

absl::Status LearnerRun::SaveStatus() {
  v1::RunStatus status;
  front_->progress.FillStatus(&status);
  front_->episodes.FillStatus(&status);
  std::string text;
  POMPC_CHECK(google::protobuf::TextFormat::PrintToString(status, &text));
  return WriteFileAtomically(RunStatusPath(options_.run_dir), text);
}

absl::Status LearnerRun::Finish(const Event& stop) {
  POMPC_RETURN_IF_ERROR(
      Publish(!schedule_->Pretraining(updater().updates()), /*run_finished=*/true));
  POMPC_RETURN_IF_ERROR(CountDiverged(courier_->Await()));
  ShowProgress("finished");
  const int64_t version = front_->publisher.version();
  const absl::Time deadline = clock_->Now() + options_.final_evaluation_wait;
  // An evaluator that died will come back for the last evaluation.
  const bool evaluated = front_->roster.evaluator_joined() || front_->episodes.evaluator_reported();
  while (evaluated && !stop.HasBeenNotified() && clock_->Now() < deadline) {
    if (front_->episodes.AwaitEvaluation(version, clock_->Now() + kMoment)) break;
  }
  // They leave when they hold the last parameters and their last episodes are acknowledged; one may
  // be an evaluator that joined an earlier process of this run.
  bool left = false;
  while (!left && !stop.HasBeenNotified() && clock_->Now() < deadline) {
    stop.WaitUntil(clock_, std::min(all_are_back_, deadline));
    left = front_->publisher.AwaitLeft(clock_->Now() + kMoment);
  }
  POMPC_LOG(INFO) << "run finished decisions=" << decisions_ << " updates=" << updater().updates();
  if (!left) {
    POMPC_LOG(WARNING) << "leaving before all subscribers have; all hold the last parameters: "
                       << front_->publisher.AwaitDelivered(clock_->Now());
  }
  return absl::OkStatus();
}

const char* LearnerRun::Phase() const {
  if (!schedule_->Seeded(decisions_)) return "seeding";
  return schedule_->Pretraining(updater().updates()) ? "pretraining" : "training";
}

void LearnerRun::ShowProgress(const char* phase) {
  RunProgress::Counts counts;
  counts.phase = phase;
  counts.decisions = decisions_;
  counts.updates = updater().updates();
  counts.parameter_version = front_->publisher.version();
  counts.replay_rows = replay_rows_;
  counts.planning = published_trained_;
  counts.updates_per_decision = schedule_->UpdatesPerDecision(decisions_, updater().updates());
  counts.sample_age_updates = sample_age_updates_;
  counts.parameter_lag_updates = front_->publisher.GreatestLag(updater().updates());
  front_->progress.Set(counts);
}

}  // namespace pompc
