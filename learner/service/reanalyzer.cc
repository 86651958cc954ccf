#include "learner/service/reanalyzer.h"

#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <algorithm>
#include <exception>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/status_macros.h"
#include "common/model/device.h"

namespace pompc {

absl::StatusOr<std::unique_ptr<Reanalyzer>> Reanalyzer::Create(const v1::RunConfig& config,
                                                               const BatchShape& shape,
                                                               at::Device device, Clock* clock) {
  const ModelSpec spec =
      ModelSpec::FromConfig(config, shape.sizes.observation_dim(), shape.sizes.action_dim());
  POMPC_ASSIGN_OR_RETURN(std::shared_ptr<Parameters> parameters,
                         Parameters::Create(spec, ParameterUse::kActing,
                                            at::TensorOptions(at::kFloat).device(device)));
  MppiOptions planning = MppiOptions::FromConfig(config, shape.sizes.episode_decisions());
  planning.precision = config.actor().matmul_precision();
  planning.leaves_room = !config.learner().has_reanalyze_device();  // To the updates.
  POMPC_ASSIGN_OR_RETURN(
      std::unique_ptr<MppiPlanner> planner,
      MppiPlanner::Create(
          planning, std::make_shared<const WorldModel>(parameters, WorldModel::Gradients::kNone)));
  std::unique_ptr<Reanalyzer> reanalyzer(
      new Reanalyzer(config, shape, std::move(parameters), std::move(planner), clock));
  if (!device.is_cpu()) {
    // Recording a plan changes settings of the whole process, so not while updates are recorded.
    const int64_t plans = shape.transitions * reanalyzer->windows_;
    POMPC_RETURN_IF_ERROR(
        reanalyzer->Plan({.obs = at::zeros({plans, spec.obs_dim}, at::kFloat)}).status());
  }
  reanalyzer->thread_.emplace("reanalyze", [r = reanalyzer.get()] { r->Run(); });
  return reanalyzer;
}

Reanalyzer::Reanalyzer(const v1::RunConfig& config, const BatchShape& shape,
                       std::shared_ptr<Parameters> parameters, std::unique_ptr<MppiPlanner> planner,
                       Clock* clock)
    : shape_(shape),
      windows_(std::min<int64_t>(config.learning().reanalyze_windows(), shape.windows)),
      threads_(config.learner().threads()),
      clock_(clock),
      parameters_(std::move(parameters)),
      planner_(std::move(planner)),
      noise_(0, parameters_->flat().options()),
      tasks_(1),
      results_(1) {}

Reanalyzer::~Reanalyzer() {
  tasks_.Close();
  results_.Close();
}

absl::Status Reanalyzer::Start(const Parameters& parameters, ColumnBatch& columns, uint64_t seed) {
  POMPC_ASSIGN_OR_RETURN(const Batch batch, ViewBatch(shape_, columns));
  Task task;
  task.obs =
      batch.obs.narrow(0, 0, shape_.transitions).narrow(1, 0, windows_).flatten(0, 1).clone();
  task.seed = seed;
  const at::Tensor& flat = parameters.flat();
  const at::Device device = parameters_->flat().device();
  // From or to the CPU the copy is over when it returns, else when the destination's stream has got
  // so far, which waits for the source's.
  const bool on_gpus = !flat.is_cpu() && !device.is_cpu();
  {
    const at::NoGradGuard no_grad;
    parameters_->flat().copy_(flat, /*non_blocking=*/on_gpus);
  }
  if (on_gpus) {
    const c10::impl::VirtualGuardImpl guard(device.type());
    task.parameters.emplace(device.type());
    task.parameters->record(guard.getStream(device));
  }
  return tasks_.Push(std::move(task));
}

absl::StatusOr<Reanalyzer::Result> Reanalyzer::Finish() {
  POMPC_ASSIGN_OR_RETURN(absl::StatusOr<Result> result, results_.Pop());
  return result;
}

void Reanalyzer::Run() {
  SetCpuThreads(threads_);
  const at::Device device = parameters_->flat().device();
  std::optional<c10::StreamGuard> stream;
  if (!device.is_cpu()) {
    stream.emplace(c10::impl::VirtualGuardImpl(device.type()).getNewStream(device));
  }
  while (true) {
    absl::StatusOr<Task> task = tasks_.Pop();
    if (!task.ok()) return;
    if (task->parameters.has_value()) task->parameters->block(stream->current_stream());
    if (!results_.Push(Plan(*task)).ok()) return;
  }
}

absl::StatusOr<Reanalyzer::Result> Reanalyzer::Plan(const Task& task) {
  const absl::Time start = clock_->Now();
  try {
    noise_.Seed(task.seed);
    POMPC_ASSIGN_OR_RETURN(const PlanResult plan,
                           planner_->Plan({.obs = task.obs.to(parameters_->flat().device()),
                                           .mode = PlanMode::kReanalyze},
                                          noise_, nullptr));
    const std::vector<int64_t> shape = {shape_.transitions, windows_, shape_.sizes.action_dim()};
    // Copies: on the CPU the planner's next plan overwrites its result.
    ReanalyzedPrior prior{
        plan.prior_mean.reshape(shape).to(at::kCPU, at::kFloat, false, /*copy=*/true),
        plan.prior_std.reshape(shape).to(at::kCPU, at::kFloat, false, /*copy=*/true),
        plan.num_nonfinite};
    return Result{std::move(prior), clock_->Now() - start};
  } catch (const std::exception& e) {
    return absl::InternalError(absl::StrCat("re-planning failed: ", e.what()));
  }
}

}  // namespace pompc
