#include "cli/train.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <optional>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/time/time.h"
#include "actor/env/environment.h"
#include "cli/kept_port.h"
#include "cli/monitor.h"
#include "cli/mps.h"
#include "cli/progress.h"
#include "cli/run_dir.h"
#include "cli/supervisor.h"
#include "common/base/clock.h"
#include "common/base/file.h"
#include "common/base/signal.h"
#include "common/base/status_macros.h"
#include "common/config/config.h"
#include "common/metrics/metrics.h"
#include "common/rpc/channel.h"
#include "google/protobuf/text_format.h"
#include "learner/client/remote_learner_client.h"
#include "learner/service/run_checkpoint.h"

namespace pompc {
namespace {

namespace fs = std::filesystem;

// How long actors, then the learner with its checkpoint, then replay may take to leave.
constexpr absl::Duration kStopGrace = absl::Seconds(30);
// After the learner has finished: for the evaluator's and actors' last words.
constexpr absl::Duration kLeaveGrace = absl::Seconds(20);
constexpr absl::Duration kMonitorGrace = absl::Seconds(5);
constexpr absl::Duration kTickInterval = absl::Seconds(1);
constexpr absl::Duration kPlainLineInterval = absl::Seconds(10);

// A folder for the run's sockets, whose paths must stay under 108 characters: a run's folder may
// lie too deep for that. Removed with the object.
class SocketFolder {
 public:
  static absl::StatusOr<std::unique_ptr<SocketFolder>> Create() {
    std::string path = (fs::temp_directory_path() / "pompc-XXXXXX").string();
    if (mkdtemp(path.data()) == nullptr) return absl::ErrnoToStatus(errno, path);
    return std::unique_ptr<SocketFolder>(new SocketFolder(path));
  }
  ~SocketFolder() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  std::string Path(const std::string& name) const { return absl::StrCat(path_, "/", name); }
  std::string Address(const std::string& name) const {
    return absl::StrCat("unix:", Path(name), ".sock");
  }

 private:
  explicit SocketFolder(std::string path) : path_(std::move(path)) {}
  const std::string path_;
};

// Draws the panel over itself in a terminal; elsewhere a line now and then.
class Display {
 public:
  Display(std::string title, Clock* clock)
      : title_(std::move(title)), clock_(clock), terminal_(isatty(STDOUT_FILENO) != 0) {}

  void Event(const std::string& line) {
    Erase();
    std::printf("%s\n", line.c_str());
    std::fflush(stdout);
  }

  void Show(const v1::RunStatus& status) {
    if (terminal_) {
      winsize size = {};
      const bool known = ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0;
      const std::string panel = ProgressPanel(title_, status, known ? size.ws_col : 80);
      Erase();
      std::fputs(panel.c_str(), stdout);
      panel_lines_ = std::count(panel.begin(), panel.end(), '\n');
    } else if (clock_->Now() >= next_line_) {
      std::printf("%s\n", ProgressLine(status).c_str());
      next_line_ = clock_->Now() + kPlainLineInterval;
    }
    std::fflush(stdout);
  }

 private:
  void Erase() {
    if (panel_lines_ > 0) std::printf("\033[%ldA\033[J", static_cast<long>(panel_lines_));
    panel_lines_ = 0;
  }

  const std::string title_;
  Clock* const clock_;
  const bool terminal_;
  int64_t panel_lines_ = 0;
  absl::Time next_line_ = absl::InfinitePast();
};

// Of the processes in Supervisor::Stop(): actors send their last rows to replay, and the learner's
// checkpoint counts them. All may use a GPU.
enum Tier { kGpuTier, kReplayTier, kLearnerTier, kActorTier };

// The processes of a run, in the order of their start.
class Run {
 public:
  Run(const TrainOptions& options, std::string programs, const SocketFolder& sockets,
      Supervisor* supervisor)
      : options_(options),
        programs_(std::move(programs)),
        sockets_(sockets),
        supervisor_(supervisor) {}

  std::string learner_address() const { return sockets_.Address("learner"); }

  absl::Status Start() {
    const v1::RunConfig& config = options_.config;
    std::vector<std::string> learner = {Program("pompc-learner"),
                                        "--config",
                                        options_.run_dir + "/config.textproto",
                                        "--run-dir",
                                        options_.run_dir,
                                        "--listen",
                                        learner_address(),
                                        "--resume-if-begun"};
    for (int i = 0; i < config.replay().servers(); ++i) {
      const std::string name = absl::StrCat("replay-", i), address = sockets_.Address(name);
      std::vector<std::string> replay = {Program("pompc-replay"), "--listen", address};
      if (config.replay().journal() != v1::ReplayConfig::NONE) {
        replay.insert(replay.end(),
                      {"--journal", absl::StrCat(options_.run_dir, "/journal/", name)});
      }
      POMPC_RETURN_IF_ERROR(Add(name, replay, /*may_leave=*/false, kReplayTier));
      learner.insert(learner.end(), {"--replay", address});
    }
    POMPC_RETURN_IF_ERROR(Add("learner", learner, /*may_leave=*/true, kLearnerTier));
    for (int i = 0; i < config.actor().num_actors(); ++i) {
      POMPC_RETURN_IF_ERROR(AddActor("actor", i));
    }
    for (int i = 0; i < config.reanalyze().num_workers(); ++i) {
      POMPC_RETURN_IF_ERROR(AddActor("reanalyze", i));
    }
    std::vector<std::string> more;
    if (config.evaluation().video()) more = {"--video-dir", VideoFolder(options_.run_dir)};
    POMPC_RETURN_IF_ERROR(AddActor("evaluator", 0, more));
    return WriteFileAtomically(options_.run_dir + "/metrics_targets.json",
                               absl::StrCat("[\n", absl::StrJoin(targets_, ",\n"), "\n]\n"));
  }

 private:
  std::string Program(const std::string& name) const { return programs_ + "/" + name; }

  absl::Status AddActor(const std::string& role, int index,
                        const std::vector<std::string>& more = {}) {
    std::vector<std::string> argv = {
        Program("pompc-actor"), "--learner", learner_address(), "--role", role, "--index",
        absl::StrCat(index)};
    argv.insert(argv.end(), more.begin(), more.end());
    return Add(role == "evaluator" ? role : absl::StrCat(role, "-", index), std::move(argv),
               /*may_leave=*/true, kActorTier);
  }

  absl::Status Add(const std::string& name, std::vector<std::string> argv, bool may_leave,
                   Tier tier) {
    POMPC_ASSIGN_OR_RETURN(KeptPort port, KeptPort::Create());
    const std::string metrics = absl::StrCat("127.0.0.1:", port.number());
    ports_.push_back(std::move(port));
    argv.insert(argv.end(), {"--metrics-listen", metrics});
    // Prometheus's file discovery format.
    std::error_code ignored;
    targets_.push_back(absl::StrFormat(
        R"(  {"targets": ["%s"], "labels": {"run": "%s", "task": "%s", "preset": "%s", "seed": "%d", )"
        R"("role": "%s", "process": "%s"}})",
        metrics, fs::weakly_canonical(options_.run_dir, ignored).filename().string(),
        options_.config.environment().task(), options_.config.preset(), options_.config.seed(),
        name.substr(0, name.find('-')), name));  // actor-3 is an actor.
    return supervisor_->Add({name, std::move(argv), may_leave, tier});
  }

  const TrainOptions& options_;
  const std::string programs_;
  const SocketFolder& sockets_;
  Supervisor* const supervisor_;
  std::vector<std::string> targets_;
  std::vector<KeptPort> ports_;  // Of /metrics.
};

}  // namespace

absl::Status Train(const TrainOptions& options) {
  const v1::RunConfig& config = options.config;
  const Event& stop = TerminationRequest();
  POMPC_RETURN_IF_ERROR(FindSpec(config.environment().task()).status());
  std::optional<Monitor> monitor;
  if (options.monitor_port.has_value()) {
    POMPC_ASSIGN_OR_RETURN(Monitor created, Monitor::Create(*options.monitor_port));
    monitor.emplace(std::move(created));
  }
  POMPC_RETURN_IF_ERROR(PrepareRunDir(options));
  POMPC_ASSIGN_OR_RETURN(const std::string programs, ProgramFolder());
  POMPC_ASSIGN_OR_RETURN(const std::unique_ptr<SocketFolder> sockets, SocketFolder::Create());

  Clock* const clock = RealClock();
  Display display(absl::StrFormat("%s  preset %s  seed %d  %s", config.environment().task(),
                                  config.preset(), config.seed(), options.run_dir),
                  clock);
  display.Event(absl::StrFormat("Training %s with preset %s, seed %d: %s decisions into %s",
                                config.environment().task(), config.preset(), config.seed(),
                                WithThousands(config.total_decisions()), options.run_dir));
  display.Event("Ctrl-C stops it with a checkpoint.");
  Supervisor supervisor(options.run_dir + "/logs", clock,
                        [&](const std::string& line) { display.Event(line); });
  absl::Status result;
  if (config.share_gpus()) {
    result = StartMps(sockets->Path("mps"), kGpuTier, clock, &supervisor);
    if (absl::IsNotFound(result)) {
      display.Event(absl::StrCat("Processes take turns on a GPU, some 10 % slower: ",
                                 std::exchange(result, absl::OkStatus()).message()));
    }
  }
  Run run(options, programs, *sockets, &supervisor);
  if (result.ok()) result = run.Start();
  if (result.ok() && monitor.has_value()) {
    result = monitor->Start(options.run_dir);
    if (result.ok()) {
      display.Event(absl::StrFormat("Watch it at %s/consoles/run.html; Prometheus is at %s",
                                    monitor->address(), monitor->address()));
    }
  }
  MetricsRegistry metrics;
  RemoteLearnerClient learner(CreateChannel(run.learner_address()), getpid(), clock, &metrics);
  v1::RunStatus status;
  status.set_evaluation_decisions(-1);
  while (result.ok() && !supervisor.HasLeft("learner")) {
    if (stop.WaitUntil(clock, clock->Now() + kTickInterval)) {
      result = absl::CancelledError("stopped on request");
      break;
    }
    result = supervisor.Tick();
    if (monitor.has_value()) {
      if (const auto end = monitor->UnexpectedEnd(); end.has_value()) display.Event(*end);
    }
    if (absl::StatusOr<v1::RunStatus> now = learner.GetStatus(clock->Now() + kTickInterval);
        now.ok()) {
      status = *std::move(now);
      display.Show(status);
    }
  }
  const bool finished = result.ok();
  if (finished) {
    supervisor.AwaitLeave(kLeaveGrace);
  } else if (absl::IsCancelled(result)) {
    display.Event(fs::exists(RunCheckpointPath(options.run_dir))
                      ? "Stopping: the learner writes a checkpoint..."
                      : "Stopping...");
  } else {  // All of the message is printed last; until then it may take a while.
    display.Event(
        absl::StrCat("Stopping: ", result.message().substr(0, result.message().find('\n'))));
  }
  supervisor.Stop(kStopGrace);
  if (monitor.has_value()) monitor->Stop(clock, kMonitorGrace);
  // What the learner came to after it was last asked.
  if (v1::RunStatus last; google::protobuf::TextFormat::ParseFromString(
                              ReadFile(RunStatusPath(options.run_dir)).value_or(""), &last) &&
                          !last.phase().empty()) {
    status = std::move(last);
  }
  if (finished || absl::IsCancelled(result)) {
    PrintSummary(options, status, finished, supervisor.restarts());
  }
  return result;
}

}  // namespace pompc
