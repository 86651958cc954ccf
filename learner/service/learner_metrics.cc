#include "learner/service/learner_metrics.h"

#include <limits>

namespace pompc {

LearnerMetrics::LearnerMetrics(MetricsRegistry* metrics)
    : updates(metrics->GetCounter("pompc_learner_updates_total")),
      update_duration(metrics->GetHistogram("pompc_learner_update_duration_seconds")),
      queue_wait(metrics->GetHistogram("pompc_learner_queue_wait_seconds")),
      staleness(metrics->GetHistogram("pompc_learner_sample_staleness_versions")),
      reanalyzed_rows(metrics->GetCounter("pompc_learner_reanalyzed_rows_total")),
      reanalyze_duration(metrics->GetHistogram("pompc_learner_reanalyze_duration_seconds")),
      plan_nonfinite(metrics->GetCounter("pompc_learner_plan_nonfinite_total")),
      nonfinite_losses(metrics->GetCounter("pompc_learner_nonfinite_losses_total")),
      decisions(metrics->GetGauge("pompc_learner_decisions")),
      publish_duration(metrics->GetHistogram("pompc_learner_publish_duration_seconds")),
      final_decisions(metrics->GetGauge("pompc_learner_final_decisions")),
      checkpoint_timestamp(metrics->GetGauge("pompc_learner_checkpoint_timestamp_seconds")),
      checkpoint_duration(metrics->GetHistogram("pompc_learner_checkpoint_duration_seconds")),
      checkpoint_failures(metrics->GetCounter("pompc_learner_checkpoint_failures_total")),
      disk_free_bytes(metrics->GetGauge("pompc_learner_disk_free_bytes")),
      disk_size_bytes(metrics->GetGauge("pompc_learner_disk_size_bytes")),
      gpu_allocated_bytes(metrics->GetGauge("pompc_learner_gpu_memory_bytes", "allocated")),
      gpu_reserved_bytes(metrics->GetGauge("pompc_learner_gpu_memory_bytes", "reserved")),
      loop_{metrics->GetCounter("pompc_learner_loop_seconds_total", "wait_batch"),
            metrics->GetCounter("pompc_learner_loop_seconds_total", "wait_device"),
            metrics->GetCounter("pompc_learner_loop_seconds_total", "wait_reanalyze"),
            metrics->GetCounter("pompc_learner_loop_seconds_total", "update"),
            metrics->GetCounter("pompc_learner_loop_seconds_total", "reanalyze"),
            metrics->GetCounter("pompc_learner_loop_seconds_total", "write_back"),
            metrics->GetCounter("pompc_learner_loop_seconds_total", "log"),
            metrics->GetCounter("pompc_learner_loop_seconds_total", "publish"),
            metrics->GetCounter("pompc_learner_loop_seconds_total", "checkpoint")},
      stats_{
          {Stat::kConsistencyLoss, metrics->GetGauge("pompc_learner_loss", "consistency")},
          {Stat::kRewardLoss, metrics->GetGauge("pompc_learner_loss", "reward")},
          {Stat::kValueLoss, metrics->GetGauge("pompc_learner_loss", "value")},
          {Stat::kTerminationLoss, metrics->GetGauge("pompc_learner_loss", "termination")},
          {Stat::kPolicyLoss, metrics->GetGauge("pompc_learner_loss", "policy")},
          {Stat::kPriorLoss, metrics->GetGauge("pompc_learner_loss", "prior")},
          {Stat::kModelGradientNorm, metrics->GetGauge("pompc_learner_gradient_norm", "model")},
          {Stat::kPolicyGradientNorm, metrics->GetGauge("pompc_learner_gradient_norm", "policy")},
          {Stat::kPriorGradientNorm, metrics->GetGauge("pompc_learner_gradient_norm", "prior")},
          {Stat::kPolicyKl, metrics->GetGauge("pompc_learner_policy_kl_nats")},
          {Stat::kPolicyEntropy, metrics->GetGauge("pompc_learner_policy_entropy_nats")},
          {Stat::kPolicyStd, metrics->GetGauge("pompc_learner_policy_std")},
          {Stat::kValueTarget, metrics->GetGauge("pompc_learner_value_target")},
          {Stat::kKlWeight, metrics->GetGauge("pompc_learner_kl_weight")},
          {Stat::kReturnScale, metrics->GetGauge("pompc_learner_scale", "return")},
          {Stat::kKlScale, metrics->GetGauge("pompc_learner_scale", "divergence")},
      } {
  for (const char* step : {"1", "2", "3", "4", "5", "6", "7", "8", "9"}) {
    model_error_.push_back(metrics->GetGauge("pompc_learner_model_error", step));
  }
}

void LearnerMetrics::SetStats(const std::array<double, static_cast<size_t>(Stat::kCount)>& stats) {
  for (const auto& [stat, gauge] : stats_) gauge->Set(stats[static_cast<size_t>(stat)]);
}

void LearnerMetrics::SetModelError(const std::vector<double>& model_error) {
  for (size_t i = 0; i < model_error_.size(); ++i) {
    model_error_[i]->Set(i < model_error.size() ? model_error[i]
                                                : std::numeric_limits<double>::quiet_NaN());
  }
}

}  // namespace pompc
