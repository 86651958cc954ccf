#include <sys/resource.h>

#include <atomic>
#include <chrono>
#include <set>
#include <string>
#include <vector>

#include "common/base/clock.h"
#include "common/base/thread.h"
#include "common/metrics/metrics.h"
#include "common/rpc/channel.h"
#include "common/rpc/retry.h"
#include "common/rpc/server.h"
#include "common/rpc/status.h"
#include "gmock/gmock.h"
#include "grpcpp/generic/generic_stub.h"
#include "gtest/gtest.h"
#include "proto/pompc/v1/learner.grpc.pb.h"

namespace pompc {
namespace {

using testing::HasSubstr;

// Answers GetStatus with the number of the call; when told to hold, once `gate` is raised.
class CountingService : public v1::Learner::Service {
 public:
  grpc::Status GetStatus(grpc::ServerContext* context, const v1::GetStatusRequest*,
                         v1::RunStatus* answer) override {
    const int call = ++calls;
    {
      absl::MutexLock lock(&mu_);
      peers_.insert(context->peer());
    }
    entered.Notify();
    if (hold) gate.Wait();
    answer->set_updates(call);
    answer->set_phase(std::string(answer_bytes, 'x'));
    return ToGrpc(error);
  }

  std::atomic<int> calls = 0;
  Event entered, gate;
  bool hold = false;
  size_t answer_bytes = 0;
  absl::Status error;

  // Addresses that calls came from.
  std::set<std::string> peers() const {
    absl::MutexLock lock(&mu_);
    return peers_;
  }

 private:
  mutable absl::Mutex mu_;
  std::set<std::string> peers_ ABSL_GUARDED_BY(mu_);
};

std::string SocketAddress() {
  return "unix:" + testing::TempDir() +
         testing::UnitTest::GetInstance()->current_test_info()->name() + ".sock";
}

class RpcTest : public testing::Test {
 protected:
  void StartServer(const std::string& address) {
    auto server = RpcServer::Start(address, {&service_}, &served_);
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
  }

  absl::Status GetStatus(UnaryCaller& caller, v1::Learner::Stub& stub) {
    return caller.Call([&](grpc::ClientContext* context) {
      return stub.GetStatus(context, v1::GetStatusRequest(), &answer_);
    });
  }

  // One call on a channel of its own.
  absl::Status GetStatus(const std::string& address, const RetryPolicy& policy = {}) {
    UnaryCaller caller(policy, rng_, RealClock(), &stop_, &metrics_);
    v1::Learner::Stub stub(CreateChannel(address));
    return GetStatus(caller, stub);
  }

  static RetryPolicy OneAttempt(absl::Duration timeout) {
    RetryPolicy policy;
    policy.attempt_timeout = timeout;
    policy.give_up_after = absl::ZeroDuration();
    return policy;
  }

  const Rng rng_{1, RngRole::kTest, 0, 0};
  MetricsRegistry metrics_, served_;  // Of the calls made, and of the server.
  Event stop_;
  CountingService service_;
  std::unique_ptr<RpcServer> server_;
  v1::RunStatus answer_;
};

TEST(StatusTest, EveryCodeSurvivesTheRoundTrip) {
  for (int code = 0; code <= 16; ++code) {
    const absl::Status status(static_cast<absl::StatusCode>(code), "why");
    EXPECT_EQ(FromGrpc(ToGrpc(status)), status);
    EXPECT_EQ(static_cast<int>(ToGrpc(status).error_code()), code);
  }
}

TEST_F(RpcTest, ServesOnAFreePortAndReportsIt) {
  StartServer("127.0.0.1:0");
  EXPECT_GT(server_->port(), 0);
  EXPECT_EQ(server_->address(), "127.0.0.1:" + std::to_string(server_->port()));
  EXPECT_TRUE(GetStatus(server_->address()).ok());
  EXPECT_EQ(answer_.updates(), 1);
}

TEST_F(RpcTest, ServesOnAUnixSocket) {
  StartServer(SocketAddress());
  EXPECT_EQ(server_->port(), 0);
  EXPECT_TRUE(GetStatus(server_->address()).ok());
}

TEST_F(RpcTest, TakenPortIsUnavailable) {
  StartServer("127.0.0.1:0");
  const absl::Status second = RpcServer::Start(server_->address(), {}, &served_).status();
  EXPECT_EQ(second.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(second.message()), HasSubstr(server_->address()));
}

TEST_F(RpcTest, AServerMayOpenAsManyFilesAsTheSystemAllows) {
  rlimit limit;
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &limit), 0);
  limit.rlim_cur = 256;
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &limit), 0);
  StartServer(SocketAddress());
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &limit), 0);
  EXPECT_EQ(limit.rlim_cur, limit.rlim_max);
  EXPECT_GT(limit.rlim_cur, 256u);
}

TEST_F(RpcTest, EachChannelHasAConnectionOfItsOwn) {
  StartServer("127.0.0.1:0");
  v1::Learner::Stub stub(CreateChannel(server_->address()));
  UnaryCaller caller({}, rng_, RealClock(), &stop_, &metrics_);
  EXPECT_TRUE(GetStatus(caller, stub).ok());
  v1::Learner::Stub other(CreateChannel(server_->address()));
  EXPECT_TRUE(GetStatus(caller, other).ok());
  EXPECT_EQ(service_.peers().size(), 2);
}

TEST_F(RpcTest, MessagesBeyondTheDefaultOfGrpcPass) {
  service_.answer_bytes = 16 << 20;
  StartServer(SocketAddress());
  EXPECT_TRUE(GetStatus(server_->address()).ok());
  EXPECT_EQ(answer_.phase().size(), service_.answer_bytes);
}

TEST_F(RpcTest, HealthServiceAnswersServing) {
  StartServer(SocketAddress());
  grpc::GenericStub stub(CreateChannel(server_->address()));
  grpc::ClientContext context;
  const grpc::Slice empty("");  // HealthCheckRequest of the whole server.
  const grpc::ByteBuffer request(&empty, 1);
  grpc::ByteBuffer answer;
  grpc::Status status;
  Event done;
  stub.UnaryCall(&context, "/grpc.health.v1.Health/Check", {}, &request, &answer,
                 [&](grpc::Status s) {
                   status = std::move(s);
                   done.Notify();
                 });
  done.Wait();
  ASSERT_TRUE(status.ok()) << status.error_message();
  grpc::Slice slice;
  ASSERT_TRUE(answer.DumpToSingleSlice(&slice).ok());
  // HealthCheckResponse { status: SERVING }.
  EXPECT_EQ(std::string(slice.begin(), slice.end()), "\x08\x01");
}

TEST_F(RpcTest, DeadServerIsUnavailable) {
  EXPECT_EQ(GetStatus(SocketAddress(), OneAttempt(absl::Seconds(5))).code(),
            absl::StatusCode::kUnavailable);
  EXPECT_THAT(metrics_.Text(), HasSubstr("pompc_rpc_calls_total{code=\"unavailable\"} 1\n"));
}

TEST_F(RpcTest, ServerThatNeverAnswersEndsAtTheDeadline) {
  service_.hold = true;
  StartServer(SocketAddress());
  EXPECT_EQ(GetStatus(server_->address(), OneAttempt(absl::Milliseconds(50))).code(),
            absl::StatusCode::kDeadlineExceeded);
  service_.gate.Notify();
}

TEST_F(RpcTest, RetrySucceedsOnceTheServerIsUp) {
  FakeClock clock;
  UnaryCaller caller({}, rng_, &clock, &stop_, &metrics_);
  auto channel = CreateChannel(SocketAddress());
  v1::Learner::Stub stub(channel);
  absl::Status status;
  {
    Thread client("client", [&] { status = GetStatus(caller, stub); });
    clock.AwaitWaiters(1);  // The first attempt has failed.
    StartServer(SocketAddress());
    EXPECT_TRUE(
        channel->WaitForConnected(std::chrono::system_clock::now() + std::chrono::seconds(20)));
    clock.Advance(absl::Milliseconds(100));
  }
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_EQ(service_.calls, 1);
  EXPECT_THAT(metrics_.Text(), HasSubstr("pompc_rpc_retries_total 1\n"));
}

TEST_F(RpcTest, StopEndsTheWaitBetweenAttempts) {
  FakeClock clock;
  UnaryCaller caller({}, rng_, &clock, &stop_, &metrics_);
  v1::Learner::Stub stub(CreateChannel(SocketAddress()));
  absl::Status status;
  {
    Thread client("client", [&] { status = GetStatus(caller, stub); });
    clock.AwaitWaiters(1);
    stop_.Notify();
  }
  EXPECT_EQ(status.code(), absl::StatusCode::kCancelled);
}

TEST_F(RpcTest, ACallThatTheServerCancelsIsWorthAnotherAttempt) {
  service_.error = absl::CancelledError("shutting down");
  StartServer(SocketAddress());
  EXPECT_TRUE(absl::IsUnavailable(GetStatus(server_->address(), OneAttempt(absl::Seconds(5)))));
}

TEST_F(RpcTest, ErrorsThatRepetitionCannotCureAreReturnedAtOnce) {
  service_.error = absl::FailedPreconditionError("not in this phase");
  StartServer(SocketAddress());
  EXPECT_EQ(GetStatus(server_->address()), service_.error);
  EXPECT_EQ(service_.calls, 1);
}

TEST_F(RpcTest, BothSidesCountAndTimeTheCall) {
  StartServer(SocketAddress());
  EXPECT_TRUE(GetStatus(server_->address()).ok());
  service_.error = absl::FailedPreconditionError("not in this phase");
  EXPECT_FALSE(GetStatus(server_->address()).ok());
  const std::string made = metrics_.Text();
  EXPECT_THAT(made, HasSubstr("pompc_rpc_calls_total{code=\"ok\"} 1\n"));
  EXPECT_THAT(made, HasSubstr("pompc_rpc_calls_total{code=\"failed_precondition\"} 1\n"));
  EXPECT_THAT(made, HasSubstr("pompc_rpc_call_duration_seconds_count 2\n"));
  server_.reset();  // Ends what is left of the calls.
  const std::string served = served_.Text();
  EXPECT_THAT(served, HasSubstr("pompc_rpc_served_total{code=\"ok\"} 1\n"));
  EXPECT_THAT(served, HasSubstr("pompc_rpc_served_total{code=\"failed_precondition\"} 1\n"));
  EXPECT_THAT(served, HasSubstr("serve_duration_seconds_count{rpc=\"get_status\"} 2\n"));
  EXPECT_THAT(served, HasSubstr("serve_duration_seconds_count{rpc=\"join\"} 0\n"));
}

TEST_F(RpcTest, ShutdownLetsTheRunningCallFinish) {
  service_.hold = true;
  StartServer(SocketAddress());
  absl::Status status;
  Thread client("client",
                [&] { status = GetStatus(server_->address(), OneAttempt(absl::Seconds(20))); });
  service_.entered.Wait();
  Thread shutdown("shutdown", [&] { server_->Shutdown(absl::Seconds(20)); });
  service_.gate.Notify();
  client.Join();
  shutdown.Join();
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_EQ(GetStatus(server_->address(), OneAttempt(absl::Seconds(5))).code(),
            absl::StatusCode::kUnavailable);
}

// The server does not answer at all; time passes with the attempts.
TEST_F(RpcTest, ALaterAttemptHasTheTimeThatIsLeft) {
  RetryPolicy policy;
  policy.attempt_timeout = absl::Minutes(20);
  policy.give_up_after = absl::Minutes(30);
  FakeClock clock;
  UnaryCaller caller(policy, rng_, &clock, &stop_, &metrics_);
  std::vector<absl::Duration> timeouts;
  Thread time("time", [&] {
    clock.AwaitWaiters(1);
    clock.Advance(policy.max_backoff);
  });
  const absl::Status status = caller.Call([&](grpc::ClientContext* context) {
    // A little less than it was given: gRPC's clock goes on.
    timeouts.push_back(absl::FromChrono(context->deadline() - std::chrono::system_clock::now()));
    clock.Advance(policy.attempt_timeout);
    return grpc::Status(grpc::StatusCode::DEADLINE_EXCEEDED, "no answer");
  });
  EXPECT_TRUE(absl::IsDeadlineExceeded(status)) << status;
  ASSERT_EQ(timeouts.size(), 2u);
  EXPECT_GT(timeouts[0], absl::Minutes(10)) << "an attempt may take that long";
  EXPECT_LE(timeouts[1], absl::Minutes(10));
}

TEST(BackoffTest, DoublesUpToTheLimitWithJitterInTheUpperHalf) {
  RetryPolicy policy;
  policy.initial_backoff = absl::Seconds(1);
  policy.max_backoff = absl::Seconds(6);
  Backoff backoff(policy, Rng(1, RngRole::kTest, 0, 0));
  for (int round = 0; round < 50; ++round) {
    for (int ceiling : {1, 2, 4, 6, 6}) {
      const absl::Duration wait = backoff.Next();
      EXPECT_GE(wait, absl::Seconds(ceiling) / 2);
      EXPECT_LE(wait, absl::Seconds(ceiling));
    }
    backoff.Reset();
  }
  EXPECT_EQ(Backoff(policy, Rng(1, RngRole::kTest, 5, 0)).Next(),
            Backoff(policy, Rng(1, RngRole::kTest, 5, 0)).Next());
  EXPECT_NE(Backoff(policy, Rng(1, RngRole::kTest, 5, 0)).Next(),
            Backoff(policy, Rng(1, RngRole::kTest, 6, 0)).Next());
}

}  // namespace
}  // namespace pompc
