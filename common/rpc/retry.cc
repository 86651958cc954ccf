#include "common/rpc/retry.h"

#include <algorithm>
#include <chrono>

#include "common/base/check.h"
#include "common/rpc/status.h"

namespace pompc {
namespace {

constexpr char kCalls[] = "pompc_rpc_calls_total";

bool WorthAnotherAttempt(const absl::Status& status) {
  return absl::IsUnavailable(status) || absl::IsDeadlineExceeded(status);
}

}  // namespace

Backoff::Backoff(const RetryPolicy& policy, Rng rng)
    : policy_(policy), rng_(rng), next_(policy.initial_backoff) {
  POMPC_CHECK(policy.initial_backoff > absl::ZeroDuration() &&
              policy.max_backoff >= policy.initial_backoff);
}

absl::Duration Backoff::Next() {
  const absl::Duration wait = next_ * rng_.Uniform(0.5, 1);
  next_ = std::min(next_ * 2, policy_.max_backoff);
  return wait;
}

void Backoff::Reset() { next_ = policy_.initial_backoff; }

UnaryCaller::UnaryCaller(const RetryPolicy& policy, Rng rng, Clock* clock, const Event* stop,
                         MetricsRegistry* metrics)
    : policy_(policy),
      backoff_(policy, rng),
      clock_(clock),
      stop_(stop),
      calls_{
          {absl::StatusCode::kOk, metrics->GetCounter(kCalls, "ok")},
          {absl::StatusCode::kCancelled, metrics->GetCounter(kCalls, "cancelled")},
          {absl::StatusCode::kInvalidArgument, metrics->GetCounter(kCalls, "invalid_argument")},
          {absl::StatusCode::kDeadlineExceeded, metrics->GetCounter(kCalls, "deadline_exceeded")},
          {absl::StatusCode::kNotFound, metrics->GetCounter(kCalls, "not_found")},
          {absl::StatusCode::kResourceExhausted, metrics->GetCounter(kCalls, "resource_exhausted")},
          {absl::StatusCode::kFailedPrecondition,
           metrics->GetCounter(kCalls, "failed_precondition")},
          {absl::StatusCode::kUnavailable, metrics->GetCounter(kCalls, "unavailable")},
      },
      other_calls_(metrics->GetCounter(kCalls, "other")),
      retries_(metrics->GetCounter("pompc_rpc_retries_total")) {}

absl::Status UnaryCaller::Call(const std::function<grpc::Status(grpc::ClientContext*)>& attempt) {
  const absl::Time give_up = clock_->Now() + policy_.give_up_after;
  backoff_.Reset();
  while (!stop_->HasBeenNotified()) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() +
                         absl::ToChronoNanoseconds(policy_.attempt_timeout));
    absl::Status status = FromGrpc(attempt(&context));
    const auto counter = calls_.find(status.code());
    (counter == calls_.end() ? other_calls_ : counter->second)->Increment();
    if (absl::IsCancelled(status)) status = absl::UnavailableError("the server ended the call");
    if (!WorthAnotherAttempt(status)) return status;

    const absl::Time next = clock_->Now() + backoff_.Next();
    if (next > give_up) return status;
    if (stop_->WaitUntil(clock_, next)) break;
    retries_->Increment();
  }
  return absl::CancelledError("stopped before the call succeeded");
}

}  // namespace pompc
