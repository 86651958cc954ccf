// A replay server in the test's process that can die and come back.
#ifndef POMPC_REPLAY_CLIENT_TEST_SERVER_H_
#define POMPC_REPLAY_CLIENT_TEST_SERVER_H_

#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/metrics/metrics.h"
#include "common/rpc/channel.h"
#include "common/rpc/server.h"
#include "gtest/gtest.h"
#include "replay/server/journal.h"
#include "replay/server/replay.h"
#include "replay/server/service.h"
#include "replay/server/tables.h"

namespace pompc::testing {

class TestServer {
 public:
  // With a journal in `folder`, unless that is empty. number: tells apart the servers of a test.
  explicit TestServer(std::string folder = "", int number = 0)
      : address_(absl::StrCat("unix:", ::testing::TempDir(), "/replay-", getpid(), "-", number)),
        folder_(std::move(folder)) {
    MakeReplay();
    Start();
  }

  // Every connection breaks; what is stored stays.
  void Restart() {
    Stop();
    Start();
  }
  void Start() {
    // Further tables are without a journal, and end when the server stops.
    tables_ = std::make_unique<ReplayTables>(replay_.get(), [this](const std::string& /*name*/) {
      return std::make_unique<Replay>(RealClock(), &metrics_);
    });
    service_ = std::make_unique<ReplayService>(tables_.get(), &metrics_);
    auto server = RpcServer::Start(address_, {service_.get()}, &metrics_);
    POMPC_CHECK_OK(server.status());
    server_ = *std::move(server);
  }
  void Stop() { server_.reset(); }
  // The server dies, and another one takes its place: with the rows of its journal, or without and
  // not configured yet.
  void ReplaceReplay() {
    Stop();
    replay_.reset();
    MakeReplay();
    Start();
  }

  absl::Status Configure(const v1::TableConfig& table) {
    v1::ConfigureRequest request;
    *request.mutable_table() = table;
    return replay_->Configure(request);
  }
  // To the table of this name.
  std::shared_ptr<grpc::Channel> channel(const std::string& table = "") const {
    return CreateChannel(table.empty() ? address_ : address_ + "#" + table);
  }
  Replay& replay() { return *replay_; }
  MetricsRegistry* metrics() { return &metrics_; }

 private:
  void MakeReplay() {
    if (folder_.empty()) {
      replay_ = std::make_unique<Replay>(RealClock(), &metrics_);
      return;
    }
    auto journal = Journal::Open(folder_, RealClock(), &metrics_);
    POMPC_CHECK_OK(journal.status());
    auto restored = Replay::Restore(*std::move(journal), RealClock(), &metrics_);
    POMPC_CHECK_OK(restored.status());
    replay_ = *std::move(restored);
  }

  const std::string address_, folder_;
  MetricsRegistry metrics_;
  std::unique_ptr<Replay> replay_;
  std::unique_ptr<ReplayTables> tables_;
  std::unique_ptr<ReplayService> service_;
  std::unique_ptr<RpcServer> server_;
};

}  // namespace pompc::testing

#endif  // POMPC_REPLAY_CLIENT_TEST_SERVER_H_
