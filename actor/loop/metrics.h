// The metrics of a process that acts, evaluates or re-plans, as handles.
#ifndef POMPC_ACTOR_LOOP_METRICS_H_
#define POMPC_ACTOR_LOOP_METRICS_H_

#include <cstdint>

#include "absl/time/time.h"
#include "common/metrics/metrics.h"

namespace pompc {

// Of the parameters in use. Thread-safety and lifetime: as below.
class ParametersMetrics {
 public:
  explicit ParametersMetrics(MetricsRegistry* registry)
      : version_(registry->GetGauge("pompc_actor_params_version")),
        received_(registry->GetGauge("pompc_actor_params_received_timestamp_seconds")) {}

  void Took(int64_t version, absl::Time now) const {
    version_->Set(static_cast<double>(version));
    received_->Set(absl::ToDoubleSeconds(now - absl::UnixEpoch()));
  }

 private:
  Gauge* const version_;
  Gauge* const received_;
};

// Thread-safety: as the handles. `registry` must outlive this.
struct ActorMetrics {
  explicit ActorMetrics(MetricsRegistry* registry)
      : env_steps(registry->GetCounter("pompc_actor_env_steps_total")),
        decisions(registry->GetCounter("pompc_actor_decisions_total")),
        episodes(registry->GetCounter("pompc_actor_episodes_total")),
        episode_return(registry->GetHistogram("pompc_actor_episode_return")),
        plan_duration(registry->GetHistogram("pompc_actor_plan_duration_seconds")),
        step_duration(registry->GetHistogram("pompc_actor_step_duration_seconds")),
        plan_nonfinite(registry->GetCounter("pompc_actor_plan_nonfinite_total")),
        parameters(registry),
        gpu_allocated_bytes(registry->GetGauge("pompc_actor_gpu_memory_bytes", "allocated")),
        gpu_reserved_bytes(registry->GetGauge("pompc_actor_gpu_memory_bytes", "reserved")),
        physics_wait(registry->GetCounter("pompc_actor_physics_wait_seconds_total")),
        params_wait(registry->GetCounter("pompc_actor_params_wait_seconds_total")) {}

  Counter* const env_steps;
  Counter* const decisions;
  Counter* const episodes;
  Histogram* const episode_return;
  Histogram* const plan_duration;
  Histogram* const step_duration;
  Counter* const plan_nonfinite;
  const ParametersMetrics parameters;
  Gauge* const gpu_allocated_bytes;
  Gauge* const gpu_reserved_bytes;
  Counter* const physics_wait;
  Counter* const params_wait;
};

}  // namespace pompc

#endif  // POMPC_ACTOR_LOOP_METRICS_H_
