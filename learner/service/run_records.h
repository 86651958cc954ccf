// RunRecords: the curves of a run, as files in its folder.
//
//   returns.csv      one row for each finished episode, of training and of evaluation
//   evaluations.csv  one row for each evaluation: mean, min and max over its episodes
//   losses.csv       one row for each logged update
//   records.jsonl    all of these, a JSON object a line: "kind" (episode, evaluation or losses),
//                    "time" (seconds since 1970), then the columns of its CSV file; losses with the
//                    present decisions_per_second, updates_per_second and updates_per_decision
//   tensorboard/     for TensorBoard, over environment steps: returns/training (mean of the
//   episodes
//                    reported together), returns/evaluation, evaluation_least and
//                    evaluation_greatest, training/STAT, throughput/...
//
// Units: decisions and updates are those of the run; env_steps are control steps, decisions times
// action repeat, the x axis of curves; seconds are those the run has been led for, not counting
// pauses between two processes. Every row is written through at once, and is on the disk with the
// next checkpoint. A run that resumes cuts the files to their length at the checkpoint, so that no
// row appears twice (event_files.h); rows that a file lost nevertheless are missing from then on.
//
// Rows stand in the order of their moments, whichever threads add them: a row is told its own when
// its turn has come.
//
// Thread-safety: thread-safe. Errors: those of the file system, with the path.
#ifndef POMPC_LEARNER_SERVICE_RUN_RECORDS_H_
#define POMPC_LEARNER_SERVICE_RUN_RECORDS_H_

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "learner/service/record_file.h"
#include "proto/pompc/v1/learner.pb.h"

namespace pompc {

// Where the run stands when a row is written.
struct RunMoment {
  int64_t decisions = 0;
  int64_t updates = 0;
  double seconds = 0;
  absl::Time time;
  // At present; 0: not known yet.
  double decisions_per_second = 0;
  double updates_per_second = 0;
  double updates_per_decision = 0;
};

struct Evaluation {
  int64_t decisions_at = 0;  // Of the parameters that were evaluated.
  std::vector<double> returns;
  int64_t parameter_version = -1;  // Not recorded.
};

struct RunRecordsOptions {
  std::string folder;
  int32_t action_repeat = 1;
  std::vector<const char*> stat_names;  // Columns of losses.csv.
  // Of the checkpoint that the run resumes from: RunBooks.record_bytes and decisions. Empty: anew.
  std::map<std::string, int64_t> kept_bytes;
  int64_t kept_decisions = 0;
  absl::Time now;
};

class RunRecords {
 public:
  static absl::StatusOr<std::unique_ptr<RunRecords>> Open(const RunRecordsOptions& options);

  // All episodes of a report and the evaluations that they complete; on an error none of them.
  // moment: called once, under the lock, so that it must not call this.
  absl::Status AddReport(const google::protobuf::RepeatedPtrField<v1::Episode>& episodes,
                         absl::Span<const Evaluation> evaluations,
                         absl::FunctionRef<RunMoment()> moment);
  // stats: in the order of stat_names. moment: as above.
  absl::Status AddLosses(absl::Span<const double> stats, absl::FunctionRef<RunMoment()> moment);

  // Blocks until all rows are on the disk: before a checkpoint, so that it counts none that a power
  // cut takes away.
  absl::Status Sync() const;

  // Length of each file, by its name below the folder.
  std::map<std::string, int64_t> record_bytes() const;

 private:
  // The files that are written; the value is the place in files_.
  enum File { kReturns, kEvaluations, kLosses, kLines, kEvents, kFiles };
  static constexpr const char* kNames[kEvents] = {"returns.csv", "evaluations.csv", "losses.csv",
                                                  "records.jsonl"};
  // What is to be appended to each.
  using Additions = std::array<std::string, kFiles>;

  RunRecords(int32_t action_repeat, std::vector<const char*> stat_names)
      : action_repeat_(action_repeat), stat_names_(std::move(stat_names)) {}

  // To all or, on an error, to none.
  absl::Status Append(const Additions& additions) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const int32_t action_repeat_;
  const std::vector<const char*> stat_names_;
  mutable absl::Mutex mu_;
  std::array<std::unique_ptr<RecordFile>, kFiles> files_ ABSL_GUARDED_BY(mu_);
  std::string event_file_ ABSL_GUARDED_BY(mu_);  // Its name.
  // Length of the event files of earlier processes.
  std::map<std::string, int64_t> earlier_events_ ABSL_GUARDED_BY(mu_);
};

}  // namespace pompc

#endif  // POMPC_LEARNER_SERVICE_RUN_RECORDS_H_
