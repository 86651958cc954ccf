#include "cli/run_dir.h"

#include <cstdio>
#include <filesystem>
#include <system_error>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/time.h"
#include "cli/progress.h"
#include "common/base/clock.h"
#include "common/base/file.h"
#include "common/base/status_macros.h"
#include "common/config/config.h"
#include "learner/service/run_checkpoint.h"
#include "learner/service/run_lock.h"

namespace pompc {

namespace fs = std::filesystem;

namespace {

// Of the summary; empty if there are none.
std::string VideosLine(const std::string& run_dir) {
  int64_t count = 0;
  std::error_code error;
  for (fs::directory_iterator i(VideoFolder(run_dir), error), end; !error && i != end;
       i.increment(error)) {
    if (absl::StartsWith(i->path().filename().string(), "steps-")) ++count;
  }
  if (count == 0) return "";
  return absl::StrFormat("  videos/                 of the evaluations: %d\n", count);
}

bool HasCheckpoint(const TrainOptions& options) {
  return fs::exists(RunCheckpointPath(options.run_dir));
}

absl::Status CheckMayGoOn(const TrainOptions& options) {
  POMPC_ASSIGN_OR_RETURN(const RunCheckpoint checkpoint,
                         LoadRunCheckpoint(RunCheckpointPath(options.run_dir)));
  const absl::Status resumable = CheckResumable(checkpoint.config, options.config);
  if (resumable.ok()) return resumable;
  return absl::InvalidArgumentError(absl::StrCat(
      "the run in ", options.run_dir, " cannot go on with these settings:\n", resumable.message()));
}

}  // namespace

std::string DefaultRunDir(const v1::RunConfig& config) {
  return absl::StrFormat(
      "runs/%s-%s-s%d-%s", config.environment().task(), config.preset(), config.seed(),
      absl::FormatTime("%Y%m%d-%H%M%S", RealClock()->Now(), absl::LocalTimeZone()));
}

std::string VideoFolder(const std::string& run_dir) { return run_dir + "/videos"; }

absl::Status PrepareRunDir(const TrainOptions& options) {
  const fs::path dir = options.run_dir;
  std::error_code error;
  // The checkpoint is what makes it a run: replay is given no row before there is one.
  const bool begun = HasCheckpoint(options);
  if (options.resume && !begun) {
    return absl::NotFoundError(absl::StrCat("no checkpoint in ", options.run_dir,
                                            ": nothing to resume; begin anew with --run-dir ",
                                            options.run_dir));
  }
  if (!options.resume && begun) {
    return absl::FailedPreconditionError(
        absl::StrCat(options.run_dir, " holds a run already: continue it with --resume ",
                     options.run_dir, ", or choose another --run-dir"));
  }
  fs::create_directories(dir / "logs", error);
  if (error) {
    return absl::UnavailableError(
        absl::StrCat("cannot create ", options.run_dir, ": ", error.message()));
  }
  // Fails while another learner is at work; ours takes the lock itself.
  POMPC_RETURN_IF_ERROR(RunLock::Acquire(options.run_dir).status());
  // Before the run's config is overwritten.
  if (options.resume) POMPC_RETURN_IF_ERROR(CheckMayGoOn(options));
  return WriteFileAtomically((dir / "config.textproto").string(), ConfigToText(options.config));
}

void PrintSummary(const TrainOptions& options, const v1::RunStatus& status, bool finished,
                  int64_t restarts) {
  const std::string& dir = options.run_dir;
  std::printf("\n%s after %s: %s decisions, %s environment steps, %s updates\n",
              finished ? "Finished" : "Stopped", ShortDuration(status.seconds()).c_str(),
              WithThousands(status.decisions()).c_str(), WithThousands(status.env_steps()).c_str(),
              WithThousands(status.updates()).c_str());
  if (status.evaluation_decisions() >= 0) {
    std::printf("Evaluation return %.1f at the end, %.1f at best\n", status.evaluation_return(),
                status.best_evaluation_return());
  } else {
    std::printf("No evaluation was made\n");
  }
  if (restarts > 0)
    std::printf("Restarted processes: %ld (see the logs)\n", static_cast<long>(restarts));
  if (!HasCheckpoint(options)) {
    std::printf(
        "Too early for a checkpoint: nothing to resume\n"
        "\nIn %s:\n"
        "  config.textproto        the resolved config; logs/ one log per process\n"
        "\nNext, to begin anew:\n"
        "  pompc train --config %s/config.textproto --run-dir %s\n",
        dir.c_str(), dir.c_str(), dir.c_str());
    return;
  }
  std::printf(
      "\nIn %s:\n"
      "  checkpoint.safetensors  parameters and optimiser state\n"
      "  evaluations.csv         evaluation return over decisions and seconds\n"
      "  returns.csv, losses.csv every episode; losses every few updates\n"
      "  records.jsonl           all of these; tensorboard/ too, for tensorboard --logdir\n"
      "  config.textproto        the resolved config; logs/ one log per process\n"
      "%s"
      "\nNext:\n"
      "  pompc eval --checkpoint %s/checkpoint.safetensors\n"
      "  pompc render --checkpoint %s/checkpoint.safetensors\n",
      dir.c_str(), VideosLine(dir).c_str(), dir.c_str(), dir.c_str());
  if (finished) {
    std::printf("  pompc train --resume %s --set total_decisions=%ld\n", dir.c_str(),
                static_cast<long>(2 * options.config.total_decisions()));
  } else {
    std::printf("  pompc train --resume %s\n", dir.c_str());
  }
}

}  // namespace pompc
