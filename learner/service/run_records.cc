#include "learner/service/run_records.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <numeric>
#include <utility>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "common/base/status_macros.h"

namespace pompc {
namespace {

constexpr char kReturns[] = "returns.csv";
constexpr char kEvaluations[] = "evaluations.csv";
constexpr char kLosses[] = "losses.csv";

// Enough digits that reading gives the same float32 back.
std::string Number(double value) { return absl::StrFormat("%.9g", value); }

}  // namespace

absl::StatusOr<std::unique_ptr<CsvFile>> CsvFile::Open(const std::string& path,
                                                       const std::string& header,
                                                       int64_t keep_bytes) {
  const int descriptor = open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (descriptor < 0) return absl::ErrnoToStatus(errno, absl::StrCat("cannot open ", path));
  auto file = absl::WrapUnique(new CsvFile(path, descriptor));
  struct stat info;
  if (fstat(descriptor, &info) != 0) {
    return absl::ErrnoToStatus(errno, absl::StrCat("cannot read the size of ", path));
  }
  if (info.st_size < keep_bytes) {
    return absl::DataLossError(absl::StrCat(path, " has ", info.st_size, " bytes, but had ",
                                            keep_bytes, " at the checkpoint"));
  }
  POMPC_RETURN_IF_ERROR(file->CutTo(keep_bytes));
  if (keep_bytes == 0) POMPC_RETURN_IF_ERROR(file->Append(header));
  return file;
}

CsvFile::~CsvFile() { close(descriptor_); }

absl::Status CsvFile::Append(const std::string& lines) {
  const std::string text = lines + "\n";
  size_t written = 0;
  while (written < text.size()) {
    const ssize_t count = write(descriptor_, text.data() + written, text.size() - written);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) {
      absl::Status failed = absl::ErrnoToStatus(errno, absl::StrCat("cannot write ", path_));
      failed.Update(CutTo(bytes_));  // A disk that is full has taken part of it.
      return failed;
    }
    written += count;
  }
  bytes_ += static_cast<int64_t>(text.size());
  return absl::OkStatus();
}

absl::Status CsvFile::CutTo(int64_t bytes) {
  if (ftruncate(descriptor_, bytes) != 0) {
    return absl::ErrnoToStatus(errno, absl::StrCat("cannot cut ", path_));
  }
  bytes_ = bytes;
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<RunRecords>> RunRecords::Open(
    const std::string& folder, int32_t action_repeat, absl::Span<const char* const> stat_names,
    const std::map<std::string, int64_t>& record_bytes) {
  auto records = absl::WrapUnique(new RunRecords(action_repeat));
  const auto open = [&](const char* name, const std::string& header) {
    const auto kept = record_bytes.find(name);
    return CsvFile::Open(absl::StrCat(folder, "/", name), header,
                         kept == record_bytes.end() ? 0 : kept->second);
  };
  absl::MutexLock lock(&records->mu_);
  POMPC_ASSIGN_OR_RETURN(
      records->returns_,
      open(kReturns,
           "role,actor_index,decisions_at,env_steps,return,episode_decisions,parameter_version,"
           "updates,seconds"));
  POMPC_ASSIGN_OR_RETURN(
      records->evaluations_,
      open(kEvaluations, "decisions,env_steps,episodes,mean,min,max,seconds,updates"));
  POMPC_ASSIGN_OR_RETURN(records->losses_,
                         open(kLosses, absl::StrCat("updates,decisions,env_steps,seconds,",
                                                    absl::StrJoin(stat_names, ","))));
  return records;
}

std::string RunRecords::EpisodeRow(const v1::Episode& episode, const RunMoment& now) const {
  return absl::StrJoin(
      {std::string(episode.role() == v1::EVALUATOR ? "evaluator" : "actor"),
       absl::StrCat(episode.actor_index()), absl::StrCat(episode.decisions_at()),
       absl::StrCat(episode.decisions_at() * action_repeat_), Number(episode.return_()),
       absl::StrCat(episode.decisions()), absl::StrCat(episode.parameter_version()),
       absl::StrCat(now.updates), absl::StrFormat("%.3f", now.seconds)},
      ",");
}

std::string RunRecords::EvaluationRow(const Evaluation& evaluation, const RunMoment& now) const {
  const std::vector<double>& returns = evaluation.returns;
  const auto [min, max] = std::minmax_element(returns.begin(), returns.end());
  const double mean = std::accumulate(returns.begin(), returns.end(), 0.0) / returns.size();
  return absl::StrJoin({absl::StrCat(evaluation.decisions_at),
                        absl::StrCat(evaluation.decisions_at * action_repeat_),
                        absl::StrCat(returns.size()), Number(mean), Number(*min), Number(*max),
                        absl::StrFormat("%.3f", now.seconds), absl::StrCat(now.updates)},
                       ",");
}

absl::Status RunRecords::AddEpisode(const v1::Episode& episode, const RunMoment& now) {
  absl::MutexLock lock(&mu_);
  return returns_->Append(EpisodeRow(episode, now));
}

absl::Status RunRecords::AddEvaluation(const Evaluation& evaluation, const RunMoment& now) {
  absl::MutexLock lock(&mu_);
  return evaluations_->Append(EvaluationRow(evaluation, now));
}

absl::Status RunRecords::AddReport(const google::protobuf::RepeatedPtrField<v1::Episode>& episodes,
                                   absl::Span<const Evaluation> evaluations, const RunMoment& now) {
  std::vector<std::string> rows, evaluation_rows;
  for (const v1::Episode& episode : episodes) rows.push_back(EpisodeRow(episode, now));
  for (const Evaluation& evaluation : evaluations) {
    evaluation_rows.push_back(EvaluationRow(evaluation, now));
  }
  absl::MutexLock lock(&mu_);
  const int64_t evaluation_bytes = evaluations_->bytes();
  if (!evaluation_rows.empty()) {
    POMPC_RETURN_IF_ERROR(evaluations_->Append(absl::StrJoin(evaluation_rows, "\n")));
  }
  if (rows.empty()) return absl::OkStatus();
  absl::Status added = returns_->Append(absl::StrJoin(rows, "\n"));
  if (!added.ok()) added.Update(evaluations_->CutTo(evaluation_bytes));
  return added;
}

absl::Status RunRecords::AddLosses(absl::Span<const double> stats, const RunMoment& now) {
  const std::string values = absl::StrJoin(
      stats, ",", [](std::string* out, double value) { absl::StrAppend(out, Number(value)); });
  absl::MutexLock lock(&mu_);
  return losses_->Append(absl::StrCat(now.updates, ",", now.decisions, ",",
                                      now.decisions * action_repeat_, ",",
                                      absl::StrFormat("%.3f", now.seconds), ",", values));
}

std::map<std::string, int64_t> RunRecords::record_bytes() const {
  absl::MutexLock lock(&mu_);
  return {{kReturns, returns_->bytes()},
          {kEvaluations, evaluations_->bytes()},
          {kLosses, losses_->bytes()}};
}

}  // namespace pompc
