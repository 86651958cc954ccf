#include "learner/service/run_records.h"

#include <algorithm>
#include <tuple>
#include <utility>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "common/base/mean.h"
#include "common/base/status_macros.h"
#include "learner/service/event_files.h"

namespace pompc {
namespace {

// Enough digits that reading gives the same float32 back.
std::string Number(double value) { return absl::StrFormat("%.9g", value); }
std::string Seconds(double value) { return absl::StrFormat("%.3f", value); }

// A row of a table, told by the names of its columns.
struct Field {
  const char* name;
  std::string value;
  bool is_text = false;
};
using Row = std::vector<Field>;

std::string CsvHeader(const Row& row) {
  return absl::StrCat(
      absl::StrJoin(row, ",",
                    [](std::string* out, const Field& field) { absl::StrAppend(out, field.name); }),
      "\n");
}

std::string CsvLine(const Row& row) {
  return absl::StrCat(absl::StrJoin(row, ",",
                                    [](std::string* out, const Field& field) {
                                      absl::StrAppend(out, field.value);
                                    }),
                      "\n");
}

std::string JsonLine(const char* kind, const Row& row, absl::Time time) {
  std::string line = absl::StrFormat("{\"kind\":\"%s\",\"time\":%.3f", kind,
                                     absl::ToDoubleSeconds(time - absl::UnixEpoch()));
  for (const Field& field : row) {
    const char* const quote = field.is_text ? "\"" : "";
    absl::StrAppend(&line, ",\"", field.name, "\":", quote, field.value, quote);
  }
  return line + "}\n";
}

Row EpisodeRow(const v1::Episode& episode, int32_t action_repeat, const RunMoment& now) {
  return {{"role", episode.role() == v1::EVALUATOR ? "evaluator" : "actor", true},
          {"actor_index", absl::StrCat(episode.actor_index())},
          {"decisions_at", absl::StrCat(episode.decisions_at())},
          {"env_steps", absl::StrCat(episode.decisions_at() * action_repeat)},
          {"return", Number(episode.return_())},
          {"episode_decisions", absl::StrCat(episode.decisions())},
          {"parameter_version", absl::StrCat(episode.parameter_version())},
          {"updates", absl::StrCat(now.updates)},
          {"seconds", Seconds(now.seconds)}};
}

struct Spread {
  explicit Spread(const std::vector<double>& values)
      : mean(Mean(values)),
        min(*std::min_element(values.begin(), values.end())),
        max(*std::max_element(values.begin(), values.end())) {}
  double mean, min, max;
};

Row EvaluationRow(const Evaluation& evaluation, const Spread& spread, int32_t action_repeat,
                  const RunMoment& now) {
  return {{"decisions", absl::StrCat(evaluation.decisions_at)},
          {"env_steps", absl::StrCat(evaluation.decisions_at * action_repeat)},
          {"episodes", absl::StrCat(evaluation.returns.size())},
          {"mean", Number(spread.mean)},
          {"min", Number(spread.min)},
          {"max", Number(spread.max)},
          {"seconds", Seconds(now.seconds)},
          {"updates", absl::StrCat(now.updates)}};
}

Row LossesRow(absl::Span<const char* const> names, absl::Span<const double> stats,
              int32_t action_repeat, const RunMoment& now) {
  Row row = {{"updates", absl::StrCat(now.updates)},
             {"decisions", absl::StrCat(now.decisions)},
             {"env_steps", absl::StrCat(now.decisions * action_repeat)},
             {"seconds", Seconds(now.seconds)}};
  for (size_t i = 0; i < names.size(); ++i) row.push_back({names[i], Number(stats[i])});
  return row;
}

// What is known of how fast the run goes.
std::vector<std::pair<const char*, double>> Throughput(const RunMoment& now) {
  std::vector<std::pair<const char*, double>> known;
  if (now.updates_per_second > 0) {
    known.emplace_back("decisions_per_second", now.decisions_per_second);
    known.emplace_back("updates_per_second", now.updates_per_second);
  }
  if (now.updates_per_decision > 0) {
    known.emplace_back("updates_per_decision", now.updates_per_decision);
  }
  return known;
}

}  // namespace

absl::StatusOr<std::unique_ptr<RunRecords>> RunRecords::Open(const RunRecordsOptions& options) {
  auto records = absl::WrapUnique(new RunRecords(options.action_repeat, options.stat_names));
  absl::MutexLock lock(&records->mu_);
  const auto open = [&](File file, const std::string& header) {
    const auto kept = options.kept_bytes.find(kNames[file]);
    return RecordFile::Open(absl::StrCat(options.folder, "/", kNames[file]), header,
                            kept == options.kept_bytes.end() ? 0 : kept->second);
  };
  // Rows of nothing, for their columns.
  const std::vector<double> stats(options.stat_names.size());
  auto& files = records->files_;
  POMPC_ASSIGN_OR_RETURN(files[kReturns], open(kReturns, CsvHeader(EpisodeRow({}, 1, {}))));
  POMPC_ASSIGN_OR_RETURN(files[kEvaluations],
                         open(kEvaluations, CsvHeader(EvaluationRow({}, Spread({0}), 1, {}))));
  POMPC_ASSIGN_OR_RETURN(files[kLosses],
                         open(kLosses, CsvHeader(LossesRow(options.stat_names, stats, 1, {}))));
  POMPC_ASSIGN_OR_RETURN(files[kLines], open(kLines, ""));
  POMPC_ASSIGN_OR_RETURN(
      std::tie(records->event_file_, files[kEvents]),
      OpenNextEventFile({.folder = options.folder,
                         .kept_bytes = options.kept_bytes,
                         .kept_step = options.kept_decisions * options.action_repeat,
                         .now = options.now},
                        &records->earlier_events_));
  return records;
}

absl::Status RunRecords::AddReport(const google::protobuf::RepeatedPtrField<v1::Episode>& episodes,
                                   absl::Span<const Evaluation> evaluations,
                                   absl::FunctionRef<RunMoment()> moment) {
  absl::MutexLock lock(&mu_);
  const RunMoment now = moment();
  Additions additions;
  std::vector<double> training;
  for (const v1::Episode& episode : episodes) {
    const Row row = EpisodeRow(episode, action_repeat_, now);
    additions[kReturns] += CsvLine(row);
    additions[kLines] += JsonLine("episode", row, now.time);
    if (episode.role() != v1::EVALUATOR) training.push_back(episode.return_());
  }
  if (!training.empty()) {
    additions[kEvents] += ScalarEvent(now.decisions * action_repeat_, now.time,
                                      {{"returns/training", Spread(training).mean}});
  }
  for (const Evaluation& evaluation : evaluations) {
    const Spread spread(evaluation.returns);
    const Row row = EvaluationRow(evaluation, spread, action_repeat_, now);
    additions[kEvaluations] += CsvLine(row);
    additions[kLines] += JsonLine("evaluation", row, now.time);
    additions[kEvents] += ScalarEvent(evaluation.decisions_at * action_repeat_, now.time,
                                      {{"returns/evaluation", spread.mean},
                                       {"returns/evaluation_least", spread.min},
                                       {"returns/evaluation_greatest", spread.max}});
  }
  return Append(additions);
}

absl::Status RunRecords::AddLosses(absl::Span<const double> stats,
                                   absl::FunctionRef<RunMoment()> moment) {
  absl::MutexLock lock(&mu_);
  const RunMoment now = moment();
  Row row = LossesRow(stat_names_, stats, action_repeat_, now);
  Additions additions;
  additions[kLosses] = CsvLine(row);
  std::vector<std::pair<std::string, double>> scalars;
  for (size_t i = 0; i < stats.size(); ++i) {
    scalars.emplace_back(absl::StrCat("training/", stat_names_[i]), stats[i]);
  }
  for (const auto& [name, value] : Throughput(now)) {
    scalars.emplace_back(absl::StrCat("throughput/", name), value);
    row.push_back({name, Number(value)});
  }
  additions[kLines] = JsonLine("losses", row, now.time);
  additions[kEvents] = ScalarEvent(now.decisions * action_repeat_, now.time, scalars);
  return Append(additions);
}

absl::Status RunRecords::Append(const Additions& additions) {
  std::array<int64_t, kFiles> before;
  for (int file = 0; file < kFiles; ++file) before[file] = files_[file]->bytes();
  for (int file = 0; file < kFiles; ++file) {
    absl::Status added = files_[file]->Append(additions[file]);
    if (added.ok()) continue;
    while (--file >= 0) added.Update(files_[file]->CutTo(before[file]));
    return added;
  }
  return absl::OkStatus();
}

absl::Status RunRecords::Sync() const {
  absl::MutexLock lock(&mu_);
  for (const auto& file : files_) POMPC_RETURN_IF_ERROR(file->Sync());
  return absl::OkStatus();
}

std::map<std::string, int64_t> RunRecords::record_bytes() const {
  absl::MutexLock lock(&mu_);
  std::map<std::string, int64_t> bytes = earlier_events_;
  for (int file = 0; file < kEvents; ++file) bytes[kNames[file]] = files_[file]->bytes();
  bytes[event_file_] = files_[kEvents]->bytes();
  return bytes;
}

}  // namespace pompc
