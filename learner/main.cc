// pompc-learner: trains, and serves the run to actors, evaluators and displays.
//
// Exit status: 0 when the run is complete; 130 when it was asked to stop before (SIGTERM, SIGINT,
// SIGHUP: it writes a checkpoint first), so that whoever restarts programs knows that there is more
// to do; 2 for a wrong command line or config; else 1. The reason is on stderr.
#include <atomic>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/time.h"
#include "common/base/clock.h"
#include "common/base/command_line.h"
#include "common/base/file.h"
#include "common/base/log.h"
#include "common/base/signal.h"
#include "common/base/status_macros.h"
#include "common/config/config.h"
#include "common/metrics/metrics.h"
#include "common/metrics/server.h"
#include "common/model/device.h"
#include "common/rpc/channel.h"
#include "common/rpc/security_flags.h"
#include "common/rpc/server.h"
#include "learner/service/learner_run.h"
#include "learner/service/learner_service.h"
#include "learner/service/replay_link.h"
#include "learner/service/run_checkpoint.h"
#include "learner/service/run_lock.h"
#include "replay/server/journal.h"
#include "replay/server/replay.h"
#include "replay/server/service.h"
#include "replay/server/tables.h"

namespace pompc {
namespace {

// For how long /metrics stays after a failure: a scrape interval of deploy/prometheus.
constexpr absl::Duration kLastScrape = absl::Seconds(15);

struct Flags {
  std::string config, preset, run_dir, listen, metrics_listen;
  std::vector<std::string> sets, replay;
  bool resume = false, resume_if_begun = false;
  RpcSecurity security;
};

// A socket in the run's folder, or, when its path is too long for one, a port of this machine.
std::string DefaultListenAddress(const std::string& run_dir) {
  constexpr size_t kLongestSocketPath = 107;  // sockaddr_un.
  const std::string path = std::filesystem::absolute(run_dir).string() + "/learner.sock";
  return path.size() <= kLongestSocketPath ? "unix:" + path : "127.0.0.1:0";
}

// The table in this process, with what an earlier one has journaled.
absl::StatusOr<std::unique_ptr<Replay>> EmbeddedReplay(const LearnerRunOptions& options,
                                                       MetricsRegistry* metrics) {
  if (options.config.replay().journal() == v1::ReplayConfig::NONE) {
    return std::make_unique<Replay>(RealClock(), metrics);
  }
  POMPC_ASSIGN_OR_RETURN(std::unique_ptr<Journal> journal,
                         Journal::Open(options.run_dir + "/journal", RealClock(), metrics));
  return Replay::Restore(std::move(journal), RealClock(), metrics);
}

absl::Status Main(const Flags& flags) {
  const Event& stop = TerminationRequest();
  const std::string listen =
      flags.listen.empty() ? DefaultListenAddress(flags.run_dir) : flags.listen;
  POMPC_RETURN_IF_ERROR(flags.security.CheckServer(listen));  // Before anything is touched.
  LearnerRunOptions options;
  // A learner that died before its first checkpoint has not begun.
  options.resume = flags.resume || (flags.resume_if_begun &&
                                    std::filesystem::exists(RunCheckpointPath(flags.run_dir)));
  // A run that resumes has its config in its folder.
  const std::string config_file =
      options.resume && flags.config.empty() ? flags.run_dir + "/config.textproto" : flags.config;
  POMPC_ASSIGN_OR_RETURN(options.config, LoadRunConfig(flags.preset, config_file, flags.sets));
  options.run_dir = flags.run_dir;
  std::error_code error;
  std::filesystem::create_directories(flags.run_dir, error);
  if (error) {
    return absl::UnavailableError(
        absl::StrCat("cannot create ", flags.run_dir, ": ", error.message()));
  }

  MetricsRegistry metrics;
  std::atomic<bool> serving = false;
  std::unique_ptr<MetricsServer> metrics_server;
  if (!flags.metrics_listen.empty()) {
    POMPC_ASSIGN_OR_RETURN(
        metrics_server, MetricsServer::Start(flags.metrics_listen, &metrics, [&serving] {
          return serving ? absl::OkStatus()
                         : absl::UnavailableError("restoring the checkpoint and the journal");
        }));
    POMPC_LOG(INFO) << "serving metrics port=" << metrics_server->port();
  }
  std::unique_ptr<Replay> replay;  // Null when it is another process.
  std::unique_ptr<ReplayLink> link;
  if (flags.replay.empty()) {
    // Another learner is at work there: say so, rather than that its journal is in use.
    POMPC_RETURN_IF_ERROR(RunLock::Acquire(flags.run_dir).status());
    POMPC_ASSIGN_OR_RETURN(replay, EmbeddedReplay(options, &metrics));
    link = std::make_unique<LocalReplayLink>(replay.get(), RealClock());
  } else {
    std::vector<std::shared_ptr<grpc::Channel>> channels;
    for (const std::string& address : flags.replay) {
      POMPC_ASSIGN_OR_RETURN(channels.emplace_back(), OpenChannel(address, flags.security));
    }
    link = std::make_unique<RemoteReplayLink>(std::move(channels), RealClock(), &metrics);
    options.replay_addresses = flags.replay;
  }
  POMPC_ASSIGN_OR_RETURN(const std::unique_ptr<LearnerRun> run,
                         LearnerRun::Create(options, link.get(), RealClock(), &metrics));
  const std::string address_file = flags.run_dir + "/learner.address";
  std::filesystem::remove(address_file, error);  // Of an earlier process; nobody serves there.
  metrics.SetRunInfo({.run_id = run->front().identity.run_id(),
                      .role = "learner",
                      .task = options.config.environment().task(),
                      .preset = options.config.preset(),
                      .config_hash = ConfigHash(options.config),
                      .version = POMPC_VERSION,
                      .seed = options.config.seed()});

  LearnerService learner_service(&run->front());
  std::vector<grpc::Service*> services = {&learner_service};
  std::optional<ReplayService> replay_service;
  ReplayTables tables(replay.get());
  if (replay != nullptr) services.push_back(&replay_service.emplace(&tables, &metrics));
  POMPC_ASSIGN_OR_RETURN(const std::unique_ptr<RpcServer> server,
                         RpcServer::Start(listen, services, &metrics, flags.security));
  serving = true;
  POMPC_RETURN_IF_ERROR(WriteFileAtomically(address_file, server->address() + "\n"));
  POMPC_LOG(INFO) << "learner ready address=" << server->address()
                  << " config_hash=" << ConfigHash(options.config);

  const absl::Status end = run->Run(stop);
  // Prometheus is to see what a run that diverged has counted.
  if (absl::IsInternal(end) && metrics_server != nullptr) {
    stop.WaitUntil(RealClock(), RealClock()->Now() + kLastScrape);
  }
  run->front().publisher.Close();
  if (replay != nullptr) replay->Close();
  server->Shutdown(absl::Seconds(2));
  return end;
}

}  // namespace
}  // namespace pompc

int main(int argc, char** argv) {
  pompc::SeparateStreams();
  pompc::Flags flags;
  CLI::App app("Trains, and serves the run to actors, evaluators and displays.", "pompc-learner");
  app.add_option("--run-dir", flags.run_dir, "Folder of the run; created if missing")->required();
  app.add_option("--config", flags.config,
                 "RunConfig as textproto; default when resuming: the run's own")
      ->check(CLI::ExistingFile);
  app.add_option("--preset", flags.preset,
                 absl::StrCat("What the config file and --set are laid over, one of: ",
                              absl::StrJoin(pompc::PresetNames(), ", ")))
      ->default_val("pompc");
  app.add_option("--set", flags.sets, "PATH=VALUE, e.g. learning.batch_size=128; may be repeated")
      ->allow_extra_args(false)
      ->take_all();
  app.add_option("--listen", flags.listen,
                 "host:port, or unix:PATH; port 0 takes a free one; default: a socket in the run's "
                 "folder");
  app.add_option("--replay", flags.replay,
                 "Address of a replay server, HOST:PORT or, for a table of its own there, "
                 "HOST:PORT#NAME; several, as A,B,..., share the rows and keep their order when "
                 "the run is resumed; default: the table lives in this process")
      ->delimiter(',')
      ->expected(1, pompc::kMaxShards);
  app.add_option("--metrics-listen", flags.metrics_listen,
                 "host:port of /metrics and /healthz; default: none");
  pompc::AddSecurityFlags(&app, &flags.security, /*serves=*/true);
  CLI::Option* const resume =
      app.add_flag("--resume", flags.resume, "Go on from the checkpoint in the run's folder");
  app.add_flag("--resume-if-begun", flags.resume_if_begun,
               "The same if there is one, else begin: for those who start a learner again "
               "whenever it ends")
      ->excludes(resume);
  if (const auto done = pompc::ParseCommandLine(&app, argc, argv)) return *done;

  pompc::InitLogging("learner");
  const absl::Status status = pompc::Main(flags);
  if (status.ok()) return 0;
  if (absl::IsCancelled(status) && pompc::TerminationRequest().HasBeenNotified()) {
    return 130;  // As `pompc train`.
  }
  POMPC_LOG(ERROR) << "learner ends: " << status.ToString();
  return pompc::ExitStatus(status);
}
