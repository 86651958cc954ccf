// RunProgress: where the run stands, written by the learner's loop and read by whoever asks.
//
// Rates are over the last seconds of the clock: between now and a past count that is at least one
// and at most five seconds old where there is one.
// Thread-safety: thread-safe.
#ifndef POMPC_LEARNER_SERVICE_RUN_PROGRESS_H_
#define POMPC_LEARNER_SERVICE_RUN_PROGRESS_H_

#include <cstdint>
#include <deque>
#include <map>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/base/clock.h"
#include "learner/service/run_records.h"
#include "proto/pompc/v1/learner.pb.h"

namespace pompc {

class RunProgress {
 public:
  struct Counts {
    const char* phase = "waiting";
    int64_t decisions = 0;
    int64_t updates = 0;
    int64_t parameter_version = -1;
    int64_t replay_rows = 0;
    bool planning = false;            // Actors plan: parameters are trained.
    double updates_per_decision = 0;  // Since the seed phase.
    double sample_age_updates = 0;    // Mean staleness of the rows of the last batch.
    int64_t parameter_lag_updates = 0;
  };

  // seconds: spent in the run before this process. `clock` must outlive this.
  RunProgress(int64_t total_decisions, int32_t action_repeat, double seconds, Clock* clock)
      : total_decisions_(total_decisions),
        action_repeat_(action_repeat),
        seconds_before_(seconds),
        clock_(clock),
        start_(clock->Now()) {}

  void Set(const Counts& counts);
  // The last logged losses, by name.
  void SetLosses(std::map<std::string, double> losses);

  RunMoment Now() const;
  // Writes the fields that this class knows.
  void FillStatus(v1::RunStatus* status) const;

 private:
  struct Mark {
    absl::Time time;
    int64_t decisions, updates;
  };

  RunMoment Moment(absl::Time now) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const int64_t total_decisions_;
  const int32_t action_repeat_;
  const double seconds_before_;
  Clock* const clock_;
  const absl::Time start_;
  mutable absl::Mutex mu_;
  Counts counts_ ABSL_GUARDED_BY(mu_);
  std::map<std::string, double> losses_ ABSL_GUARDED_BY(mu_);
  std::deque<Mark> marks_ ABSL_GUARDED_BY(mu_);  // Oldest first, at least a second apart.
};

}  // namespace pompc

#endif  // POMPC_LEARNER_SERVICE_RUN_PROGRESS_H_
