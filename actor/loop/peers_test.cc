#include "actor/loop/peers.h"

#include "actor/loop/test_peers.h"
#include "gtest/gtest.h"

namespace pompc {
namespace {

TEST(AskLearnerTest, AsksUntilThereIsAnAnswer) {
  FakeClock clock;
  Event stop;
  int calls = 0;
  const auto call = [&](absl::Time deadline) -> absl::StatusOr<int> {
    clock.Advance(deadline - clock.Now());
    if (++calls < 4) return absl::UnavailableError("not yet");
    return 7;
  };
  const absl::StatusOr<int> answer = AskLearner(stop, &clock, clock.Now() + absl::Minutes(1), call);
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_EQ(*answer, 7);
  EXPECT_EQ(calls, 4);
}

TEST(AskLearnerTest, EndsAtTheDeadlineWithTheLastError) {
  FakeClock clock;
  Event stop;
  const absl::Time deadline = clock.Now() + absl::Seconds(5);
  const auto call = [&](absl::Time attempt) -> absl::StatusOr<int> {
    EXPECT_LE(attempt, deadline);
    clock.Advance(attempt - clock.Now());
    return absl::UnavailableError("refused");
  };
  EXPECT_EQ(AskLearner(stop, &clock, deadline, call).status(), absl::UnavailableError("refused"));
  EXPECT_EQ(clock.Now(), deadline);
}

TEST(AskLearnerTest, ARefusalIsFinal) {
  FakeClock clock;
  Event stop;
  int calls = 0;
  const auto call = [&](absl::Time) -> absl::StatusOr<int> {
    ++calls;
    return absl::FailedPreconditionError("other sizes");
  };
  EXPECT_EQ(AskLearner(stop, &clock, absl::InfiniteFuture(), call).status().code(),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(calls, 1);
}

TEST(AskLearnerTest, EndsSoonAfterStop) {
  FakeClock clock;
  Event stop;
  const absl::Time start = clock.Now();
  const auto call = [&](absl::Time deadline) -> absl::StatusOr<int> {
    clock.Advance(deadline - clock.Now());
    stop.Notify();
    return absl::DeadlineExceededError("no answer");
  };
  EXPECT_EQ(AskLearner(stop, &clock, absl::InfiniteFuture(), call).status().code(),
            absl::StatusCode::kCancelled);
  EXPECT_LE(clock.Now() - start, absl::Seconds(2));
}

TEST(LearnerWatchTest, JoinsAgainWhileTheLearnerIsAway) {
  TestPeers t;
  v1::TaskSizes sizes;
  sizes.set_action_dim(3);
  LearnerWatch watch(t.peers(), MakeJoinRequest(v1::ACTOR, 4, sizes));
  t.clock.Advance(absl::Seconds(20));
  EXPECT_TRUE(watch.Check().ok());
  EXPECT_TRUE(t.learner.joins().empty()) << "it was there all the time";
  t.parameters.SetStatus(absl::UnavailableError("gone"));
  for (int second = 0; second < 11; ++second) {
    EXPECT_TRUE(watch.Check().ok());
    t.clock.Advance(absl::Seconds(1));
  }
  ASSERT_EQ(t.learner.joins().size(), 2u);
  EXPECT_EQ(t.learner.joins()[1].index(), 4);
  EXPECT_EQ(t.learner.joins()[1].sizes().action_dim(), 3);
  t.clock.Advance(absl::Seconds(5));
  t.learner.SetError(absl::FailedPreconditionError("another task"));
  EXPECT_TRUE(absl::IsFailedPrecondition(watch.Check()));
}

TEST(LearnerWatchTest, ALearnerThatAnswersIsNotAwayThoughItPublishesNothing) {
  TestPeers t;
  LearnerWatch watch(t.peers(), MakeJoinRequest(v1::ACTOR, 4, {}));
  t.parameters.SetStatus(absl::UnavailableError("no parameters yet"));
  const auto pass = [&](absl::Duration time) {
    absl::Status status;
    for (const absl::Time end = t.clock.Now() + time; status.ok() && t.clock.Now() < end;) {
      t.clock.Advance(absl::Seconds(1));
      status = watch.Check();
    }
    return status;
  };
  EXPECT_EQ(pass(2 * kLearnerPatience), absl::OkStatus());
  t.learner.SetError(absl::UnavailableError("gone"));
  EXPECT_EQ(pass(kLearnerPatience - absl::Seconds(10)), absl::OkStatus());
  EXPECT_TRUE(absl::IsUnavailable(pass(absl::Seconds(11))));
}

}  // namespace
}  // namespace pompc
