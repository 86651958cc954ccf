// The client and the subscriber against a scripted server behind a real connection.
#include <unistd.h>

#include <memory>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "common/base/bounded_queue.h"
#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/base/crc32c.h"
#include "common/metrics/metrics.h"
#include "common/rpc/channel.h"
#include "common/rpc/server.h"
#include "gtest/gtest.h"
#include "learner/client/remote_learner_client.h"
#include "learner/client/remote_parameter_subscriber.h"
#include "proto/pompc/v1/learner.grpc.pb.h"

namespace pompc {
namespace {

v1::ParameterSnapshot Snapshot(int64_t version) {
  v1::ParameterSnapshot snapshot;
  snapshot.set_version(version);
  snapshot.set_data(std::string(16, static_cast<char>('a' + version)));
  snapshot.set_crc32c(Crc32c(snapshot.data()));
  return snapshot;
}

// Answers each request for parameters with the next snapshot it was given, and Join() after as many
// refusals as it was told.
class ScriptedLearner final : public v1::Learner::Service {
 public:
  void Send(v1::ParameterSnapshot snapshot) { (void)snapshots_.Push(std::move(snapshot)); }
  void End() { snapshots_.Close(); }
  void RefuseJoins(int count, grpc::StatusCode code) {
    absl::MutexLock lock(&mu_);
    refusals_ = count;
    code_ = code;
  }
  int joins() const {
    absl::MutexLock lock(&mu_);
    return joins_;
  }
  int64_t last_held_version() const {
    absl::MutexLock lock(&mu_);
    return held_version_;
  }

  grpc::Status Subscribe(
      grpc::ServerContext*,
      grpc::ServerReaderWriter<v1::ParameterSnapshot, v1::SubscribeRequest>* stream) override {
    v1::SubscribeRequest request;
    while (stream->Read(&request)) {
      {
        absl::MutexLock lock(&mu_);
        held_version_ = request.held_version();
      }
      const absl::StatusOr<v1::ParameterSnapshot> next = snapshots_.Pop();
      if (!next.ok() || !stream->Write(*next)) break;
    }
    return grpc::Status(grpc::StatusCode::UNAVAILABLE, "script ended");
  }
  grpc::Status Join(grpc::ServerContext*, const v1::JoinRequest*,
                    v1::JoinResponse* response) override {
    absl::MutexLock lock(&mu_);
    ++joins_;
    if (refusals_-- > 0) return grpc::Status(code_, "role: refused by script");
    response->set_writer_id(17);
    return grpc::Status::OK;
  }

 private:
  BoundedQueue<v1::ParameterSnapshot> snapshots_{100};
  mutable absl::Mutex mu_;
  int refusals_ ABSL_GUARDED_BY(mu_) = 0;
  grpc::StatusCode code_ ABSL_GUARDED_BY(mu_) = grpc::StatusCode::OK;
  int joins_ ABSL_GUARDED_BY(mu_) = 0;
  int64_t held_version_ ABSL_GUARDED_BY(mu_) = -2;
};

class RemoteClientTest : public ::testing::Test {
 protected:
  RemoteClientTest() : address_(absl::StrCat("unix:", ::testing::TempDir(), "/client-", getpid())) {
    Start();
  }
  ~RemoteClientTest() override { Stop(); }

  void Start() {
    learner_ = std::make_unique<ScriptedLearner>();
    auto server = RpcServer::Start(address_, {learner_.get()}, &metrics_);
    POMPC_CHECK_OK(server.status());
    server_ = *std::move(server);
  }
  void Stop() {
    learner_->End();
    server_.reset();
  }
  absl::Time Soon() { return RealClock()->Now() + absl::Seconds(20); }

  const std::string address_;
  MetricsRegistry metrics_;
  std::unique_ptr<ScriptedLearner> learner_;
  std::unique_ptr<RpcServer> server_;
};

TEST_F(RemoteClientTest, RepeatsACallWhileTheLearnerIsUnavailable) {
  learner_->RefuseJoins(2, grpc::StatusCode::UNAVAILABLE);
  RemoteLearnerClient client(CreateChannel(address_), 1, RealClock(), &metrics_);
  const auto joined = client.Join(v1::JoinRequest(), Soon());
  ASSERT_TRUE(joined.ok()) << joined.status();
  EXPECT_EQ(joined->writer_id(), 17u);
  EXPECT_EQ(learner_->joins(), 3);
}

TEST_F(RemoteClientTest, ARefusalIsFinal) {
  learner_->RefuseJoins(100, grpc::StatusCode::INVALID_ARGUMENT);
  RemoteLearnerClient client(CreateChannel(address_), 1, RealClock(), &metrics_);
  const auto joined = client.Join(v1::JoinRequest(), Soon());
  EXPECT_TRUE(absl::IsInvalidArgument(joined.status()));
  EXPECT_EQ(joined.status().message(), "role: refused by script");
  EXPECT_EQ(learner_->joins(), 1);
}

TEST_F(RemoteClientTest, GivesUpAtTheDeadline) {
  learner_->RefuseJoins(1000, grpc::StatusCode::UNAVAILABLE);
  RemoteLearnerClient client(CreateChannel(address_), 1, RealClock(), &metrics_);
  const auto joined = client.Join(v1::JoinRequest(), RealClock()->Now() + absl::Milliseconds(150));
  // The second if the server had no time left for the last attempt.
  EXPECT_TRUE(absl::IsUnavailable(joined.status()) || absl::IsDeadlineExceeded(joined.status()));
}

TEST_F(RemoteClientTest, AClosedClientRefusesCalls) {
  RemoteLearnerClient client(CreateChannel(address_), 1, RealClock(), &metrics_);
  client.Close();
  EXPECT_TRUE(absl::IsCancelled(client.GetStatus(Soon()).status()));
}

TEST_F(RemoteClientTest, HasNothingBeforeTheFirstSnapshot) {
  RemoteParameterSubscriber subscriber(CreateChannel(address_), 1, RealClock(), &metrics_);
  EXPECT_EQ(subscriber.Newest(), nullptr);
  EXPECT_TRUE(absl::IsDeadlineExceeded(subscriber.WaitForNewer(-1, RealClock()->Now()).status()));
}

TEST_F(RemoteClientTest, KeepsTheLastSnapshotAndTellsItsVersionWithTheNextRequest) {
  RemoteParameterSubscriber subscriber(CreateChannel(address_), 1, RealClock(), &metrics_);
  learner_->Send(Snapshot(3));
  const auto first = subscriber.WaitForNewer(-1, Soon());
  ASSERT_TRUE(first.ok()) << first.status();
  EXPECT_EQ((*first)->version(), 3);
  EXPECT_TRUE(subscriber.status().ok());
  learner_->Send(Snapshot(4));
  const auto second = subscriber.WaitForNewer(3, Soon());
  ASSERT_TRUE(second.ok()) << second.status();
  EXPECT_EQ((*second)->data(), Snapshot(4).data());
  EXPECT_EQ(subscriber.Newest()->version(), 4);
  EXPECT_GE(learner_->last_held_version(), 3);
}

TEST_F(RemoteClientTest, DropsAndCountsADamagedSnapshotAndAsksAgain) {
  RemoteParameterSubscriber subscriber(CreateChannel(address_), 1, RealClock(), &metrics_);
  v1::ParameterSnapshot damaged = Snapshot(1);
  damaged.mutable_data()->at(5) ^= 1;
  v1::ParameterSnapshot cut = Snapshot(1);
  cut.mutable_data()->resize(7);
  cut.set_crc32c(Crc32c(cut.data()));
  learner_->Send(damaged);
  learner_->Send(cut);
  learner_->Send(Snapshot(2));
  const auto snapshot = subscriber.WaitForNewer(-1, Soon());
  ASSERT_TRUE(snapshot.ok()) << snapshot.status();
  EXPECT_EQ((*snapshot)->version(), 2);
  EXPECT_EQ(subscriber.dropped_snapshots(), 2);
}

TEST_F(RemoteClientTest, TakesWhatARestartedLearnerHasEvenIfItsVersionIsLower) {
  RemoteParameterSubscriber subscriber(CreateChannel(address_), 1, RealClock(), &metrics_);
  learner_->Send(Snapshot(9));
  ASSERT_TRUE(subscriber.WaitForNewer(-1, Soon()).ok());
  Stop();
  Start();
  learner_->Send(Snapshot(5));
  const auto snapshot = subscriber.WaitForNewer(9, Soon());
  ASSERT_TRUE(snapshot.ok()) << snapshot.status();
  EXPECT_EQ((*snapshot)->version(), 5);
}

TEST_F(RemoteClientTest, CloseEndsAWait) {
  RemoteParameterSubscriber subscriber(CreateChannel(address_), 1, RealClock(), &metrics_);
  Thread closer("closer", [&] { subscriber.Close(); });
  EXPECT_TRUE(absl::IsCancelled(subscriber.WaitForNewer(-1, Soon()).status()));
}

}  // namespace
}  // namespace pompc
