// RunRecords: the curves of a run, as CSV files in its folder.
//
//   returns.csv      one row for each finished episode, of training and of evaluation
//   evaluations.csv  one row for each evaluation: mean, min and max over its episodes
//   losses.csv       one row for each logged update
//
// Units: decisions and updates are those of the run; env_steps are control steps, decisions times
// action repeat, the x axis of curves; seconds are those the run has been led for, not counting
// pauses between two processes. Every row is written through at once. A run that resumes cuts the
// files to their length at the checkpoint, so that no row appears twice.
//
// Thread-safety: thread-safe. Errors: those of the file system, with the path.
#ifndef POMPC_LEARNER_SERVICE_RUN_RECORDS_H_
#define POMPC_LEARNER_SERVICE_RUN_RECORDS_H_

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/types/span.h"
#include "proto/pompc/v1/learner.pb.h"

namespace pompc {

// A file to which lines are appended.
class CsvFile {
 public:
  // Cuts an existing file to `keep_bytes` (0: starts anew); writes the header if it is then empty.
  static absl::StatusOr<std::unique_ptr<CsvFile>> Open(const std::string& path,
                                                       const std::string& header,
                                                       int64_t keep_bytes);
  ~CsvFile();

  // Lines without the last one's newline. On an error nothing is appended.
  absl::Status Append(const std::string& lines);
  // Drops what was appended after the file had `bytes`.
  absl::Status CutTo(int64_t bytes);
  int64_t bytes() const { return bytes_; }

 private:
  CsvFile(std::string path, int descriptor) : path_(std::move(path)), descriptor_(descriptor) {}

  const std::string path_;
  const int descriptor_;
  int64_t bytes_ = 0;
};

// Where the run stands when a row is written.
struct RunMoment {
  int64_t decisions = 0;
  int64_t updates = 0;
  double seconds = 0;
};

struct Evaluation {
  int64_t decisions_at = 0;  // Of the parameters that were evaluated.
  std::vector<double> returns;
  int64_t parameter_version = -1;  // Not recorded.
};

class RunRecords {
 public:
  // stat_names: columns of losses.csv. record_bytes: from a checkpoint's RunBooks; empty: anew.
  static absl::StatusOr<std::unique_ptr<RunRecords>> Open(
      const std::string& folder, int32_t action_repeat, absl::Span<const char* const> stat_names,
      const std::map<std::string, int64_t>& record_bytes);

  absl::Status AddEpisode(const v1::Episode& episode, const RunMoment& now);
  absl::Status AddEvaluation(const Evaluation& evaluation, const RunMoment& now);
  // All episodes of a report and the evaluations that they complete; on an error none of them.
  absl::Status AddReport(const google::protobuf::RepeatedPtrField<v1::Episode>& episodes,
                         absl::Span<const Evaluation> evaluations, const RunMoment& now);
  // stats: in the order of stat_names.
  absl::Status AddLosses(absl::Span<const double> stats, const RunMoment& now);

  // Length of each file, by name.
  std::map<std::string, int64_t> record_bytes() const;

 private:
  explicit RunRecords(int32_t action_repeat) : action_repeat_(action_repeat) {}

  std::string EpisodeRow(const v1::Episode& episode, const RunMoment& now) const;
  std::string EvaluationRow(const Evaluation& evaluation, const RunMoment& now) const;

  const int32_t action_repeat_;
  mutable absl::Mutex mu_;
  std::unique_ptr<CsvFile> returns_ ABSL_GUARDED_BY(mu_);
  std::unique_ptr<CsvFile> evaluations_ ABSL_GUARDED_BY(mu_);
  std::unique_ptr<CsvFile> losses_ ABSL_GUARDED_BY(mu_);
};

}  // namespace pompc

#endif  // POMPC_LEARNER_SERVICE_RUN_RECORDS_H_
