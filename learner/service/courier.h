// Courier: publishes parameters beside the loop that changes them, on a thread of its own.
//
// Of a snapshot the loop only starts the copy; waiting for a GPU, checksum and serialising are a
// matter of 15 ms for 20 MB, as long as ten updates take there. Here it is seen, too, whether all
// parameters are finite: actors end over others.
//
// Thread-safety: none; one thread owns a Courier.
#ifndef POMPC_LEARNER_SERVICE_COURIER_H_
#define POMPC_LEARNER_SERVICE_COURIER_H_

#include <optional>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "common/base/clock.h"
#include "common/base/thread.h"
#include "common/metrics/metrics.h"
#include "common/model/parameters.h"
#include "learner/service/publisher.h"
#include "proto/pompc/v1/learner.pb.h"

namespace pompc {

class Courier {
 public:
  // `publisher` and `clock` must outlive this; nobody else publishes there meanwhile. `duration`
  // observes what each publication takes here.
  Courier(Publisher* publisher, Clock* clock, Histogram* duration);
  // Publishes what is under way.
  ~Courier();

  // Whether nothing is under way.
  bool Idle();
  // Blocks until that is so. An error from when parameters were not finite: DivergedError(); they,
  // and all after them, are not published.
  absl::Status Await();

  // Has `snapshot` published with the parameters as its data. Blocks while another is under way.
  // Errors: Await()'s, of those before.
  absl::Status Publish(v1::ParameterSnapshot snapshot, PendingSnapshot data);

 private:
  struct Parcel {
    v1::ParameterSnapshot snapshot;
    PendingSnapshot data;
  };
  void Run();
  bool Empty() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) { return !parcel_.has_value(); }
  bool HasWork() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) { return parcel_.has_value() || closed_; }

  Publisher* const publisher_;
  Clock* const clock_;
  Histogram* const duration_;
  absl::Mutex mu_;
  std::optional<Parcel> parcel_ ABSL_GUARDED_BY(mu_);  // Until it is published.
  absl::Status diverged_ ABSL_GUARDED_BY(mu_);
  bool closed_ ABSL_GUARDED_BY(mu_) = false;
  Thread thread_;  // Last, so that it starts when all else is there.
};

}  // namespace pompc

#endif  // POMPC_LEARNER_SERVICE_COURIER_H_
