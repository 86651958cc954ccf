// ParallelUpdater: the learner's updates, by one Updater or by several that share each batch.
//
// With learner.data_parallel N > 1 each of N devices has an Updater, all of its state, and a share
// of the batch (learner/core/collective.h). The first works in the calling thread, the others in
// threads of their own. The results are those of one device with the whole batch.
//
// Thread-safety: none; one thread owns a ParallelUpdater.
// Determinism: update n, counted over the whole run, draws its noise from (seed, kUpdate, 0, n).
#ifndef POMPC_LEARNER_SERVICE_PARALLEL_UPDATER_H_
#define POMPC_LEARNER_SERVICE_PARALLEL_UPDATER_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "common/base/bounded_queue.h"
#include "common/base/clock.h"
#include "common/base/thread.h"
#include "common/model/checkpoint.h"
#include "common/model/noise.h"
#include "learner/core/collective.h"
#include "learner/core/updater.h"
#include "learner/service/batch_stager.h"
#include "learner/service/batch_view.h"
#include "proto/pompc/v1/config.pb.h"

namespace pompc {

// learner.device and, with data_parallel N, the N - 1 numbered behind it; "cpu" N times.
// INVALID_ARGUMENT, naming the field: this build or machine does not have one of them.
absl::StatusOr<std::vector<at::Device>> FindLearnerDevices(const v1::LearnerConfig& config);

// What is asked of the update that follows the first `updates` of a run, after `decisions`.
UpdateRequest NextUpdate(const v1::RunConfig& config, bool pretraining, int64_t decisions,
                         int64_t updates);

class ParallelUpdater {
 public:
  // An Updater for each of `devices`, which divide the windows of batches of `shape`. Errors: those
  // of Updater::Create() and MakeCollectives(). `clock` must outlive this.
  static absl::StatusOr<std::unique_ptr<ParallelUpdater>> Create(
      const v1::RunConfig& config, const BatchShape& shape, const std::vector<at::Device>& devices,
      Clock* clock);

  // Blocks while a device is as many batches behind as a BatchStager lets it, as Update() does.
  void AwaitRoom();

  // Makes one update with the batch, which is copied first (on a CPU: read until this returns), and
  // waits until it is given to all devices. Errors: those of BatchStager::Stage() and
  // Updater::Update(), of the rank that failed first; then no further update can be made. Several
  // GPUs end the process then (Collective::Abort()).
  absl::StatusOr<UpdateResult> Update(const UpdateRequest& request, ColumnBatch& columns);

  // As Updater::Restore(), on all devices.
  absl::Status Restore(const Checkpoint& checkpoint);

  // What all have in common: parameters, counts, state. Not to be updated by itself.
  const Updater& updater() const { return *ranks_[0]->updater; }

 private:
  struct Task {
    const UpdateRequest* request;
    ColumnBatch* columns;
  };
  struct Rank {
    Rank(const BatchShape& shape, at::Device device, int64_t rank, int64_t ranks);
    ~Rank();

    const size_t index;
    const at::Device device;
    std::unique_ptr<Updater> updater;
    BatchStager stager;
    GeneratorNoise noise;
    // Of all but the first.
    BoundedQueue<Task> tasks{1};
    BoundedQueue<absl::StatusOr<UpdateResult>> results{1};
    std::optional<Thread> thread;  // Last: it uses all of the above.
  };

  ParallelUpdater(uint64_t seed, int threads) : seed_(seed), threads_(threads) {}
  void Work(Rank& rank);  // The body of a thread.
  absl::StatusOr<UpdateResult> UpdateRank(Rank& rank, const Task& task);
  absl::Status failure();

  const uint64_t seed_;
  const int threads_;
  absl::Mutex mu_;
  absl::Status failure_ ABSL_GUARDED_BY(mu_);  // The first.
  std::vector<std::unique_ptr<Collective>> collectives_;
  std::vector<std::unique_ptr<Rank>> ranks_;  // Behind what they use.
};

}  // namespace pompc

#endif  // POMPC_LEARNER_SERVICE_PARALLEL_UPDATER_H_
