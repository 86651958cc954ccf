#include "common/rpc/retry.h"

#include <algorithm>
#include <chrono>

#include "common/base/check.h"
#include "common/rpc/status.h"

namespace pompc {

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
      calls_("pompc_rpc_calls_total", metrics),
      call_duration_(metrics->GetHistogram("pompc_rpc_call_duration_seconds")),
      retries_(metrics->GetCounter("pompc_rpc_retries_total")) {}

absl::Status UnaryCaller::Call(const std::function<grpc::Status(grpc::ClientContext*)>& attempt) {
  const absl::Time give_up = clock_->Now() + policy_.give_up_after;
  absl::Duration timeout = policy_.attempt_timeout;
  backoff_.Reset();
  while (!stop_->HasBeenNotified()) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + absl::ToChronoNanoseconds(timeout));
    const absl::Time start = clock_->Now();
    absl::Status status = FromGrpc(attempt(&context));
    call_duration_->Observe(absl::ToDoubleSeconds(clock_->Now() - start));
    calls_.Increment(status.code());
    if (absl::IsCancelled(status)) status = absl::UnavailableError("the server ended the call");
    if (!IsAway(status)) return status;

    const absl::Time next = clock_->Now() + backoff_.Next();
    if (next >= give_up) return status;
    if (stop_->WaitUntil(clock_, next)) break;
    retries_->Increment();
    timeout = std::min(policy_.attempt_timeout, give_up - clock_->Now());
  }
  return absl::CancelledError("stopped before the call succeeded");
}

}  // namespace pompc
