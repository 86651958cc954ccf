#include "learner/service/roster.h"

#include <optional>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "learner/service/testing.h"

namespace pompc {
namespace {

using ::pompc::testing::JoinAs;
using ::pompc::testing::TestSizes;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class RosterTest : public ::testing::Test {
 protected:
  FakeClock clock_;
  Roster roster_{v1::RunConfig(), std::nullopt, {"replay:1"}, &clock_};
};

TEST_F(RosterTest, TheFirstToJoinTellsTheSizes) {
  EXPECT_EQ(roster_.AwaitSizes(clock_.Now()), std::nullopt);
  ASSERT_TRUE(roster_.Join(JoinAs(v1::ACTOR)).ok());
  const auto sizes = roster_.AwaitSizes(clock_.Now());
  ASSERT_TRUE(sizes.has_value());
  EXPECT_EQ(sizes->observation_dim(), 4);
}

TEST_F(RosterTest, OtherSizesAreRefusedAndBothAreNamed) {
  ASSERT_TRUE(roster_.Join(JoinAs(v1::ACTOR)).ok());
  v1::JoinRequest request = JoinAs(v1::ACTOR);
  request.mutable_sizes()->set_action_dim(6);
  const absl::Status refused = roster_.Join(request).status();
  EXPECT_TRUE(absl::IsFailedPrecondition(refused));
  EXPECT_THAT(refused.message(), HasSubstr("action_dim: 2"));
  EXPECT_THAT(refused.message(), HasSubstr("action_dim: 6"));
}

TEST_F(RosterTest, InLockStepASecondActorIsRefusedAndASuccessorIsNot) {
  v1::RunConfig config;
  config.mutable_actor()->set_max_parameter_lag_updates(0);
  Roster roster(config, std::nullopt, {}, &clock_);
  ASSERT_TRUE(roster.Join(JoinAs(v1::ACTOR)).ok());
  ASSERT_TRUE(roster.Join(JoinAs(v1::EVALUATOR)).ok());
  const absl::Status refused = roster.Join(JoinAs(v1::ACTOR)).status();
  EXPECT_TRUE(absl::IsFailedPrecondition(refused));
  EXPECT_THAT(refused.message(), HasSubstr("index: 1; this run is in lock-step"));
  v1::JoinRequest again = JoinAs(v1::ACTOR);
  again.set_index(0);
  EXPECT_TRUE(roster.Join(again).ok());
  EXPECT_THAT(roster.Join(JoinAs(v1::REANALYZE)).status().message(), HasSubstr("lock-step"));
}

TEST_F(RosterTest, ReanalyzeWorkersJoinWherePriorsAreRePlanned) {
  EXPECT_TRUE(roster_.Join(JoinAs(v1::REANALYZE)).ok());
  v1::RunConfig config;
  config.mutable_learning()->set_prior_source(v1::LearningConfig::REPLAY);
  Roster roster(config, std::nullopt, {}, &clock_);
  EXPECT_THAT(roster.Join(JoinAs(v1::REANALYZE)).status().message(), HasSubstr("prior_source"));
}

TEST_F(RosterTest, IndicesCountByRoleAndWriterIdsNeverRepeat) {
  const auto first = roster_.Join(JoinAs(v1::ACTOR));
  v1::JoinRequest own = JoinAs(v1::ACTOR);
  own.set_index(5);
  const auto chosen = roster_.Join(own);
  const auto third = roster_.Join(JoinAs(v1::ACTOR));
  EXPECT_FALSE(roster_.evaluator_joined());
  const auto evaluator = roster_.Join(JoinAs(v1::EVALUATOR));
  EXPECT_TRUE(roster_.evaluator_joined());
  EXPECT_EQ(first->index(), 0);
  EXPECT_EQ(chosen->index(), 5);
  EXPECT_EQ(third->index(), 6);
  EXPECT_EQ(evaluator->index(), 0);
  EXPECT_THAT(first->replay_addresses(), ElementsAre("replay:1"));
  EXPECT_LT(first->writer_id(), chosen->writer_id());
  EXPECT_LT(chosen->writer_id(), third->writer_id());

  v1::JoinRequest successor = JoinAs(v1::ACTOR);
  successor.set_index(5);
  EXPECT_EQ(chosen->predecessors(), 0);
  EXPECT_EQ(roster_.Join(successor)->predecessors(), 1);
  EXPECT_EQ(evaluator->predecessors(), 0);

  clock_.Advance(absl::Seconds(1));  // The learner starts again.
  Roster restarted(v1::RunConfig(), TestSizes(), {}, &clock_);
  EXPECT_GT(restarted.Join(own)->writer_id(), evaluator->writer_id());
}

TEST_F(RosterTest, ARepeatedJoinHasTheSameAnswer) {
  const v1::JoinRequest request = JoinAs(v1::ACTOR);
  const auto first = roster_.Join(request);
  ASSERT_TRUE(first.ok()) << first.status();
  const auto other = roster_.Join(JoinAs(v1::ACTOR));
  const auto repeated = roster_.Join(request);
  ASSERT_TRUE(repeated.ok()) << repeated.status();
  EXPECT_EQ(repeated->ShortDebugString(), first->ShortDebugString());
  EXPECT_EQ(other->index(), 1);
  EXPECT_EQ(roster_.Join(JoinAs(v1::ACTOR))->index(), 2);
  EXPECT_EQ(roster_.Join(JoinAs(v1::ACTOR))->writer_id(), first->writer_id() + 3);

  v1::JoinRequest own = request;  // By a relay, of whom it has served.
  own.set_index(0);
  EXPECT_EQ(roster_.Join(own)->writer_id(), first->writer_id());
  own.set_index(1);
  EXPECT_EQ(roster_.Join(own).status(),
            absl::InvalidArgumentError(absl::StrCat("nonce: ", request.nonce(),
                                                    " is that of ACTOR 0; must be another in each "
                                                    "join")));
  own = request;
  own.set_role(v1::EVALUATOR);
  EXPECT_TRUE(absl::IsInvalidArgument(roster_.Join(own).status()));
  EXPECT_FALSE(roster_.evaluator_joined());
}

TEST_F(RosterTest, InLockStepARepeatedJoinIsNoSecondActor) {
  v1::RunConfig config;
  config.mutable_actor()->set_max_parameter_lag_updates(0);
  Roster roster(config, std::nullopt, {}, &clock_);
  const v1::JoinRequest request = JoinAs(v1::ACTOR);
  ASSERT_TRUE(roster.Join(request).ok());
  const auto repeated = roster.Join(request);
  ASSERT_TRUE(repeated.ok()) << repeated.status();
  EXPECT_EQ(repeated->index(), 0);
}

TEST_F(RosterTest, NamesTheFieldThatIsOutOfRange) {
  const auto refusal = [this](auto change) {
    v1::JoinRequest request = JoinAs(v1::ACTOR);
    change(request);
    return roster_.Join(request).status().ToString();
  };
  EXPECT_THAT(refusal([](auto& r) { r.clear_role(); }), HasSubstr("INVALID_ARGUMENT: role"));
  EXPECT_THAT(refusal([](auto& r) { r.set_index(-1); }), HasSubstr("INVALID_ARGUMENT: index"));
  EXPECT_THAT(refusal([](auto& r) { r.clear_nonce(); }), HasSubstr("INVALID_ARGUMENT: nonce: 0"));
  EXPECT_THAT(refusal([](auto& r) { r.clear_sizes(); }), HasSubstr("sizes.observation_dim: 0"));
  EXPECT_THAT(refusal([](auto& r) { r.mutable_sizes()->set_action_dim(1'000'000'000); }),
              HasSubstr("sizes.action_dim"));
  EXPECT_THAT(refusal([](auto& r) { r.mutable_sizes()->set_episode_decisions(2); }),
              HasSubstr("shorter than learning.window"));
  EXPECT_THAT(refusal([](auto& r) { r.mutable_sizes()->set_can_terminate(true); }),
              HasSubstr("model.predict_termination"));
  EXPECT_EQ(roster_.AwaitSizes(clock_.Now()), std::nullopt);
}

}  // namespace
}  // namespace pompc
