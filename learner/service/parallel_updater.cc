#include "learner/service/parallel_updater.h"

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/rng.h"
#include "common/base/status_macros.h"
#include "common/model/device.h"

namespace pompc {

absl::StatusOr<std::vector<at::Device>> FindLearnerDevices(const v1::LearnerConfig& config) {
  POMPC_ASSIGN_OR_RETURN(const at::Device first, FindDevice("learner.device", config.device()));
  std::vector<at::Device> devices = {first};
  for (int rank = 1; rank < config.data_parallel(); ++rank) {
    const std::string name =
        first.is_cpu() ? config.device() : absl::StrCat("cuda:", first.index() + rank);
    POMPC_ASSIGN_OR_RETURN(devices.emplace_back(at::kCPU),
                           FindDevice("learner.data_parallel", name));
  }
  return devices;
}

ParallelUpdater::Rank::Rank(const BatchShape& shape, at::Device on, int64_t rank, int64_t ranks)
    : index(static_cast<size_t>(rank)),
      device(on),
      stager(shape, device, rank, ranks),
      noise(0, at::TensorOptions(at::kFloat).device(device)) {}

ParallelUpdater::Rank::~Rank() {
  tasks.Close();
  results.Close();
}

UpdateRequest NextUpdate(const v1::RunConfig& config, bool pretraining, int64_t decisions,
                         int64_t updates) {
  const bool model_only = pretraining && !config.learning().pretrain_policy();
  return {.kind = model_only ? UpdateKind::kModelOnly : UpdateKind::kFull,
          .env_steps = decisions * config.environment().action_repeat(),
          .want_stats = (updates + 1) % config.learner().log_every() == 0};
}

absl::StatusOr<std::unique_ptr<ParallelUpdater>> ParallelUpdater::Create(
    const v1::RunConfig& config, const BatchShape& shape, const std::vector<at::Device>& devices,
    Clock* clock) {
  std::unique_ptr<ParallelUpdater> parallel(
      new ParallelUpdater(config.seed(), config.learner().threads()));
  if (devices.size() > 1) {
    POMPC_ASSIGN_OR_RETURN(parallel->collectives_, MakeCollectives(devices));
  }
  UpdaterOptions options;
  options.obs_dim = shape.sizes.observation_dim();
  options.action_dim = shape.sizes.action_dim();
  options.episode_decisions = shape.sizes.episode_decisions();
  options.seed = SeedFor(config.seed(), RngRole::kInit, 0, 0);
  options.clock = clock;
  for (size_t i = 0; i < devices.size(); ++i) {
    auto rank = std::make_unique<Rank>(shape, devices[i], static_cast<int64_t>(i),
                                       static_cast<int64_t>(devices.size()));
    options.tensor = at::TensorOptions(at::kFloat).device(devices[i]);
    if (devices.size() > 1) options.collective = parallel->collectives_[i].get();
    POMPC_ASSIGN_OR_RETURN(rank->updater, Updater::Create(config, options));
    parallel->ranks_.push_back(std::move(rank));
  }
  for (size_t i = 1; i < devices.size(); ++i) {
    Rank* const rank = parallel->ranks_[i].get();
    rank->thread.emplace(absl::StrCat("update-", i),
                         [p = parallel.get(), rank] { p->Work(*rank); });
  }
  return parallel;
}

void ParallelUpdater::AwaitRoom() {
  for (const std::unique_ptr<Rank>& rank : ranks_) rank->stager.AwaitRoom();
}

absl::StatusOr<UpdateResult> ParallelUpdater::Update(const UpdateRequest& request,
                                                     ColumnBatch& columns) {
  POMPC_RETURN_IF_ERROR(failure());
  const Task task = {&request, &columns};
  for (size_t i = 1; i < ranks_.size(); ++i) POMPC_RETURN_IF_ERROR(ranks_[i]->tasks.Push(task));
  absl::StatusOr<UpdateResult> result = UpdateRank(*ranks_[0], task);
  for (size_t i = 1; i < ranks_.size(); ++i) {
    POMPC_RETURN_IF_ERROR(ranks_[i]->results.Pop().status());
  }
  POMPC_RETURN_IF_ERROR(failure());
  return result;
}

void ParallelUpdater::Work(Rank& rank) {
  SetCpuThreads(threads_);
  while (true) {
    const absl::StatusOr<Task> task = rank.tasks.Pop();
    if (!task.ok() || !rank.results.Push(UpdateRank(rank, *task)).ok()) return;
  }
}

absl::StatusOr<UpdateResult> ParallelUpdater::UpdateRank(Rank& rank, const Task& task) {
  const auto update = [&]() -> absl::StatusOr<UpdateResult> {
    POMPC_ASSIGN_OR_RETURN(Batch batch, rank.stager.Stage(*task.columns));
    const auto number = static_cast<uint64_t>(rank.updater->updates());
    rank.noise.Seed(SeedFor(seed_, RngRole::kUpdate, 0, number));
    return rank.updater->Update(*task.request, batch, rank.noise);
  };
  absl::StatusOr<UpdateResult> result = update();
  if (result.ok()) return result;
  const absl::Status reason(result.status().code(), absl::StrCat("on ", rank.device.str(), ": ",
                                                                 result.status().message()));
  {
    absl::MutexLock lock(&mu_);
    if (failure_.ok()) failure_ = reason;
  }
  if (!collectives_.empty()) collectives_[rank.index]->Abort(reason);
  return result;
}

absl::Status ParallelUpdater::failure() {
  absl::MutexLock lock(&mu_);
  return failure_;
}

absl::Status ParallelUpdater::Restore(const Checkpoint& checkpoint) {
  for (const std::unique_ptr<Rank>& rank : ranks_) {
    POMPC_RETURN_IF_ERROR(rank->updater->Restore(checkpoint));
  }
  return absl::OkStatus();
}

}  // namespace pompc
