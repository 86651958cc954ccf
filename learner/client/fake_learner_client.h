// Learner and parameters in the test's hands, in place of a connection.
#ifndef POMPC_LEARNER_CLIENT_FAKE_LEARNER_CLIENT_H_
#define POMPC_LEARNER_CLIENT_FAKE_LEARNER_CLIENT_H_

#include <memory>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "common/base/clock.h"
#include "learner/client/learner_client.h"
#include "learner/client/parameter_subscriber.h"

namespace pompc {

// Answers with what is set, and keeps what it was told. Thread-safe.
class FakeLearnerClient final : public LearnerClient {
 public:
  explicit FakeLearnerClient(v1::GetConfigResponse config) : config_(std::move(config)) {}

  // A failed one makes every call fail until set to OK again.
  void SetError(absl::Status error) {
    absl::MutexLock lock(&mu_);
    error_ = std::move(error);
  }
  void SetUpdates(int64_t updates) {
    absl::MutexLock lock(&mu_);
    updates_ = updates;
  }
  void SetEvaluationDecisions(int64_t decisions) {
    absl::MutexLock lock(&mu_);
    evaluation_decisions_ = decisions;
  }
  std::vector<v1::JoinRequest> joins() const {
    absl::MutexLock lock(&mu_);
    return joins_;
  }
  // Of all reports.
  std::vector<v1::Episode> episodes() const {
    absl::MutexLock lock(&mu_);
    return episodes_;
  }

  absl::StatusOr<v1::GetConfigResponse> GetConfig(absl::Time) override {
    absl::MutexLock lock(&mu_);
    if (!error_.ok()) return error_;
    return config_;
  }
  // The index asked for, or the number of joins before; writer ids 1, 2, ...
  absl::StatusOr<v1::JoinResponse> Join(const v1::JoinRequest& request, absl::Time) override {
    absl::MutexLock lock(&mu_);
    if (!error_.ok()) return error_;
    v1::JoinResponse response;
    response.set_index(request.has_index() ? request.index() : static_cast<int64_t>(joins_.size()));
    joins_.push_back(request);
    response.set_writer_id(joins_.size());
    return response;
  }
  absl::StatusOr<v1::ReportEpisodesResponse> ReportEpisodes(
      const v1::ReportEpisodesRequest& request, absl::Time) override {
    absl::MutexLock lock(&mu_);
    if (!error_.ok()) return error_;
    episodes_.insert(episodes_.end(), request.episodes().begin(), request.episodes().end());
    v1::ReportEpisodesResponse response;
    response.set_learner_updates(updates_);
    return response;
  }
  absl::StatusOr<v1::RunStatus> GetStatus(absl::Time) override {
    absl::MutexLock lock(&mu_);
    if (!error_.ok()) return error_;
    v1::RunStatus status;
    status.set_updates(updates_);
    status.set_evaluation_decisions(evaluation_decisions_);
    return status;
  }
  void Close() override { SetError(absl::CancelledError("client is closed")); }

 private:
  mutable absl::Mutex mu_;
  v1::GetConfigResponse config_ ABSL_GUARDED_BY(mu_);
  absl::Status error_ ABSL_GUARDED_BY(mu_);
  int64_t updates_ ABSL_GUARDED_BY(mu_) = 0;
  int64_t evaluation_decisions_ ABSL_GUARDED_BY(mu_) = -1;
  std::vector<v1::JoinRequest> joins_ ABSL_GUARDED_BY(mu_);
  std::vector<v1::Episode> episodes_ ABSL_GUARDED_BY(mu_);
};

// Holds what Publish() was given last. Thread-safe.
class FakeParameterSubscriber final : public ParameterSubscriber {
 public:
  explicit FakeParameterSubscriber(Clock* clock = RealClock()) : clock_(clock) {}

  void Publish(v1::ParameterSnapshot snapshot) {
    absl::MutexLock lock(&mu_);
    newest_ = std::make_shared<const v1::ParameterSnapshot>(std::move(snapshot));
  }

  SnapshotPtr Newest() const override {
    absl::MutexLock lock(&mu_);
    return newest_;
  }
  absl::StatusOr<SnapshotPtr> WaitForNewer(int64_t version, absl::Time deadline) override {
    absl::MutexLock lock(&mu_);
    const auto decided = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
      return closed_ || (newest_ != nullptr && newest_->version() != version);
    };
    if (!clock_->AwaitUntil(&mu_, absl::Condition(&decided), deadline)) {
      return absl::DeadlineExceededError("no newer parameters");
    }
    if (closed_) return absl::CancelledError("subscriber is closed");
    return newest_;
  }
  int64_t dropped_snapshots() const override { return 0; }
  absl::Status status() const override { return absl::OkStatus(); }
  void Close() override {
    absl::MutexLock lock(&mu_);
    closed_ = true;
  }

 private:
  Clock* const clock_;
  mutable absl::Mutex mu_;
  SnapshotPtr newest_ ABSL_GUARDED_BY(mu_);
  bool closed_ ABSL_GUARDED_BY(mu_) = false;
};

}  // namespace pompc

#endif  // POMPC_LEARNER_CLIENT_FAKE_LEARNER_CLIENT_H_
