#include "actor/env/environment_batch.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/clock.h"
#include "common/base/status_macros.h"

namespace pompc {
namespace {

// Sleeping and waking costs as much as several environment steps of a small task, and a batch is
// often stepped again at once. So a thread looks this often, some 50 us, before it sleeps.
constexpr int kLooks = 2000;

template <typename Condition>
void LookFor(const Condition& condition) {
  for (int i = 0; i < kLooks && !condition(); ++i) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
  }
}

}  // namespace

absl::StatusOr<std::unique_ptr<EnvironmentBatch>> EnvironmentBatch::Create(
    const EnvironmentOptions& options, int num_environments, int num_threads) {
  if (num_environments < 1 || num_threads < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("need at least one environment and one thread, not ", num_environments,
                     " and ", num_threads));
  }
  std::vector<std::unique_ptr<Environment>> environments;
  for (int i = 0; i < num_environments; ++i) {
    EnvironmentOptions own = options;
    own.seed += static_cast<uint32_t>(i);
    POMPC_ASSIGN_OR_RETURN(environments.emplace_back(), CreateEnvironment(own));
  }
  return std::unique_ptr<EnvironmentBatch>(
      new EnvironmentBatch(std::move(environments), num_threads));
}

EnvironmentBatch::EnvironmentBatch(std::vector<std::unique_ptr<Environment>> environments,
                                   int num_threads)
    : environments_(std::move(environments)),
      statuses_(environments_.size()),
      shares_(num_threads) {
  for (int i = 0; i < num_threads; ++i) {
    shares_[i].begin = size() * i / num_threads;
    shares_[i].end = size() * (i + 1) / num_threads;
  }
  for (int i = 1; i < num_threads; ++i) {
    workers_.emplace_back(absl::StrCat("env-", i), [this, i] { WorkerLoop(i); });
  }
}

EnvironmentBatch::~EnvironmentBatch() {
  absl::MutexLock lock(&mutex_);
  stop_ = true;  // The workers are joined as the first member to go.
}

absl::Status EnvironmentBatch::Reset(absl::Span<float> observations) {
  POMPC_RETURN_IF_ERROR(Start({.actions = {}, .observations = observations, .results = {}}));
  return FinishStep();
}

absl::Status EnvironmentBatch::Step(absl::Span<const float> actions, absl::Span<float> observations,
                                    absl::Span<StepResult> results) {
  POMPC_RETURN_IF_ERROR(StartStep(actions, observations, results));
  return FinishStep();
}

absl::Status EnvironmentBatch::StartStep(absl::Span<const float> actions,
                                         absl::Span<float> observations,
                                         absl::Span<StepResult> results) {
  const size_t num_actions = environments_.size() * spec().action_dim;
  if (actions.size() != num_actions || results.size() != environments_.size()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "a batch of ", environments_.size(), " needs ", num_actions, " action elements and ",
        environments_.size(), " results, not ", actions.size(), " and ", results.size()));
  }
  return Start({.actions = actions, .observations = observations, .results = results});
}

absl::Status EnvironmentBatch::Start(const Job& job) {
  const size_t num_observations = environments_.size() * spec().observation_dim;
  if (job.observations.size() != num_observations) {
    return absl::InvalidArgumentError(absl::StrCat("a batch of ", environments_.size(), " needs ",
                                                   num_observations, " observation elements, not ",
                                                   job.observations.size()));
  }
  start_ = RealClock()->Now();
  left_ = size();
  absl::MutexLock lock(&mutex_);
  for (Share& share : shares_) share.next.store(share.begin, std::memory_order_relaxed);
  job_ = job;
  busy_workers_ = static_cast<int>(workers_.size());
  ++job_number_;
  return absl::OkStatus();
}

absl::Status EnvironmentBatch::FinishStep() {
  Job job;
  {
    absl::MutexLock lock(&mutex_);
    job = job_;
  }
  Work(job, 0);
  {
    const auto all_done = [this] { return busy_workers_ == 0; };
    LookFor(all_done);
    absl::MutexLock lock(&mutex_);
    mutex_.Await(absl::Condition(&all_done));
  }
  for (const absl::Status& status : statuses_) POMPC_RETURN_IF_ERROR(status);
  return absl::OkStatus();
}

void EnvironmentBatch::WorkerLoop(size_t thread) {
  for (int64_t done = 0;; ++done) {
    LookFor([this, done] { return job_number_ > done; });
    Job job;
    {
      const auto ready = [this, done]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
        return stop_ || job_number_ > done;
      };
      absl::MutexLock lock(&mutex_);
      mutex_.Await(absl::Condition(&ready));
      if (stop_) return;
      job = job_;
    }
    Work(job, thread);
    absl::MutexLock lock(&mutex_);
    --busy_workers_;
  }
}

void EnvironmentBatch::Work(const Job& job, size_t thread) {
  for (size_t i = 0; i < shares_.size(); ++i) {
    Share& share = shares_[(thread + i) % shares_.size()];
    for (;;) {
      const int64_t index = share.next.fetch_add(1, std::memory_order_relaxed);
      if (index >= share.end) break;
      statuses_[index] = RunOne(job, index);
      if (left_.fetch_sub(1, std::memory_order_relaxed) == 1) {
        step_duration_ = RealClock()->Now() - start_;
      }
    }
  }
}

absl::Status EnvironmentBatch::RunOne(const Job& job, int64_t index) {
  Environment& environment = *environments_[index];
  const size_t observation_dim = environment.spec().observation_dim;
  const size_t action_dim = environment.spec().action_dim;
  const absl::Span<float> observation =
      job.observations.subspan(index * observation_dim, observation_dim);
  if (job.results.empty()) return environment.Reset(observation);
  POMPC_ASSIGN_OR_RETURN(
      job.results[index],
      environment.Step(job.actions.subspan(index * action_dim, action_dim), observation));
  return absl::OkStatus();
}

}  // namespace pompc
