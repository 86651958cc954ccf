#include "cli/monitor.h"

#include <csignal>
#include <filesystem>
#include <optional>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"

namespace pompc {
namespace {

namespace fs = std::filesystem;

constexpr absl::Duration kPollInterval = absl::Milliseconds(50);

absl::StatusOr<std::string> FindPrometheus() {
  if (std::optional<std::string> program = FindOnPath("prometheus")) return *std::move(program);
  return absl::FailedPreconditionError(
      "--monitor needs Prometheus, and there is no program \"prometheus\" in $PATH. Debian: "
      "apt-get "
      "install --no-install-recommends prometheus (which also starts one as a service: systemctl "
      "disable --now prometheus). Elsewhere: https://prometheus.io/download");
}

// deploy/prometheus as it was installed beside this program, or of the source tree.
absl::StatusOr<fs::path> FindConfiguration() {
  POMPC_ASSIGN_OR_RETURN(const std::string programs, ProgramFolder());
  const fs::path installed = fs::path(programs).parent_path() / "share/pompc/prometheus";
  for (const fs::path& folder : {installed, fs::path(POMPC_PROMETHEUS_FOLDER)}) {
    std::error_code ignored;
    if (fs::exists(folder / "prometheus.yml", ignored)) return folder;
  }
  return absl::NotFoundError(absl::StrCat("no configuration of Prometheus: neither ",
                                          installed.string(), " nor ", POMPC_PROMETHEUS_FOLDER,
                                          " has one"));
}

}  // namespace

Monitor::Monitor(std::string program, KeptPort port)
    : program_(std::move(program)), port_(std::move(port)) {}

absl::StatusOr<Monitor> Monitor::Create(int port) {
  POMPC_ASSIGN_OR_RETURN(std::string program, FindPrometheus());
  absl::StatusOr<KeptPort> kept = KeptPort::Create(port);
  if (!kept.ok()) {
    return absl::UnavailableError(absl::StrCat(kept.status().message(),
                                               "; perhaps another Prometheus has it: give this one "
                                               "another with --monitor-port"));
  }
  return Monitor(std::move(program), *std::move(kept));
}

std::string Monitor::address() const { return absl::StrCat("http://127.0.0.1:", port_.number()); }

absl::Status Monitor::Start(const std::string& run_dir) {
  POMPC_ASSIGN_OR_RETURN(const fs::path configuration, FindConfiguration());
  const fs::path folder = fs::path(run_dir) / "monitor";
  std::error_code error;
  fs::create_directories(folder / "targets", error);
  const auto replace = fs::copy_options::overwrite_existing;
  for (const char* file : {"prometheus.yml", "rules.yml"}) {
    if (!error) fs::copy_file(configuration / file, folder / file, replace, error);
  }
  if (!error) {
    fs::copy(configuration / "consoles", folder / "consoles", replace | fs::copy_options::recursive,
             error);
  }
  const fs::path link = folder / "targets/run.json";
  if (!error) fs::remove(link, error);
  if (!error) fs::create_symlink("../../metrics_targets.json", link, error);
  if (error) {
    return absl::UnavailableError(
        absl::StrCat("cannot write ", folder.string(), ": ", error.message()));
  }
  POMPC_ASSIGN_OR_RETURN(
      ChildProcess process,
      ChildProcess::Start(
          {program_, absl::StrCat("--config.file=", folder.string(), "/prometheus.yml"),
           absl::StrCat("--storage.tsdb.path=", folder.string(), "/data"),
           absl::StrCat("--web.console.templates=", folder.string(), "/consoles"),
           absl::StrCat("--web.listen-address=127.0.0.1:", port_.number()), "--log.level=warn"},
          run_dir + "/logs/prometheus.log"));
  process_.emplace(std::move(process));
  return absl::OkStatus();
}

std::optional<std::string> Monitor::UnexpectedEnd() {
  if (!process_.has_value() || !process_->Poll().has_value()) return std::nullopt;
  const std::string what = process_->Poll()->what;
  process_.reset();
  return absl::StrCat("prometheus ended: ", what,
                      "; logs/prometheus.log says why. The run goes on without it");
}

void Monitor::Stop(Clock* clock, absl::Duration grace) {
  if (!process_.has_value()) return;
  process_->Signal(SIGTERM);
  const Event never;
  const absl::Time deadline = clock->Now() + grace;
  while (!process_->Poll().has_value() && clock->Now() < deadline) {
    never.WaitUntil(clock, clock->Now() + kPollInterval);
  }
  process_.reset();  // Kills what still runs.
}

}  // namespace pompc
