// Every metric of the project: the one place where names are made.
//
// Names: pompc_<room>_<noun>_<unit>[_total], base units, `_total` for counters alone. A metric has
// at most one label, whose values are a closed set of at most 10: never an actor's id, a seed or
// an episode, which are in the scrape's `instance` or once in pompc_run_info. Timestamps rather
// than ages. metrics_test.cc enforces this. docs/metrics.md is made from this table (reference.h).
#ifndef POMPC_COMMON_METRICS_TABLE_H_
#define POMPC_COMMON_METRICS_TABLE_H_

#include <span>
#include <string_view>

namespace pompc {

enum class MetricType { kCounter, kGauge, kHistogram };

struct MetricSpec {
  std::string_view name;
  MetricType type;
  std::string_view unit;  // Suffix of the name (before _total); empty: a count or without unit.
  std::string_view help;
  std::string_view label = {};           // Empty: none.
  std::string_view label_values = {};    // Comma-separated.
  std::span<const double> buckets = {};  // Upper bounds, of histograms.
};

namespace internal {
inline constexpr double kDurationBuckets[] = {0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03,
                                              0.1,    0.3,    1,     3,     10,   30};
inline constexpr double kReturnBuckets[] = {0,   50,  100, 150, 200, 250, 300, 400,
                                            500, 600, 700, 800, 850, 900, 950, 1000};
inline constexpr double kStalenessBuckets[] = {0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 10000};
inline constexpr std::string_view kCodes =
    "ok,cancelled,invalid_argument,deadline_exceeded,not_found,resource_exhausted,"
    "failed_precondition,unavailable,other";
inline constexpr auto kC = MetricType::kCounter;
inline constexpr auto kG = MetricType::kGauge;
inline constexpr auto kH = MetricType::kHistogram;
}  // namespace internal

// clang-format off
inline constexpr MetricSpec kMetricTable[] = {
    // Actor.
    {"pompc_actor_env_steps_total", internal::kC, "", "Control steps of the environments."},
    {"pompc_actor_decisions_total", internal::kC, "", "Decisions, seed phase included."},
    {"pompc_actor_episodes_total", internal::kC, "", "Finished episodes."},
    {"pompc_actor_episode_return", internal::kH, "", "Undiscounted return of finished episodes.", "", "", internal::kReturnBuckets},
    {"pompc_actor_plan_duration_seconds", internal::kH, "seconds", "One call of the planner, for a group of the actor's environments.", "", "", internal::kDurationBuckets},
    {"pompc_actor_step_duration_seconds", internal::kH, "seconds", "Physics of one decision, for a group of the actor's environments.", "", "", internal::kDurationBuckets},
    {"pompc_actor_plan_nonfinite_total", internal::kC, "", "Action sequences that the planner rejected for a value that is not finite."},
    {"pompc_actor_params_version", internal::kG, "", "Version of the parameters in use."},
    {"pompc_actor_params_received_timestamp_seconds", internal::kG, "seconds", "When the parameters in use arrived."},
    {"pompc_actor_params_wait_seconds_total", internal::kC, "seconds", "Time not acting because parameters were older than allowed."},
    {"pompc_actor_reanalyzed_rows_total", internal::kC, "rows", "Rows that a reanalyze worker re-planned."},
    {"pompc_actor_physics_wait_seconds_total", internal::kC, "seconds", "Time not planning because environments were still stepping."},
    {"pompc_actor_upload_queue_rows", internal::kG, "rows", "Rows that replay has not acknowledged."},
    {"pompc_actor_gpu_memory_bytes", internal::kG, "bytes", "GPU memory of LibTorch: allocated by tensors, and reserved for them; 0 without a GPU.", "state", "allocated,reserved"},
    {"pompc_actor_upload_wait_seconds_total", internal::kC, "seconds", "Time not acting because the upload queue was full."},
    // Replay.
    {"pompc_replay_items", internal::kG, "", "Rows stored."},
    {"pompc_replay_stored_bytes", internal::kG, "bytes", "Bytes of the rows stored."},
    {"pompc_replay_inserts_total", internal::kC, "", "Rows inserted."},
    {"pompc_replay_evictions_total", internal::kC, "", "Rows dropped to stay within capacity."},
    {"pompc_replay_samples_total", internal::kC, "", "Windows sampled."},
    {"pompc_replay_batches_total", internal::kC, "", "Batches sampled."},
    {"pompc_replay_blocked_seconds_total", internal::kC, "seconds", "Time for which the rate limiter held one side back.", "side", "insert,sample"},
    {"pompc_replay_duplicate_segments_total", internal::kC, "", "Segments received again and dropped."},
    {"pompc_replay_updated_rows_total", internal::kC, "rows", "Rows overwritten by reanalyze."},
    {"pompc_replay_stale_updates_total", internal::kC, "updates", "Rows that reanalyze came too late for."},
    {"pompc_replay_journal_bytes", internal::kG, "bytes", "Size of the journal's folder."},
    {"pompc_replay_journal_queue_rows", internal::kG, "rows", "Rows that wait to be journaled."},
    {"pompc_replay_journal_disk_free_bytes", internal::kG, "bytes", "Space left where the journal lies."},
    {"pompc_replay_journal_disk_size_bytes", internal::kG, "bytes", "Size of the disk where the journal lies."},
    {"pompc_replay_journal_write_duration_seconds", internal::kH, "seconds", "Writing, and syncing, what the journal had queued.", "", "", internal::kDurationBuckets},
    {"pompc_replay_journal_failures_total", internal::kC, "", "Writes to the journal that failed or were dropped."},
    {"pompc_replay_writers", internal::kG, "", "Writers connected."},
    // Learner.
    {"pompc_learner_updates_total", internal::kC, "updates", "Gradient updates, pretraining included."},
    {"pompc_learner_update_duration_seconds", internal::kH, "seconds", "One gradient update, without waiting for its batch.", "", "", internal::kDurationBuckets},
    {"pompc_learner_loop_seconds_total", internal::kC, "seconds", "Time of the learner's loop by what it did: wait for a batch, for a GPU that is behind, or for plans made ahead; hand over batch and update; re-plan itself; write back to replay; log; publish; checkpoint.", "activity", "wait_batch,wait_device,wait_reanalyze,update,reanalyze,write_back,log,publish,checkpoint"},
    {"pompc_learner_publish_duration_seconds", internal::kH, "seconds", "Publishing parameters, beside the loop: checksum and serialising, the rest of a copy from a GPU included.", "", "", internal::kDurationBuckets},
    {"pompc_learner_queue_wait_seconds", internal::kH, "seconds", "Waiting for a batch, per update.", "", "", internal::kDurationBuckets},
    {"pompc_learner_loss", internal::kG, "", "Last logged value of each loss.", "loss", "consistency,reward,value,termination,policy,prior"},
    {"pompc_learner_nonfinite_losses_total", internal::kC, "", "Times that a loss, norm or parameter was found not to be finite; the first one ends the learner."},
    {"pompc_learner_gradient_norm", internal::kG, "", "Last logged norm of the gradient before clipping.", "loss", "model,policy,prior"},
    {"pompc_learner_policy_kl_nats", internal::kG, "nats", "Divergence of sampling policy and reference, per action dimension."},
    {"pompc_learner_policy_entropy_nats", internal::kG, "nats", "Entropy of the sampling policy."},
    {"pompc_learner_policy_std", internal::kG, "", "Mean standard deviation of the sampling policy's actions."},
    {"pompc_learner_value_target", internal::kG, "", "Mean of the value targets: discounted returns in reward units."},
    {"pompc_learner_model_error", internal::kG, "", "Mean squared error of the predicted latent after so many steps of the model; NaN beyond the window.", "step", "1,2,3,4,5,6,7,8,9"},
    {"pompc_learner_kl_weight", internal::kG, "", "KL weight lambda in use, without kl_action_scaling."},
    {"pompc_learner_scale", internal::kG, "", "Running scales that divide the parts of the policy loss.", "loss", "return,divergence"},
    {"pompc_learner_sample_staleness_versions", internal::kH, "versions", "Newest parameter version minus that of the sampled row.", "", "", internal::kStalenessBuckets},
    {"pompc_learner_reanalyzed_rows_total", internal::kC, "rows", "Rows re-planned."},
    {"pompc_learner_plan_nonfinite_total", internal::kC, "", "Action sequences that reanalyze rejected for a value that is not finite."},
    {"pompc_learner_reanalyze_duration_seconds", internal::kH, "seconds", "One call of the planner for reanalyze.", "", "", internal::kDurationBuckets},
    {"pompc_learner_params_version", internal::kG, "", "Newest published parameter version."},
    {"pompc_learner_params_lag_updates", internal::kG, "updates", "Updates that the parameters of the subscriber that lags most are behind."},
    {"pompc_learner_sent_bytes_total", internal::kC, "bytes", "Parameter bytes sent to subscribers."},
    {"pompc_learner_subscribers", internal::kG, "", "Subscribers connected."},
    {"pompc_learner_decisions", internal::kG, "", "Decisions in the run so far."},
    {"pompc_learner_final_decisions", internal::kG, "", "Decisions at which the run is complete."},
    {"pompc_learner_training_return", internal::kG, "", "Mean return of the last training episodes."},
    {"pompc_learner_evaluation_return", internal::kG, "", "Mean return of the last evaluation; NaN before the first."},
    {"pompc_learner_checkpoint_timestamp_seconds", internal::kG, "seconds", "When the last checkpoint was complete."},
    {"pompc_learner_checkpoint_duration_seconds", internal::kH, "seconds", "Writing one checkpoint.", "", "", internal::kDurationBuckets},
    {"pompc_learner_checkpoint_failures_total", internal::kC, "", "Checkpoints that could not be written."},
    {"pompc_learner_disk_free_bytes", internal::kG, "bytes", "Space left where the run's folder lies."},
    {"pompc_learner_disk_size_bytes", internal::kG, "bytes", "Size of the disk where the run's folder lies."},
    {"pompc_learner_gpu_memory_bytes", internal::kG, "bytes", "GPU memory of LibTorch: allocated by tensors, and reserved for them; 0 without a GPU.", "state", "allocated,reserved"},
    // Relay.
    {"pompc_relay_params_version", internal::kG, "", "Version of the parameters that are passed on."},
    {"pompc_relay_params_lag_updates", internal::kG, "updates", "Updates that the subscriber that lags most is behind the parameters that are passed on."},
    {"pompc_relay_received_bytes_total", internal::kC, "bytes", "Parameter bytes received from upstream."},
    {"pompc_relay_sent_bytes_total", internal::kC, "bytes", "Parameter bytes sent to subscribers."},
    {"pompc_relay_subscribers", internal::kG, "", "Subscribers connected."},
    // Calls between processes.
    {"pompc_rpc_calls_total", internal::kC, "", "Attempts of unary calls by outcome.", "code", internal::kCodes},
    {"pompc_rpc_call_duration_seconds", internal::kH, "seconds", "One attempt of a unary call, until its outcome.", "", "", internal::kDurationBuckets},
    {"pompc_rpc_retries_total", internal::kC, "", "Attempts of unary calls after the first."},
    {"pompc_rpc_reconnects_total", internal::kC, "", "Streams opened again after they broke."},
    {"pompc_rpc_served_total", internal::kC, "", "Unary calls served by outcome.", "code", internal::kCodes},
    {"pompc_rpc_serve_duration_seconds", internal::kH, "seconds", "One unary call, from its arrival to its answer.", "rpc", "get_config,join,report_episodes,get_status,configure,draw,peek,update,checkpoint,info", internal::kDurationBuckets},
    // Every process.
    {"pompc_run_info", internal::kG, "", "Always 1; its labels name the run."},
    {"pompc_log_lines_total", internal::kC, "", "Lines logged.", "severity", "info,warning,error"},
    {"process_start_time_seconds", internal::kG, "seconds", "When the process started."},
    {"process_cpu_seconds_total", internal::kC, "seconds", "User and system time of the process."},
    {"process_resident_memory_bytes", internal::kG, "bytes", "Resident memory of the process."},
    {"process_open_fds", internal::kG, "", "Open file descriptors of the process."},
    {"process_threads", internal::kG, "", "Threads of the process."},
};
// clang-format on

}  // namespace pompc

#endif  // POMPC_COMMON_METRICS_TABLE_H_
