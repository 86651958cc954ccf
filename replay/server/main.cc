// pompc-replay: the replay service as a process of its own.
//
// It needs to know nothing of the run: the learner declares the table when it connects, and whether
// its rows are to be journaled.
//
// Exit status: 0 after SIGTERM, SIGINT or SIGHUP; 2 for a wrong command line; 1 after another
// error. The last log line tells it.
#include <atomic>
#include <filesystem>
#include <memory>
#include <string>
#include <system_error>
#include <utility>

#include "CLI/CLI.hpp"
#include "absl/status/status.h"
#include "common/base/clock.h"
#include "common/base/command_line.h"
#include "common/base/log.h"
#include "common/base/signal.h"
#include "common/base/status_macros.h"
#include "common/metrics/metrics.h"
#include "common/metrics/server.h"
#include "common/rpc/security_flags.h"
#include "common/rpc/server.h"
#include "replay/server/journal.h"
#include "replay/server/replay.h"
#include "replay/server/service.h"
#include "replay/server/tables.h"

namespace pompc {
namespace {

namespace fs = std::filesystem;

absl::StatusOr<std::unique_ptr<Replay>> MakeReplay(const std::string& journal_folder,
                                                   MetricsRegistry* metrics) {
  if (journal_folder.empty()) return std::make_unique<Replay>(RealClock(), metrics);
  POMPC_ASSIGN_OR_RETURN(std::unique_ptr<Journal> journal,
                         Journal::Open(journal_folder, RealClock(), metrics));
  return Replay::Restore(std::move(journal), RealClock(), metrics);
}

// Tables with a name have their journals beside that of the one without.
std::string TablesFolder(const std::string& journal_folder) { return journal_folder + ".tables"; }

// Makes the tables that have journals.
absl::Status RestoreTables(const std::string& journal_folder, ReplayTables* tables) {
  if (journal_folder.empty()) return absl::OkStatus();
  std::error_code error;
  for (fs::directory_iterator file(TablesFolder(journal_folder), error), end; !error && file != end;
       file.increment(error)) {
    const std::string name = file->path().filename();
    // Beside a journal lie its copies, in a folder with a dot in its name.
    if (CheckName("table", name).ok()) POMPC_RETURN_IF_ERROR(tables->FindOrMake(name).status());
  }
  return absl::OkStatus();
}

struct Flags {
  std::string listen = "127.0.0.1:7201";
  std::string metrics_listen = ":7301";
  std::string journal;
  RpcSecurity security;
};

absl::Status Serve(const Flags& flags) {
  const Event& termination = TerminationRequest();
  // Before the journal is read.
  POMPC_RETURN_IF_ERROR(flags.security.CheckServer(flags.listen));
  MetricsRegistry metrics;
  std::atomic<bool> serving = false;
  POMPC_ASSIGN_OR_RETURN(
      const std::unique_ptr<MetricsServer> metrics_server,
      MetricsServer::Start(flags.metrics_listen, &metrics, [&serving, &flags] {
        return serving ? absl::OkStatus()
                       : absl::UnavailableError("restoring the journal in " + flags.journal);
      }));
  POMPC_ASSIGN_OR_RETURN(const std::unique_ptr<Replay> replay, MakeReplay(flags.journal, &metrics));
  ReplayTables tables(replay.get(), [&](const std::string& name) {
    return MakeReplay(flags.journal.empty() ? "" : TablesFolder(flags.journal) + "/" + name,
                      &metrics);
  });
  POMPC_RETURN_IF_ERROR(RestoreTables(flags.journal, &tables));
  ReplayService service(&tables, &metrics);
  POMPC_ASSIGN_OR_RETURN(const std::unique_ptr<RpcServer> server,
                         RpcServer::Start(flags.listen, {&service}, &metrics, flags.security));
  serving = true;
  POMPC_LOG(INFO) << "serving address=" << server->address()
                  << " metrics_port=" << metrics_server->port();
  termination.Wait();

  // Peers that wait are told UNAVAILABLE and come back to the next replay.
  tables.Close();
  server->Shutdown(absl::Seconds(1));
  const v1::InfoResponse info = replay->Info();
  POMPC_LOG(INFO) << "stopped inserted_rows=" << info.inserted_rows()
                  << " sampled_batches=" << info.sampled_batches();
  return absl::OkStatus();
}

}  // namespace
}  // namespace pompc

int main(int argc, char** argv) {
  CLI::App app("Keeps what actors saw and hands it to the learner.", "pompc-replay");
  pompc::Flags flags;
  app.add_option("--listen", flags.listen, "host:port, or unix:PATH; port 0 takes a free one")
      ->capture_default_str();
  app.add_option("--metrics-listen", flags.metrics_listen, "host:port of /metrics and /healthz")
      ->capture_default_str();
  app.add_option("--journal", flags.journal,
                 "Folder of the journal, from which rows are restored; default: none is kept");
  pompc::AddSecurityFlags(&app, &flags.security, /*serves=*/true);
  if (const auto done = pompc::ParseCommandLine(&app, argc, argv)) return *done;

  pompc::InitLogging("replay");
  const absl::Status status = pompc::Serve(flags);
  if (!status.ok()) POMPC_LOG(ERROR) << "cannot serve status=" << status;
  return pompc::ExitStatus(status);
}
