#include "learner/client/remote_parameter_subscriber.h"

#include <utility>

#include "absl/strings/str_cat.h"

namespace pompc {

RemoteParameterSubscriber::RemoteParameterSubscriber(std::shared_ptr<grpc::Channel> channel,
                                                     uint64_t backoff_seed, Clock* clock,
                                                     MetricsRegistry* metrics)
    : clock_(clock),
      reader_(std::move(channel), backoff_seed, clock, metrics,
              [this](v1::ParameterSnapshot snapshot, const grpc::ByteBuffer&) {
                auto newest = std::make_shared<const v1::ParameterSnapshot>(std::move(snapshot));
                absl::MutexLock lock(&mu_);
                newest_ = std::move(newest);
              }) {}

void RemoteParameterSubscriber::Close() {
  reader_.Close();
  absl::MutexLock lock(&mu_);
  closed_ = true;
}

SnapshotPtr RemoteParameterSubscriber::Newest() const {
  absl::MutexLock lock(&mu_);
  return newest_;
}

absl::StatusOr<SnapshotPtr> RemoteParameterSubscriber::WaitForNewer(int64_t version,
                                                                    absl::Time deadline) {
  absl::MutexLock lock(&mu_);
  const auto decided = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    return closed_ || (newest_ != nullptr && newest_->version() != version);
  };
  if (!clock_->AwaitUntil(&mu_, absl::Condition(&decided), deadline)) {
    return absl::DeadlineExceededError(absl::StrCat("no newer parameters than version ", version,
                                                    "; stream: ", reader_.status().ToString()));
  }
  if (closed_) return absl::CancelledError("subscriber is closed");
  return newest_;
}

}  // namespace pompc
