#include "actor/loop/reanalyze_worker.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string_view>
#include <vector>

#include "absl/strings/str_cat.h"
#include "actor/loop/acting_policy.h"
#include "actor/loop/metrics.h"
#include "common/base/rng.h"
#include "common/base/status_macros.h"
#include "common/rpc/status.h"
#include "learner/client/row.h"

namespace pompc {
namespace {

constexpr absl::Duration kPoll = absl::Milliseconds(200);  // While there is nothing to plan.

// The windows' observations but the last: [T B, O].
absl::StatusOr<at::Tensor> Observations(const v1::SampleResponse& windows, int64_t rows,
                                        int64_t obs_dim) {
  constexpr auto kColumn = static_cast<int>(RowColumn::kObservation);
  const size_t bytes = static_cast<size_t>(rows * obs_dim) * sizeof(float);
  if (windows.columns_size() != static_cast<int>(kNumRowColumns) || windows.keys_size() < rows ||
      windows.columns(kColumn).size() < bytes) {
    return absl::InternalError(absl::StrCat("replay sent ", windows.columns_size(), " columns and ",
                                            windows.keys_size(), " keys for windows of ", rows,
                                            " rows to plan"));
  }
  const at::Tensor obs = at::empty({rows, obs_dim}, at::kFloat);
  std::memcpy(obs.data_ptr<float>(), windows.columns(kColumn).data(), bytes);
  return obs;
}

std::string_view Bytes(const at::Tensor& tensor) {
  return {static_cast<const char*>(tensor.const_data_ptr()), tensor.nbytes()};
}

}  // namespace

absl::Status RunReanalyzeWorker(const v1::RunConfig& config, const JoinedRun& join,
                                StoredWindows& stored, const ActingPeers& peers) {
  const int32_t windows = config.reanalyze().windows();
  const int64_t rows = int64_t{config.learning().window()} * windows;  // T B
  // The stream of index 0 is the learner's.
  POMPC_ASSIGN_OR_RETURN(
      const std::unique_ptr<ActingPolicy> policy,
      ActingPolicy::Create(config, join.request.sizes(),
                           {.mode = PlanMode::kReanalyze,
                            .planner_stream = RngRole::kReanalyze,
                            .first_environment = static_cast<uint32_t>(join.answer.index()) + 1,
                            .device = config.reanalyze().device()}));
  Counter* const reanalyzed = peers.metrics->GetCounter("pompc_actor_reanalyzed_rows_total");
  Counter* const nonfinite = peers.metrics->GetCounter("pompc_actor_plan_nonfinite_total");
  Histogram* const duration = peers.metrics->GetHistogram("pompc_actor_plan_duration_seconds");
  const ParametersMetrics parameters(peers.metrics);
  const at::Tensor reset = at::ones({rows}, at::kBool);  // Every row is a plan from nothing.
  LearnerWatch watch(peers.learner, peers.clock);
  for (uint64_t step = 0; !peers.stop->HasBeenNotified();) {
    POMPC_RETURN_IF_ERROR(watch.Check(peers.parameters->status(), &join.request));
    const SnapshotPtr newest = peers.parameters->Newest();
    const auto wait = [&] {
      const int64_t held = newest == nullptr ? -1 : newest->version();
      peers.parameters->WaitForNewer(held, peers.clock->Now() + kPoll).status().IgnoreError();
    };
    if (newest != nullptr && newest->run_finished()) break;
    if (newest == nullptr || !newest->trained()) {
      wait();
      continue;
    }
    if (newest->version() != policy->version()) {
      POMPC_RETURN_IF_ERROR(policy->Load(*newest));
      parameters.Took(newest->version(), peers.clock->Now());
    }
    // A worker that comes back has another writer id, hence other draws.
    const absl::StatusOr<v1::SampleResponse> drawn =
        stored.Peek(windows, SeedFor(join.answer.writer_id(), RngRole::kReanalyze, 0, ++step));
    if (IsAway(drawn.status())) {
      wait();
      continue;
    }
    if (peers.stop->HasBeenNotified()) break;
    POMPC_RETURN_IF_ERROR(drawn.status());
    POMPC_ASSIGN_OR_RETURN(const at::Tensor obs,
                           Observations(*drawn, rows, join.request.sizes().observation_dim()));
    const absl::Time start = peers.clock->Now();
    POMPC_ASSIGN_OR_RETURN(const Decision plan, policy->Act(obs, reset, step));
    duration->Observe(absl::ToDoubleSeconds(peers.clock->Now() - start));
    nonfinite->Increment(static_cast<double>(plan.num_nonfinite));
    if (!plan.planned) continue;  // No sequence had a finite value: what is stored is better.
    const NamedRows columns[] = {
        {std::string(RowColumnName(RowColumn::kPriorMean)), Bytes(plan.prior_mean)},
        {std::string(RowColumnName(RowColumn::kPriorStd)), Bytes(plan.prior_std)},
    };
    const absl::StatusOr<v1::UpdateResponse> written =
        stored.Update({drawn->keys().data(), static_cast<size_t>(rows)}, columns);
    if (IsAway(written.status()) || peers.stop->HasBeenNotified()) {
      continue;  // Nothing is lost: the rows keep the prior that they have.
    }
    POMPC_RETURN_IF_ERROR(written.status());
    reanalyzed->Increment(static_cast<double>(written->updated_rows()));
  }
  return absl::OkStatus();
}

}  // namespace pompc
