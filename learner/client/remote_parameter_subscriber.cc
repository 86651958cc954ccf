#include "learner/client/remote_parameter_subscriber.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/crc32c.h"
#include "common/base/log.h"
#include "common/base/rng.h"
#include "common/rpc/retry.h"
#include "common/rpc/status.h"

namespace pompc {
namespace {

absl::Status CheckContent(const v1::ParameterSnapshot& snapshot) {
  const std::string& data = snapshot.data();
  constexpr size_t kElement = 2;  // Of the smaller type, bfloat16.
  if (data.empty() || data.size() % kElement != 0) {
    return absl::DataLossError(absl::StrCat("parameters of version ", snapshot.version(), " have ",
                                            data.size(), " bytes, which is no number of elements"));
  }
  if (Crc32c(data) != snapshot.crc32c()) {
    return absl::DataLossError(
        absl::StrCat("parameters of version ", snapshot.version(), " have a wrong checksum"));
  }
  return absl::OkStatus();
}

}  // namespace

RemoteParameterSubscriber::RemoteParameterSubscriber(std::shared_ptr<grpc::Channel> channel,
                                                     uint64_t backoff_seed, Clock* clock,
                                                     MetricsRegistry* metrics)
    : stub_(v1::Learner::NewStub(std::move(channel))),
      clock_(clock),
      reconnects_(metrics->GetCounter("pompc_rpc_reconnects_total")),
      thread_("params", [this, backoff_seed] { ReadLoop(backoff_seed); }) {}

RemoteParameterSubscriber::~RemoteParameterSubscriber() { Close(); }

void RemoteParameterSubscriber::Close() {
  absl::MutexLock lock(&mu_);
  closed_.Notify();
  if (context_ != nullptr) context_->TryCancel();
}

SnapshotPtr RemoteParameterSubscriber::Newest() const {
  absl::MutexLock lock(&mu_);
  return newest_;
}

absl::StatusOr<SnapshotPtr> RemoteParameterSubscriber::WaitForNewer(int64_t version,
                                                                    absl::Time deadline) {
  absl::MutexLock lock(&mu_);
  const auto decided = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    return closed_.HasBeenNotified() || (newest_ != nullptr && newest_->version() != version);
  };
  if (!clock_->AwaitUntil(&mu_, absl::Condition(&decided), deadline)) {
    return absl::DeadlineExceededError(absl::StrCat("no newer parameters than version ", version,
                                                    "; stream: ", status_.ToString()));
  }
  if (closed_.HasBeenNotified()) return absl::CancelledError("subscriber is closed");
  return newest_;
}

int64_t RemoteParameterSubscriber::streams() const {
  absl::MutexLock lock(&mu_);
  return streams_;
}

int64_t RemoteParameterSubscriber::dropped_snapshots() const {
  absl::MutexLock lock(&mu_);
  return dropped_;
}

absl::Status RemoteParameterSubscriber::status() const {
  absl::MutexLock lock(&mu_);
  return status_;
}

void RemoteParameterSubscriber::ReadLoop(uint64_t backoff_seed) {
  Backoff backoff(RetryPolicy(), Rng(backoff_seed, RngRole::kBackoff, 1, 0));
  while (!closed_.HasBeenNotified()) {
    const absl::Status broken = ReadStream([&backoff] { backoff.Reset(); });
    if (closed_.HasBeenNotified()) return;
    if (absl::IsDataLoss(broken)) POMPC_LOG(WARNING) << broken.message();
    {
      absl::MutexLock lock(&mu_);
      status_ = broken;
    }
    if (closed_.WaitUntil(clock_, clock_->Now() + backoff.Next())) return;
    reconnects_->Increment();
  }
}

template <typename Received>
absl::Status RemoteParameterSubscriber::ReadStream(Received received) {
  grpc::ClientContext context;
  {
    absl::MutexLock lock(&mu_);
    if (closed_.HasBeenNotified()) return absl::CancelledError("subscriber is closed");
    context_ = &context;
  }
  const auto stream = stub_->Subscribe(&context);
  absl::Status stored;
  v1::SubscribeRequest request;
  // The first request of a stream takes whatever the learner has: it may have started again.
  request.set_held_version(-1);
  while (stored.ok() && stream->Write(request)) {
    auto snapshot = std::make_shared<v1::ParameterSnapshot>();
    if (!stream->Read(snapshot.get())) break;
    const bool first_of_stream = request.held_version() == -1;
    request.set_held_version(snapshot->version());
    stored = Store(std::move(snapshot), first_of_stream);
    if (stored.ok()) received();
  }
  if (!stored.ok()) context.TryCancel();
  const absl::Status finished = FromGrpc(stream->Finish());
  {
    absl::MutexLock lock(&mu_);
    context_ = nullptr;
  }
  if (!stored.ok()) return stored;
  return finished.ok() ? absl::UnavailableError("the learner ended the stream") : finished;
}

absl::Status RemoteParameterSubscriber::Store(SnapshotPtr snapshot, bool first_of_stream) {
  const absl::Status content = CheckContent(*snapshot);
  absl::MutexLock lock(&mu_);
  if (content.ok()) {
    newest_ = std::move(snapshot);
    if (first_of_stream) ++streams_;
    status_ = absl::OkStatus();
  } else {
    ++dropped_;
  }
  return content;
}

}  // namespace pompc
