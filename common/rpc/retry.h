// Unary calls that are repeated until they succeed, with backoff.
//
// A call may reach the server more than once: only for calls that are idempotent or carry a
// sequence number that the server knows again.
#ifndef POMPC_COMMON_RPC_RETRY_H_
#define POMPC_COMMON_RPC_RETRY_H_

#include <functional>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "common/base/clock.h"
#include "common/base/rng.h"
#include "common/metrics/metrics.h"
#include "common/rpc/call_metrics.h"
#include "grpcpp/client_context.h"
#include "grpcpp/support/status.h"

namespace pompc {

struct RetryPolicy {
  absl::Duration attempt_timeout = absl::Seconds(10);        // Of each attempt at most.
  absl::Duration give_up_after = absl::InfiniteDuration();   // All but the first end by then; 0:
                                                             // there is one.
  absl::Duration initial_backoff = absl::Milliseconds(100);  // > 0.
  absl::Duration max_backoff = absl::Seconds(2);             // >= initial_backoff.
};

// The waits between attempts: doubling from initial_backoff to max_backoff, each drawn uniformly
// from the upper half, so that clients that failed together do not come back together. Streams use
// it to reconnect. Belongs to one thread.
class Backoff {
 public:
  Backoff(const RetryPolicy& policy, Rng rng);
  absl::Duration Next();
  // After a success.
  void Reset();

 private:
  const RetryPolicy policy_;
  Rng rng_;
  absl::Duration next_;
};

// Belongs to one thread.
class UnaryCaller {
 public:
  // `clock`, `stop` and `metrics` must outlive the caller. Exposes pompc_rpc_calls_total,
  // pompc_rpc_call_duration_seconds and pompc_rpc_retries_total.
  UnaryCaller(const RetryPolicy& policy, Rng rng, Clock* clock, const Event* stop,
              MetricsRegistry* metrics);

  // Runs `attempt`, which makes one call with the context it is given, until the outcome is neither
  // UNAVAILABLE nor DEADLINE_EXCEEDED, and returns that outcome; or the last one once
  // give_up_after has passed; or CANCELLED once `stop` is raised, which also ends the wait between
  // attempts. A call that a server cancels, which it does when it shuts down, is UNAVAILABLE.
  //
  //   caller.Call([&](grpc::ClientContext* context) { return stub.Join(context, request, &answer);
  //   });
  absl::Status Call(const std::function<grpc::Status(grpc::ClientContext*)>& attempt);

 private:
  const RetryPolicy policy_;
  Backoff backoff_;
  Clock* const clock_;
  const Event* const stop_;
  const CodeCounters calls_;
  Histogram* const call_duration_;
  Counter* const retries_;
};

}  // namespace pompc

#endif  // POMPC_COMMON_RPC_RETRY_H_
