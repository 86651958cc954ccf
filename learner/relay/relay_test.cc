// Relays behind real sockets; the learner is a RunFront with its service that can die and come
// back.
#include "learner/relay/relay.h"

#include <unistd.h>

#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/thread.h"
#include "common/rpc/channel.h"
#include "common/rpc/server.h"
#include "common/rpc/status.h"
#include "gtest/gtest.h"
#include "learner/client/learner_watch.h"
#include "learner/client/remote_parameter_subscriber.h"
#include "learner/service/testing.h"

namespace pompc {
namespace {

absl::Time Soon() { return RealClock()->Now() + absl::Seconds(20); }

std::string NewAddress() {
  static int sockets = 0;
  return absl::StrCat("unix:", ::testing::TempDir(), "/relay-", getpid(), "-", ++sockets);
}

v1::ParameterSnapshot Snapshot(int64_t updates, size_t bytes = 64) {
  v1::ParameterSnapshot snapshot;
  snapshot.set_updates(updates);
  snapshot.set_decisions(2 * updates);
  snapshot.set_data(std::string(bytes, static_cast<char>(updates)));
  return snapshot;
}

// A learner whose process can be replaced by another one at the same address.
class TestLearner {
 public:
  TestLearner() { Start(/*first_version=*/0); }
  ~TestLearner() { Stop(); }

  // Publishes from `first_version` on.
  void Start(int64_t first_version, const std::vector<std::string>& replay_addresses = {}) {
    metrics_ = std::make_unique<MetricsRegistry>();
    RunFrontOptions options;
    options.run_dir = testing::NewFolder();
    options.replay_addresses = replay_addresses;
    options.identity.set_run_id("test-run");
    options.identity.mutable_config()->set_seed(7);
    if (first_version > 0) {
      *options.books.mutable_sizes() = testing::TestSizes();
      options.books.set_parameter_version(first_version - 1);
    }
    auto front = RunFront::Create(options, RealClock(), metrics_.get());
    POMPC_CHECK_OK(front.status());
    front_ = *std::move(front);
    front_->episodes.Open();
    service_ = std::make_unique<LearnerService>(front_.get());
    auto server = RpcServer::Start(address_, {service_.get()}, metrics_.get());
    POMPC_CHECK_OK(server.status());
    server_ = *std::move(server);
  }
  void Stop() {
    server_.reset();
    front_.reset();
  }

  RunFront* operator->() { return front_.get(); }
  const std::string& address() const { return address_; }
  double subscribers() { return metrics_->GetGauge("pompc_learner_subscribers")->Value(); }
  double sent_bytes() { return metrics_->GetCounter("pompc_learner_sent_bytes_total")->Value(); }

 private:
  const std::string address_ = NewAddress();
  std::unique_ptr<MetricsRegistry> metrics_;
  std::unique_ptr<RunFront> front_;
  std::unique_ptr<LearnerService> service_;
  std::unique_ptr<RpcServer> server_;
};

// A pompc-relay, without its Run().
class TestRelay {
 public:
  explicit TestRelay(const std::string& upstream, Clock* clock = RealClock())
      : relay_(upstream, CreateChannel(upstream), 1, clock, &metrics_) {
    auto server = RpcServer::Start(NewAddress(), {&relay_}, &metrics_);
    POMPC_CHECK_OK(server.status());
    server_ = *std::move(server);
  }
  ~TestRelay() {
    relay_.Close();
    server_.reset();
  }

  Relay* operator->() { return &relay_; }
  const std::string& address() const { return server_->address(); }
  MetricsRegistry* metrics() { return &metrics_; }

 private:
  MetricsRegistry metrics_;
  Relay relay_;
  std::unique_ptr<RpcServer> server_;
};

// What an actor has of the learner, at any address.
struct Client {
  explicit Client(const std::string& address)
      : learner(CreateChannel(address), 1, RealClock(), &metrics),
        parameters(CreateChannel(address), 1, RealClock(), &metrics) {}

  // Blocks until it holds `version`.
  SnapshotPtr Await(int64_t version) {
    int64_t held = -1;
    while (true) {
      const auto newer = parameters.WaitForNewer(held, Soon());
      POMPC_CHECK_OK(newer.status());
      held = (*newer)->version();
      if (held == version) return *newer;
    }
  }
  double reconnects() { return metrics.GetCounter("pompc_rpc_reconnects_total")->Value(); }

  MetricsRegistry metrics;
  RemoteLearnerClient learner;
  RemoteParameterSubscriber parameters;
};

TEST(RelayTest, ManySubscribersTakeOneStreamFromUpstreamAndGetWhatItSent) {
  TestLearner learner;
  TestRelay relay(learner.address());
  Client direct(learner.address());
  std::vector<std::unique_ptr<Client>> clients;
  for (int i = 0; i < 8; ++i) clients.push_back(std::make_unique<Client>(relay.address()));
  for (int64_t version = 0; version < 3; ++version) {
    learner->publisher.Publish(Snapshot(100 + version));
    const std::string sent = direct.Await(version)->SerializeAsString();
    for (auto& client : clients) EXPECT_EQ(client->Await(version)->SerializeAsString(), sent);
  }
  EXPECT_EQ(learner.subscribers(), 2) << "one is the direct one";
  EXPECT_EQ(relay.metrics()->GetGauge("pompc_relay_subscribers")->Value(), 8);
  EXPECT_EQ(relay.metrics()->GetGauge("pompc_relay_params_version")->Value(), 2);
  EXPECT_TRUE(learner->publisher.AwaitDelivered(Soon()));
  EXPECT_EQ(2 * relay.metrics()->GetCounter("pompc_relay_received_bytes_total")->Value(),
            learner.sent_bytes());
}

TEST(RelayTest, RowsGoStraightToTheLearnerThroughAnyNumberOfRelays) {
  TestLearner learner;
  TestRelay inner(learner.address()), outer(inner.address());
  Client client(outer.address());
  const auto joined = client.learner.Join(testing::JoinAs(v1::ACTOR), Soon());
  ASSERT_TRUE(joined.ok()) << joined.status();
  ASSERT_EQ(joined->replay_addresses_size(), 1);
  EXPECT_EQ(joined->replay_addresses(0), learner.address());

  learner.Stop();
  learner.Start(0, {"replay-1:70", "replay-2:70"});
  const auto again = client.learner.Join(testing::JoinAs(v1::ACTOR), Soon());
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(again->replay_addresses_size(), 2);
  EXPECT_EQ(again->replay_addresses(1), "replay-2:70");
}

TEST(RelayTest, ForwardsCallsAndTheirErrors) {
  TestLearner learner;
  TestRelay inner(learner.address()), outer(inner.address());
  Client client(outer.address());
  const auto run = client.learner.GetConfig(Soon());
  ASSERT_TRUE(run.ok()) << run.status();
  EXPECT_EQ(run->run_id(), "test-run");
  EXPECT_EQ(run->config().seed(), 7u);

  const absl::Status refused =
      client.learner.Join(testing::JoinAs(v1::ROLE_UNSPECIFIED), Soon()).status();
  EXPECT_EQ(refused, learner->roster.Join(testing::JoinAs(v1::ROLE_UNSPECIFIED)).status());
  EXPECT_EQ(refused.code(), absl::StatusCode::kInvalidArgument);

  learner->progress.Set({.phase = "training", .updates = 41});
  const int64_t version = learner->publisher.Publish({});
  const auto reported = client.learner.ReportEpisodes(
      testing::Report(1, 1, {testing::TestEpisode(v1::ACTOR, 12, version)}), Soon());
  ASSERT_TRUE(reported.ok()) << reported.status();
  EXPECT_EQ(reported->learner_updates(), 41);
  const auto status = client.learner.GetStatus(Soon());
  ASSERT_TRUE(status.ok()) << status.status();
  EXPECT_EQ(status->episodes(), 1);

  learner.Stop();
  const absl::Time deadline = RealClock()->Now() + absl::Milliseconds(200);
  EXPECT_TRUE(absl::IsUnavailable(client.learner.GetStatus(deadline).status()));
}

TEST(RelayTest, SubscribersKeepTheirStreamsWhileTheLearnerStartsAgain) {
  TestLearner learner;
  TestRelay inner(learner.address()), outer(inner.address());
  Client client(outer.address());
  learner->publisher.Publish(Snapshot(5));
  const uint64_t first_learner = client.Await(0)->learner_id();
  learner.Stop();
  Client late(outer.address());
  EXPECT_EQ(late.Await(0)->updates(), 5) << "what the relay holds";

  learner.Start(/*first_version=*/1'000'001);
  learner->publisher.Publish(Snapshot(6));
  const SnapshotPtr newer = client.Await(1'000'001);
  EXPECT_EQ(newer->updates(), 6);
  EXPECT_NE(newer->learner_id(), first_learner);
  // From a checkpoint of long ago.
  learner.Stop();
  learner.Start(/*first_version=*/3);
  learner->publisher.Publish(Snapshot(1));
  EXPECT_EQ(client.Await(3)->updates(), 1);
  EXPECT_EQ(client.reconnects(), 0);
  EXPECT_TRUE(client.parameters.status().ok());
}

TEST(RelayTest, ASlowSubscriberHoldsNobodyUpAndSkipsVersions) {
  constexpr size_t kBytes = 4 << 20;  // More than a connection takes without a reader.
  TestLearner learner;
  TestRelay relay(learner.address());
  const auto stub = v1::Learner::NewStub(CreateChannel(relay.address()));
  grpc::ClientContext context;
  const auto slow = stub->Subscribe(&context);
  const auto ask = [&](int64_t held_version) {
    v1::SubscribeRequest request;
    request.set_held_version(held_version);
    return slow->Write(request);
  };
  v1::ParameterSnapshot snapshot;
  learner->publisher.Publish(Snapshot(0));
  ASSERT_TRUE(ask(-1) && slow->Read(&snapshot) && ask(0));

  Client fast(relay.address());
  for (int64_t version = 1; version < 10; ++version) {
    learner->publisher.Publish(Snapshot(version, kBytes));
    fast.Await(version);
  }
  // One of them was on its way; the next one is the newest.
  for (int reads = 0; reads < 2 && snapshot.version() != 9; ++reads) {
    ASSERT_TRUE(slow->Read(&snapshot) && ask(snapshot.version()));
  }
  EXPECT_EQ(snapshot.version(), 9);
  context.TryCancel();
}

TEST(RelayTest, LeavesAfterTheRunIsFinishedAndItsSubscribersHaveLeft) {
  TestLearner learner;
  learner->publisher.Publish(Snapshot(1));
  TestRelay inner(learner.address());
  FakeClock clock;
  auto outer = std::make_unique<TestRelay>(inner.address(), &clock);
  auto client = std::make_unique<Client>(outer->address());
  client->Await(0);
  const Event stop;
  Event outer_left;
  absl::Status inner_end, outer_end;
  Thread inner_run("inner", [&] { inner_end = inner->Run(stop); });
  Thread outer_run("outer", [&] {
    outer_end = (*outer)->Run(stop);
    outer_left.Notify();
  });
  v1::ParameterSnapshot last = Snapshot(9);
  last.set_run_finished(true);
  learner->publisher.Publish(last);
  EXPECT_TRUE(client->Await(1)->run_finished());
  // The last report still gets through.
  const auto report =
      testing::Report(1, 1, {testing::TestEpisode(v1::ACTOR, 12, learner->publisher.version())});
  EXPECT_TRUE(client->learner.ReportEpisodes(report, Soon()).ok());
  const auto pass = [&](int seconds) {
    for (int i = 0; i < seconds && !outer_left.HasBeenNotified(); ++i) {
      clock.Advance(absl::Seconds(1));
      std::this_thread::yield();
    }
  };
  pass(10'000);
  EXPECT_FALSE(outer_left.HasBeenNotified());
  client.reset();
  while (!outer_left.HasBeenNotified()) pass(1);
  outer_run.Join();
  EXPECT_TRUE(outer_end.ok()) << outer_end;
  outer.reset();
  inner_run.Join();
  EXPECT_TRUE(inner_end.ok()) << inner_end;
}

TEST(RelayTest, JoinsAgainForItsSubscribersWhenTheLearnerHasForgottenThem) {
  FakeClock clock;
  TestLearner learner;
  TestRelay relay(learner.address(), &clock);
  Client client(relay.address());
  ASSERT_TRUE(client.learner.Join(testing::JoinAs(v1::ACTOR), Soon()).ok());
  learner.Stop();
  learner.Start(0);  // Knows no sizes and so publishes nothing.
  Event stop;
  Thread run("relay", [&] { POMPC_CHECK_OK(relay->Run(stop)); });
  std::optional<v1::TaskSizes> sizes;
  for (int i = 0; i < 2500 && !sizes.has_value(); ++i) {
    clock.Advance(absl::Milliseconds(100));
    sizes = learner->roster.AwaitSizes(RealClock()->Now() + absl::Milliseconds(5));
  }
  stop.Notify();
  clock.Advance(absl::Seconds(1));
  run.Join();
  ASSERT_TRUE(sizes.has_value());
  EXPECT_EQ(sizes->action_dim(), testing::TestSizes().action_dim());
}

TEST(RelayTest, GivesUpWhenThereIsNoLearnerForFiveMinutes) {
  FakeClock clock;
  TestRelay relay(NewAddress(), &clock);
  const Event stop;
  absl::Status end;
  Event ended;
  const absl::Time start = clock.Now();
  Thread run("relay", [&] {
    end = relay->Run(stop);
    ended.Notify();
  });
  while (!ended.HasBeenNotified()) {
    clock.Advance(absl::Seconds(1));
    std::this_thread::yield();
  }
  EXPECT_TRUE(absl::IsUnavailable(end)) << end;
  EXPECT_GE(clock.Now() - start, kLearnerPatience);
}

}  // namespace
}  // namespace pompc
