// pompc-relay: serves a learner's service again. Many actors, on machines of their own, are started
// with the address of a relay as that of their learner; so are further relays.
//
// Exit status: 0 when the run is finished and all subscribers have left, or after SIGTERM,
// SIGINT or SIGHUP; 2 for a wrong command line; 1 after another error. The last log line tells it.
#include <unistd.h>

#include <memory>
#include <string>

#include "CLI/CLI.hpp"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/clock.h"
#include "common/base/command_line.h"
#include "common/base/log.h"
#include "common/base/signal.h"
#include "common/base/status_macros.h"
#include "common/config/config.h"
#include "common/metrics/metrics.h"
#include "common/metrics/server.h"
#include "common/rpc/channel.h"
#include "common/rpc/security_flags.h"
#include "common/rpc/server.h"
#include "learner/client/learner_watch.h"
#include "learner/relay/relay.h"

namespace pompc {
namespace {

struct Flags {
  std::string upstream, listen, metrics_listen;
  RpcSecurity security;
};

absl::Status Serve(const Flags& flags) {
  Clock* const clock = RealClock();
  const Event& stop = TerminationRequest();
  MetricsRegistry metrics;
  POMPC_ASSIGN_OR_RETURN(const auto channel, OpenChannel(flags.upstream, flags.security));
  Relay relay(flags.upstream, channel, static_cast<uint64_t>(getpid()), clock, &metrics);
  POMPC_ASSIGN_OR_RETURN(const std::unique_ptr<RpcServer> server,
                         RpcServer::Start(flags.listen, {&relay}, &metrics, flags.security));
  std::unique_ptr<MetricsServer> metrics_server;
  if (!flags.metrics_listen.empty()) {
    // Healthy is who runs: waiting for upstream is not cured by a restart.
    POMPC_ASSIGN_OR_RETURN(metrics_server, MetricsServer::Start(flags.metrics_listen, &metrics,
                                                                [] { return absl::OkStatus(); }));
    POMPC_LOG(INFO) << "serving metrics port=" << metrics_server->port();
  }
  POMPC_LOG(INFO) << "relay ready address=" << server->address() << " upstream=" << flags.upstream;

  const absl::StatusOr<v1::GetConfigResponse> run =
      AskLearner(stop, clock, clock->Now() + kLearnerPatience,
                 [&](absl::Time deadline) { return relay.upstream().GetConfig(deadline); });
  absl::Status end = run.status();
  if (run.ok()) {
    const v1::RunConfig& config = run->config();
    metrics.SetRunInfo({.run_id = run->run_id(),
                        .role = "relay",
                        .task = config.environment().task(),
                        .preset = config.preset(),
                        .config_hash = ConfigHash(config),
                        .version = POMPC_VERSION,
                        .seed = config.seed()});
    POMPC_LOG(INFO) << "taking part in run " << run->run_id();
    end = relay.Run(stop);
  }
  relay.Close();
  server->Shutdown(absl::Seconds(2));
  return stop.HasBeenNotified() ? absl::OkStatus() : end;
}

int Main(int argc, char** argv) {
  Flags flags;
  CLI::App app("Serves a learner's service again, so that parameters reach many subscribers.",
               "pompc-relay");
  app.add_option("--upstream", flags.upstream,
                 "Address of the learner or of another relay: host:port or unix:PATH. Actors send "
                 "their rows to the learner itself, so they must reach it under this address too")
      ->required();
  app.add_option("--listen", flags.listen, "host:port, or unix:PATH; port 0 takes a free one")
      ->required();
  app.add_option("--metrics-listen", flags.metrics_listen,
                 "host:port of /metrics and /healthz; default: none");
  AddSecurityFlags(&app, &flags.security, /*serves=*/true);
  if (const auto done = ParseCommandLine(&app, argc, argv)) return *done;
  InitLogging("relay");
  const absl::Status status = Serve(flags);
  if (!status.ok()) POMPC_LOG(ERROR) << "giving up: " << status;
  return ExitStatus(status);
}

}  // namespace
}  // namespace pompc

int main(int argc, char** argv) { return pompc::Main(argc, argv); }
