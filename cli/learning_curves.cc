#include "cli/learning_curves.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <filesystem>
#include <map>
#include <optional>
#include <set>
#include <tuple>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "common/base/file.h"
#include "common/base/status_macros.h"
#include "common/config/schema.h"
#include "google/protobuf/text_format.h"
#include "proto/pompc/v1/config.pb.h"

namespace pompc {
namespace {

namespace fs = std::filesystem;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::TextFormat;

// The fields of one line, of which some may be in quotes ("" for one inside); null if quotes are
// not closed.
std::optional<std::vector<std::string>> SplitLine(absl::string_view line) {
  std::vector<std::string> fields(1);
  bool quoted = false;
  for (size_t i = 0; i < line.size(); ++i) {
    if (line[i] == '"' && quoted && i + 1 < line.size() && line[i + 1] == '"') {
      fields.back() += line[++i];
    } else if (line[i] == '"') {
      quoted = !quoted;
    } else if (line[i] == ',' && !quoted) {
      fields.emplace_back();
    } else {
      fields.back() += line[i];
    }
  }
  if (quoted) return std::nullopt;
  return fields;
}

// Some columns of a CSV file.
class CsvTable {
 public:
  static absl::StatusOr<CsvTable> Read(const std::string& path,
                                       absl::Span<const char* const> columns) {
    POMPC_ASSIGN_OR_RETURN(const std::string text, ReadFile(path));
    CsvTable table(path, columns);
    std::vector<size_t> places;
    size_t header_size = 0;
    int number = 0;
    for (absl::string_view line : absl::StrSplit(text, '\n')) {
      ++number;
      if (absl::EndsWith(line, "\r")) line.remove_suffix(1);
      if (line.empty()) continue;
      std::optional<std::vector<std::string>> fields = SplitLine(line);
      if (!fields.has_value()) return table.Wrong(number, "quotes that are not closed");
      if (places.empty()) {
        header_size = fields->size();
        for (const char* const column : columns) {
          const auto found = std::find(fields->begin(), fields->end(), column);
          if (found == fields->end()) {
            return table.Wrong(number, absl::StrCat("no column ", column, " in the header"));
          }
          places.push_back(found - fields->begin());
        }
        continue;
      }
      if (fields->size() != header_size) {
        return table.Wrong(
            number, absl::StrCat(fields->size(), " fields, but the header has ", header_size));
      }
      Row row{number, {}};
      for (const size_t place : places) row.fields.push_back(std::move((*fields)[place]));
      table.rows_.push_back(std::move(row));
    }
    if (places.empty()) return table.Wrong(1, "no header");
    return table;
  }

  size_t size() const { return rows_.size(); }
  const std::string& Text(size_t row, size_t column) const { return rows_[row].fields[column]; }

  absl::StatusOr<double> Number(size_t row, size_t column) const {
    double value = 0;
    if (absl::SimpleAtod(Text(row, column), &value) && std::isfinite(value)) return value;
    return Wrong(rows_[row].line, absl::StrCat(columns_[column], " = '", Text(row, column),
                                               "' is not a finite number"));
  }
  // A number that counts something.
  absl::StatusOr<double> Count(size_t row, size_t column) const {
    POMPC_ASSIGN_OR_RETURN(const double value, Number(row, column));
    if (value >= 0) return value;
    return Wrong(rows_[row].line, absl::StrCat(columns_[column], " = ", value, " is negative"));
  }

 private:
  struct Row {
    int line = 0;
    std::vector<std::string> fields;  // In the order of the columns.
  };

  CsvTable(std::string path, absl::Span<const char* const> columns)
      : path_(std::move(path)), columns_(columns.begin(), columns.end()) {}

  absl::Status Wrong(int line, const std::string& what) const {
    return absl::InvalidArgumentError(absl::StrCat(path_, ":", line, ": ", what));
  }

  std::string path_;
  std::vector<std::string> columns_;
  std::vector<Row> rows_;
};

// Whether runs that differ in this setting are not the same but for the seed.
bool Matters(const std::string& path) {
  static const auto* const kOthers = new std::set<std::string>{
      "preset",         "seed",           "total_decisions",        "environment.task",
      "replay.servers", "replay.journal", "replay.prefetch_batches"};
  return kOthers->count(path) == 0 && !absl::StartsWith(path, "actor.") &&
         !absl::StartsWith(path, "learner.") && !absl::StartsWith(path, "evaluation.");
}

std::map<std::string, std::string> SettingsThatMatter(const v1::RunConfig& config) {
  std::map<std::string, std::string> settings;
  ForEachField(config,
               [&](const std::string& path, const Message& holder, const FieldDescriptor& field) {
                 if (!Matters(path)) return;
                 std::string& value = settings[path];
                 if (!holder.GetReflection()->HasField(holder, &field)) {
                   value = "unset";
                 } else {
                   TextFormat::PrintFieldValueToString(holder, &field, -1, &value);
                 }
               });
  return settings;
}

struct Run {
  RunCurve curve;
  std::map<std::string, std::string> settings;
};

absl::StatusOr<Run> ReadRunFolder(const fs::path& folder) {
  const std::string returns = folder / "returns.csv", config_path = folder / "config.textproto";
  if (!fs::exists(returns)) {
    return absl::NotFoundError(absl::StrCat(folder.string(), " is no run: it has no returns.csv"));
  }
  POMPC_ASSIGN_OR_RETURN(const std::string text, ReadFile(config_path));
  v1::RunConfig config;
  TextFormat::Parser parser;
  parser.AllowUnknownField(true);  // Of a run that another version made.
  if (!parser.ParseFromString(text, &config)) {
    return absl::InvalidArgumentError(absl::StrCat(config_path, " is no config of a run"));
  }
  MaterializeDefaults(&config);
  Run run{{.task = config.environment().task(), .variant = config.preset(), .seed = config.seed()},
          SettingsThatMatter(config)};
  enum { kRole, kEnvSteps, kReturn };
  POMPC_ASSIGN_OR_RETURN(const CsvTable table,
                         CsvTable::Read(returns, {"role", "env_steps", "return"}));
  std::map<double, std::vector<double>> evaluations;  // Returns of the episodes at each step.
  for (size_t i = 0; i < table.size(); ++i) {
    POMPC_ASSIGN_OR_RETURN(const double env_steps, table.Count(i, kEnvSteps));
    POMPC_ASSIGN_OR_RETURN(const double value, table.Number(i, kReturn));
    if (table.Text(i, kRole) == "evaluator") evaluations[env_steps].push_back(value);
  }
  if (evaluations.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat(returns, ": no episode of an evaluation in it yet"));
  }
  for (const auto& [env_steps, values] : evaluations) {
    double sum = 0;
    for (const double value : values) sum += value;
    run.curve.points.emplace_back(env_steps, sum / static_cast<double>(values.size()));
  }
  return run;
}

absl::StatusOr<std::vector<RunCurve>> ReadRunTable(const std::string& path) {
  enum { kTask, kVariant, kSeed, kEnvSteps, kReturn };
  POMPC_ASSIGN_OR_RETURN(const CsvTable table,
                         CsvTable::Read(path, {"task", "variant", "seed", "env_steps", "return"}));
  std::vector<RunCurve> curves;
  std::map<std::tuple<std::string, std::string, uint64_t>, size_t> places;
  for (size_t i = 0; i < table.size(); ++i) {
    POMPC_ASSIGN_OR_RETURN(const double seed, table.Count(i, kSeed));
    POMPC_ASSIGN_OR_RETURN(const double env_steps, table.Count(i, kEnvSteps));
    POMPC_ASSIGN_OR_RETURN(const double value, table.Number(i, kReturn));
    RunCurve curve{.task = table.Text(i, kTask),
                   .variant = table.Text(i, kVariant),
                   .seed = static_cast<uint64_t>(seed)};
    const auto [place, is_new] =
        places.try_emplace({curve.task, curve.variant, curve.seed}, curves.size());
    if (is_new) curves.push_back(std::move(curve));
    curves[place->second].points.emplace_back(env_steps, value);
  }
  for (RunCurve& curve : curves) std::sort(curve.points.begin(), curve.points.end());
  return curves;
}

// Adds to the variants what runs of the same task and variant differ in.
void NameDifferences(std::vector<Run>& runs) {
  std::map<std::pair<std::string, std::string>, std::map<std::string, std::set<std::string>>>
      values;  // By task and variant, by setting.
  for (const Run& run : runs) {
    auto& settings = values[{run.curve.task, run.curve.variant}];
    for (const auto& [path, value] : run.settings) settings[path].insert(value);
  }
  for (Run& run : runs) {
    std::string name = run.curve.variant;
    for (const auto& [path, seen] : values.at({run.curve.task, run.curve.variant})) {
      if (seen.size() > 1) absl::StrAppend(&name, ", ", path, "=", run.settings.at(path));
    }
    run.curve.variant = std::move(name);
  }
}

std::optional<double> ValueAt(const RunCurve& run, double env_steps) {
  const auto& points = run.points;
  const double first = points.front().first, last = points.back().first;
  const double slack =
      points.size() < 2 ? 0 : (last - first) / static_cast<double>(points.size() - 1) / 2;
  if (env_steps < first - slack || env_steps > last + slack) return std::nullopt;
  const auto after =
      std::lower_bound(points.begin(), points.end(), std::pair(env_steps, -HUGE_VAL));
  if (after == points.end()) return points.back().second;
  if (after == points.begin()) return points.front().second;
  const auto before = after - 1;
  const double share = (env_steps - before->first) / (after->first - before->first);
  return before->second + share * (after->second - before->second);
}

}  // namespace

absl::StatusOr<std::vector<RunCurve>> ReadRunCurves(const std::vector<std::string>& paths) {
  std::vector<RunCurve> curves;
  std::vector<Run> runs;
  for (const std::string& path : paths) {
    if (fs::is_directory(path)) {
      POMPC_ASSIGN_OR_RETURN(Run run, ReadRunFolder(path));
      runs.push_back(std::move(run));
    } else {
      POMPC_ASSIGN_OR_RETURN(std::vector<RunCurve> table, ReadRunTable(path));
      std::move(table.begin(), table.end(), std::back_inserter(curves));
    }
  }
  NameDifferences(runs);
  for (Run& run : runs) curves.push_back(std::move(run.curve));
  return curves;
}

absl::StatusOr<std::vector<PublishedCurve>> ReadPublishedCurves(const std::string& path) {
  enum { kTask, kAlgorithm, kEnvSteps, kMean, kLow, kHigh };
  POMPC_ASSIGN_OR_RETURN(
      const CsvTable table,
      CsvTable::Read(path, {"task", "algorithm", "env_steps", "return_mean", "ci_low", "ci_high"}));
  std::map<std::pair<std::string, std::string>, std::vector<BandPoint>> lines;
  for (size_t i = 0; i < table.size(); ++i) {
    BandPoint point;
    POMPC_ASSIGN_OR_RETURN(point.env_steps, table.Count(i, kEnvSteps));
    POMPC_ASSIGN_OR_RETURN(point.mean, table.Number(i, kMean));
    POMPC_ASSIGN_OR_RETURN(point.low, table.Number(i, kLow));
    POMPC_ASSIGN_OR_RETURN(point.high, table.Number(i, kHigh));
    lines[{table.Text(i, kTask), table.Text(i, kAlgorithm)}].push_back(point);
  }
  std::vector<PublishedCurve> curves;
  for (auto& [name, points] : lines) {
    std::sort(points.begin(), points.end(),
              [](const BandPoint& a, const BandPoint& b) { return a.env_steps < b.env_steps; });
    curves.push_back({name.first, name.second, std::move(points)});
  }
  return curves;
}

std::vector<BandPoint> OverSeeds(const std::vector<const RunCurve*>& runs) {
  std::set<double> steps;
  for (const RunCurve* run : runs) {
    for (const auto& [env_steps, value] : run->points) steps.insert(env_steps);
  }
  std::vector<BandPoint> line;
  for (const double env_steps : steps) {
    BandPoint point{env_steps, 0, HUGE_VAL, -HUGE_VAL};
    int count = 0;
    for (const RunCurve* run : runs) {
      const std::optional<double> value = ValueAt(*run, env_steps);
      if (!value.has_value()) continue;
      point.mean += *value;
      point.low = std::min(point.low, *value);
      point.high = std::max(point.high, *value);
      ++count;
    }
    point.mean /= count;
    line.push_back(point);
  }
  return line;
}

}  // namespace pompc
