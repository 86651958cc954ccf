#include "cli/mps.h"

#include <cstdlib>
#include <filesystem>
#include <optional>
#include <string>
#include <system_error>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "cli/child_process.h"
#include "common/base/status_macros.h"

namespace pompc {
namespace {

namespace fs = std::filesystem;

constexpr char kProgram[] = "nvidia-cuda-mps-control";
constexpr char kPipeDirectory[] = "CUDA_MPS_PIPE_DIRECTORY";
constexpr char kVisibleDevices[] = "CUDA_VISIBLE_DEVICES";
constexpr absl::Duration kStartLimit = absl::Seconds(10);
constexpr absl::Duration kPoll = absl::Milliseconds(20);

std::string FromEnvironment(const char* name) {
  const char* value = getenv(name);
  return value == nullptr ? "" : value;
}

}  // namespace

absl::Status StartMps(const std::string& folder, int tier, Clock* clock, Supervisor* supervisor) {
  if (!FromEnvironment(kPipeDirectory).empty()) return absl::OkStatus();
  const std::optional<std::string> program = FindOnPath(kProgram);
  if (!program.has_value()) {
    return absl::NotFoundError(absl::StrCat(kProgram, " is not on PATH"));
  }
  std::error_code error;
  fs::create_directory(folder, error);
  if (error) return absl::InternalError(absl::StrCat(folder, ": ", error.message()));
  setenv(kPipeDirectory, folder.c_str(), 1);
  std::vector<std::string> argv = {"/usr/bin/env", absl::StrCat("CUDA_MPS_LOG_DIRECTORY=", folder)};
  // The daemon's clients count the devices that it sees.
  if (const std::string devices = FromEnvironment(kVisibleDevices); !devices.empty()) {
    argv.push_back(absl::StrCat(kVisibleDevices, "=", devices));
    unsetenv(kVisibleDevices);
  }
  argv.insert(argv.end(), {*program, "-f"});
  POMPC_RETURN_IF_ERROR(supervisor->Add({"mps", std::move(argv), /*may_leave=*/false, tier}));
  const absl::Time deadline = clock->Now() + kStartLimit;
  while (!fs::exists(folder + "/control")) {
    POMPC_RETURN_IF_ERROR(supervisor->Tick());
    if (clock->Now() > deadline) {
      return absl::DeadlineExceededError(absl::StrCat(
          kProgram, " does not listen after ", absl::FormatDuration(kStartLimit), ", see ",
          supervisor->LogPath("mps"), "; --set share_gpus=false trains without it"));
    }
    clock->SleepUntil(clock->Now() + kPoll);
  }
  return absl::OkStatus();
}

}  // namespace pompc
