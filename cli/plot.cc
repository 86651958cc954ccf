#include "cli/plot.h"

#include <algorithm>
#include <filesystem>
#include <set>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "cli/child_process.h"
#include "cli/curve_chart.h"
#include "cli/learning_curves.h"
#include "common/base/file.h"
#include "common/base/status_macros.h"

namespace pompc {
namespace {

namespace fs = std::filesystem;

// As it was installed beside this program, or of the source tree.
absl::StatusOr<std::string> FindPublished() {
  POMPC_ASSIGN_OR_RETURN(const std::string programs, ProgramFolder());
  const std::string name = "published-returns.csv";
  const fs::path installed = fs::path(programs).parent_path() / "share/pompc" / name;
  for (const fs::path& path : {installed, fs::path(POMPC_RESULTS_FOLDER) / name}) {
    std::error_code ignored;
    if (fs::exists(path, ignored)) return path.string();
  }
  return absl::NotFoundError(absl::StrCat("no published curves: neither ", installed.string(),
                                          " nor ", POMPC_RESULTS_FOLDER, " has them"));
}

// Keeps the runs whose `field` is one of `wanted`.
absl::Status Keep(const std::vector<std::string>& wanted, const char* what,
                  std::string RunCurve::*field, std::vector<RunCurve>* runs) {
  if (wanted.empty()) return absl::OkStatus();
  std::set<std::string> there;
  for (const RunCurve& run : *runs) there.insert(run.*field);
  for (const std::string& name : wanted) {
    if (there.count(name) > 0) continue;
    return absl::InvalidArgumentError(absl::StrCat(
        "no run with ", what, " '", name, "'; there are '", absl::StrJoin(there, "', '"), "'"));
  }
  const auto other = [&](const RunCurve& run) {
    return std::find(wanted.begin(), wanted.end(), run.*field) == wanted.end();
  };
  runs->erase(std::remove_if(runs->begin(), runs->end(), other), runs->end());
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::string> PlotCurves(const PlotOptions& options) {
  POMPC_ASSIGN_OR_RETURN(std::vector<RunCurve> runs, ReadRunCurves(options.paths));
  POMPC_RETURN_IF_ERROR(Keep(options.tasks, "task", &RunCurve::task, &runs));
  POMPC_RETURN_IF_ERROR(Keep(options.variants, "variant", &RunCurve::variant, &runs));
  if (runs.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("no runs in ", absl::StrJoin(options.paths, ", ")));
  }
  POMPC_ASSIGN_OR_RETURN(const std::string path, FindPublished());
  POMPC_ASSIGN_OR_RETURN(const std::vector<PublishedCurve> published, ReadPublishedCurves(path));
  const CurveChart chart = DrawCurves(runs, published);
  POMPC_RETURN_IF_ERROR(WriteFileAtomically(options.output, chart.svg));
  return absl::StrCat(absl::StrJoin(chart.notes, "\n"), chart.notes.empty() ? "" : "\n",
                      runs.size(), runs.size() == 1 ? " run" : " runs", " drawn into ",
                      options.output, "\n");
}

}  // namespace pompc
