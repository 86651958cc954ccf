// pompc-actor: acts in a run, evaluates its parameters, or re-plans what replay stores. Started
// with the learner's address alone; everything else comes from there.
//
// Exit status: 0 when the run is finished; 130 when it was asked to stop (SIGTERM, SIGINT, SIGHUP),
// so that whoever restarts programs knows that there may be more to do; 2 for a wrong command line;
// 1 after another error. The last log line tells it.
#include <unistd.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "actor/loop/actor_loop.h"
#include "actor/loop/episodes.h"
#include "actor/loop/evaluation_videos.h"
#include "actor/loop/evaluator.h"
#include "actor/loop/peers.h"
#include "actor/loop/reanalyze_worker.h"
#include "common/base/clock.h"
#include "common/base/command_line.h"
#include "common/base/log.h"
#include "common/base/signal.h"
#include "common/base/status_macros.h"
#include "common/config/config.h"
#include "common/metrics/metrics.h"
#include "common/metrics/server.h"
#include "common/model/device.h"
#include "common/model/tensor.h"
#include "common/rpc/channel.h"
#include "common/rpc/security_flags.h"
#include "common/rpc/status.h"
#include "learner/client/remote_learner_client.h"
#include "learner/client/remote_parameter_subscriber.h"
#include "replay/client/remote_stored_windows.h"
#include "replay/client/sharded_writer.h"

namespace pompc {
namespace {

constexpr absl::Duration kFirstAnswerPatience = absl::Minutes(1);

struct Flags {
  std::string learner;
  std::string role = "actor";
  std::optional<uint32_t> index;
  std::string metrics_listen;
  std::string video_dir;
  RpcSecurity security;
};

absl::StatusOr<v1::GetConfigResponse> AskForConfig(const Flags& flags, const ActingPeers& peers) {
  POMPC_LOG(INFO) << "asking for the run's config learner=" << flags.learner
                  << " for=" << kFirstAnswerPatience;
  absl::StatusOr<v1::GetConfigResponse> run =
      AskLearner(*peers.stop, peers.clock, peers.clock->Now() + kFirstAnswerPatience,
                 [&](absl::Time deadline) { return peers.learner->GetConfig(deadline); });
  if (IsAway(run.status())) {
    return absl::UnavailableError(absl::StrCat(
        "no answer from a learner at ", flags.learner, " for ",
        absl::FormatDuration(kFirstAnswerPatience),
        "; is it running, and is the address right? Last error: ", run.status().ToString()));
  }
  return run;
}

// To the run's replay servers, or to the learner that is one.
absl::StatusOr<std::vector<std::shared_ptr<grpc::Channel>>> ReplayChannels(
    const Flags& flags, const v1::JoinResponse& join,
    std::shared_ptr<grpc::Channel> learner_channel) {
  std::vector<std::shared_ptr<grpc::Channel>> channels;
  for (const std::string& address : join.replay_addresses()) {
    POMPC_ASSIGN_OR_RETURN(channels.emplace_back(), OpenChannel(address, flags.security));
  }
  if (channels.empty()) channels.push_back(std::move(learner_channel));
  return channels;
}

absl::Status RunActor(const Flags& flags, const v1::RunConfig& config,
                      std::shared_ptr<grpc::Channel> learner_channel, ActingPeers peers) {
  POMPC_ASSIGN_OR_RETURN(std::vector<std::unique_ptr<Episodes>> groups,
                         Episodes::CreateGroups(config));
  POMPC_ASSIGN_OR_RETURN(const JoinedRun join,
                         JoinRun(peers, v1::ACTOR, flags.index, groups.front()->sizes()));
  POMPC_ASSIGN_OR_RETURN(const auto channels,
                         ReplayChannels(flags, join.answer, std::move(learner_channel)));
  ShardedWriter replay({.writer_id = join.answer.writer_id(), .reconnect = {}}, channels,
                       peers.clock, peers.metrics);
  peers.replay = &replay;
  POMPC_ASSIGN_OR_RETURN(const std::unique_ptr<ActorLoop> loop,
                         ActorLoop::Create(config, join, std::move(groups), peers));
  return loop->Run();
}

absl::Status RunReanalyze(const Flags& flags, const v1::RunConfig& config,
                          std::shared_ptr<grpc::Channel> learner_channel,
                          const ActingPeers& peers) {
  // One environment tells the sizes of the task.
  POMPC_ASSIGN_OR_RETURN(const std::unique_ptr<Episodes> episodes,
                         Episodes::Create(config.environment(), 1, 1));
  POMPC_ASSIGN_OR_RETURN(const JoinedRun join,
                         JoinRun(peers, v1::REANALYZE, flags.index, episodes->sizes()));
  POMPC_ASSIGN_OR_RETURN(const auto channels,
                         ReplayChannels(flags, join.answer, std::move(learner_channel)));
  RemoteStoredWindows stored(channels, join.answer.writer_id(), peers.clock, peers.stop,
                             peers.metrics);
  return RunReanalyzeWorker(config, join, stored, peers);
}

absl::Status Run(const Flags& flags) {
  Clock* const clock = RealClock();
  const Event& stop = TerminationRequest();
  MetricsRegistry metrics;
  std::unique_ptr<MetricsServer> metrics_server;
  if (!flags.metrics_listen.empty()) {
    // Healthy is who runs: waiting for the learner is not cured by a restart.
    POMPC_ASSIGN_OR_RETURN(metrics_server, MetricsServer::Start(flags.metrics_listen, &metrics,
                                                                [] { return absl::OkStatus(); }));
    POMPC_LOG(INFO) << "serving metrics port=" << metrics_server->port();
  }
  POMPC_ASSIGN_OR_RETURN(const std::shared_ptr<grpc::Channel> channel,
                         OpenChannel(flags.learner, flags.security));
  const uint64_t backoff_seed = static_cast<uint64_t>(getpid());
  RemoteLearnerClient learner(channel, backoff_seed, clock, &metrics);
  ActingPeers peers{.learner = &learner, .clock = clock, .stop = &stop, .metrics = &metrics};

  POMPC_ASSIGN_OR_RETURN(const v1::GetConfigResponse run, AskForConfig(flags, peers));
  const v1::RunConfig& config = run.config();
  metrics.SetRunInfo({.run_id = run.run_id(),
                      .role = flags.role,
                      .task = config.environment().task(),
                      .preset = config.preset(),
                      .config_hash = ConfigHash(config),
                      .version = POMPC_VERSION,
                      .seed = config.seed()});
  POMPC_LOG(INFO) << "taking part in run " << run.run_id() << " learner=" << flags.learner
                  << " task=" << config.environment().task()
                  << " config_hash=" << ConfigHash(config);
  RemoteParameterSubscriber parameters(channel, backoff_seed, clock, &metrics);
  peers.parameters = &parameters;
  if (flags.role == "evaluator") {
    SetCpuThreads(config.evaluation().threads());
    std::optional<EvaluationVideos> videos;
    if (!flags.video_dir.empty()) videos.emplace(config.environment(), flags.video_dir);
    return RunEvaluator(config, flags.index, peers, videos.has_value() ? &*videos : nullptr);
  }
  SetCpuThreads(config.actor().threads());
  if (flags.role == "reanalyze") return RunReanalyze(flags, config, channel, peers);
  return RunActor(flags, config, channel, peers);
}

int Main(int argc, char** argv) {
  Flags flags;
  CLI::App app(
      "Acts in a run of pompc, evaluates its parameters, or re-plans what its replay stores.",
      "pompc-actor");
  app.add_option("--learner", flags.learner, "Address of the learner: host:port or unix:PATH")
      ->required();
  app.add_option("--role", flags.role, "actor, evaluator or reanalyze")
      ->check(CLI::IsMember({"actor", "evaluator", "reanalyze"}))
      ->capture_default_str();
  app.add_option("--index", flags.index,
                 "Index among the run's processes of this role; "
                 "without it the learner gives the next free one");
  app.add_option("--metrics-listen", flags.metrics_listen,
                 "host:port of /metrics and /healthz; default: none");
  app.add_option("--video-dir", flags.video_dir,
                 "An evaluator leaves a video of each evaluation here");
  AddSecurityFlags(&app, &flags.security, /*serves=*/false);
  if (const auto done = ParseCommandLine(&app, argc, argv)) return *done;
  InitLogging(flags.index.has_value() ? absl::StrCat(flags.role, "-", *flags.index) : flags.role);
  const absl::Status status = Run(flags);
  const bool asked = TerminationRequest().HasBeenNotified();
  if (status.ok() || (absl::IsCancelled(status) && asked)) {
    POMPC_LOG(INFO) << "left the run";
    return asked ? 130 : 0;
  }
  POMPC_LOG(ERROR) << "giving up: " << status;
  return ExitStatus(status);
}

}  // namespace
}  // namespace pompc

int main(int argc, char** argv) { return pompc::Main(argc, argv); }
