// Handles of the learner loop's metrics; what each one means is in common/metrics/table.h.
#ifndef POMPC_LEARNER_SERVICE_LEARNER_METRICS_H_
#define POMPC_LEARNER_SERVICE_LEARNER_METRICS_H_

#include <array>
#include <cstddef>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "common/metrics/metrics.h"
#include "learner/core/updater.h"

namespace pompc {

struct LearnerMetrics {
  explicit LearnerMetrics(MetricsRegistry* metrics);

  Counter* updates;
  // What the loop does, in the order of the label's values.
  enum class Activity {
    kWaitBatch,
    kWaitDevice,
    kWaitReanalyze,
    kUpdate,
    kReanalyze,
    kWriteBack,
    kLog,
    kPublish,
    kCheckpoint,
    kCount,
  };
  void Count(Activity activity, absl::Duration duration) {
    loop_[static_cast<size_t>(activity)]->Increment(absl::ToDoubleSeconds(duration));
  }

  Histogram* update_duration;
  Histogram* queue_wait;
  Histogram* staleness;
  Counter* reanalyzed_rows;
  Histogram* reanalyze_duration;
  Counter* plan_nonfinite;
  Counter* nonfinite_losses;
  Gauge* decisions;
  Histogram* publish_duration;
  Gauge* final_decisions;
  Gauge* checkpoint_timestamp;
  Histogram* checkpoint_duration;
  Counter* checkpoint_failures;
  Gauge* disk_free_bytes;
  Gauge* disk_size_bytes;
  Gauge* gpu_allocated_bytes;
  Gauge* gpu_reserved_bytes;

  // Sets the gauges that show a stat, or the model's error after each of its steps.
  void SetStats(const std::array<double, static_cast<size_t>(Stat::kCount)>& stats);
  void SetModelError(const std::vector<double>& model_error);

 private:
  std::array<Counter*, static_cast<size_t>(Activity::kCount)> loop_;
  std::vector<std::pair<Stat, Gauge*>> stats_;
  std::vector<Gauge*> model_error_;  // After 1, 2... steps.
};

}  // namespace pompc

#endif  // POMPC_LEARNER_SERVICE_LEARNER_METRICS_H_
