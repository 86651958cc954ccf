#include "learner/client/learner_watch.h"

#include <optional>

#include "gtest/gtest.h"
#include "learner/client/fake_learner_client.h"

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

// A join of the actor with index 4.
v1::JoinRequest JoinAsFour() {
  v1::JoinRequest join;
  join.set_role(v1::ACTOR);
  join.set_index(4);
  join.mutable_sizes()->set_action_dim(3);
  return join;
}

TEST(LearnerWatchTest, JoinsAgainWhileTheLearnerIsAway) {
  FakeClock clock;
  FakeLearnerClient learner({});
  LearnerWatch watch(&learner, &clock);
  const v1::JoinRequest join = JoinAsFour();
  clock.Advance(absl::Seconds(20));
  EXPECT_TRUE(watch.Check(absl::OkStatus(), &join).ok());
  EXPECT_TRUE(learner.joins().empty()) << "it was there all the time";
  const absl::Status gone = absl::UnavailableError("gone");
  for (int second = 0; second < 11; ++second) {
    EXPECT_TRUE(watch.Check(gone, &join).ok());
    clock.Advance(absl::Seconds(1));
  }
  ASSERT_EQ(learner.joins().size(), 2u);
  EXPECT_EQ(learner.joins()[1].index(), 4);
  EXPECT_EQ(learner.joins()[1].sizes().action_dim(), 3);
  clock.Advance(absl::Seconds(5));
  learner.SetError(absl::FailedPreconditionError("another task"));
  EXPECT_TRUE(absl::IsFailedPrecondition(watch.Check(gone, &join)));
}

// Before anybody has joined, too.
class AnsweringLearnerTest : public ::testing::TestWithParam<std::optional<v1::JoinRequest>> {
 protected:
  const std::optional<v1::JoinRequest> joined_ = GetParam();
  const v1::JoinRequest* const join_ = joined_.has_value() ? &*joined_ : nullptr;
};
INSTANTIATE_TEST_SUITE_P(LearnerWatchTest, AnsweringLearnerTest,
                         ::testing::Values(JoinAsFour(), std::nullopt));

TEST_P(AnsweringLearnerTest, IsNotAwayThoughItPublishesNothing) {
  FakeClock clock;
  FakeLearnerClient learner({});
  LearnerWatch watch(&learner, &clock);
  const auto pass = [&](absl::Duration time) {
    absl::Status status;
    for (const absl::Time end = clock.Now() + time; status.ok() && clock.Now() < end;) {
      clock.Advance(absl::Seconds(1));
      status = watch.Check(absl::UnavailableError("no parameters yet"), join_);
    }
    return status;
  };
  EXPECT_EQ(pass(2 * kLearnerPatience), absl::OkStatus());
  learner.SetError(absl::UnavailableError("gone"));
  EXPECT_EQ(pass(kLearnerPatience - absl::Seconds(10)), absl::OkStatus());
  EXPECT_TRUE(absl::IsUnavailable(pass(absl::Seconds(16))));
}

TEST_P(AnsweringLearnerTest, IsNotAwayWhileNobodyLooks) {
  FakeClock clock;
  FakeLearnerClient learner({});
  LearnerWatch watch(&learner, &clock);
  const absl::Status gone = absl::UnavailableError("gone");
  learner.SetError(gone);
  clock.Advance(2 * kLearnerPatience);
  EXPECT_EQ(watch.Check(gone, join_), absl::OkStatus()) << "it may have been away for a second";
  clock.Advance(kLearnerPatience - absl::Seconds(1));
  EXPECT_EQ(watch.Check(gone, join_), absl::OkStatus());
  clock.Advance(2 * kLearnerPatience);
  learner.SetError(absl::OkStatus());
  EXPECT_EQ(watch.Check(gone, join_), absl::OkStatus()) << "it is back, when asked";
}

}  // namespace
}  // namespace pompc
