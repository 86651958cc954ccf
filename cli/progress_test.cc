#include "cli/progress.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "absl/strings/str_split.h"

namespace pompc {
namespace {

using testing::HasSubstr;
using testing::Not;

v1::RunStatus Training() {
  v1::RunStatus s;
  s.set_phase("training");
  s.set_decisions(5000);
  s.set_total_decisions(20000);
  s.set_env_steps(10000);
  s.set_updates(4990);
  s.set_decisions_per_second(50);
  s.set_updates_per_second(50);
  s.set_updates_per_decision(0.998);
  s.set_episodes(10);
  s.set_training_return(321.5);
  s.set_evaluation_decisions(-1);
  s.set_seconds(100);
  return s;
}

TEST(ProgressTest, NumbersAreGroupedInThousands) {
  EXPECT_EQ(WithThousands(0), "0");
  EXPECT_EQ(WithThousands(999), "999");
  EXPECT_EQ(WithThousands(1000), "1,000");
  EXPECT_EQ(WithThousands(-1234567), "-1,234,567");
}

TEST(ProgressTest, DurationsAreShort) {
  EXPECT_EQ(ShortDuration(0), "0:00");
  EXPECT_EQ(ShortDuration(125.4), "2:05");
  EXPECT_EQ(ShortDuration(3725), "1:02:05");
}

TEST(ProgressTest, EtaFollowsFromTheRateOnceTraining) {
  v1::RunStatus s = Training();
  EXPECT_DOUBLE_EQ(RemainingSeconds(s), 300);
  EXPECT_THAT(ProgressLine(s), HasSubstr("ETA 5:00"));
  s.set_phase("seeding");
  EXPECT_LT(RemainingSeconds(s), 0);
  EXPECT_THAT(ProgressLine(s), HasSubstr("ETA -"));
}

TEST(ProgressTest, EvaluationShowsOnlyOnceMade) {
  v1::RunStatus s = Training();
  EXPECT_THAT(ProgressLine(s), Not(HasSubstr("eval")));
  EXPECT_THAT(ProgressPanel("t", s, 80), HasSubstr("none yet"));
  s.set_evaluation_decisions(2500);
  s.set_evaluation_return(812.3);
  s.set_best_evaluation_return(812.3);
  EXPECT_THAT(ProgressLine(s), HasSubstr("eval 812.3"));
  EXPECT_THAT(ProgressPanel("t", s, 80), HasSubstr("812.3 (at 2,500 decisions"));
}

TEST(ProgressTest, ParameterLagAndSampleAgeAreTwoThings) {
  v1::RunStatus s = Training();
  s.set_parameter_lag_updates(12);
  s.set_sample_age_updates(340.2);
  EXPECT_THAT(ProgressLine(s), HasSubstr("parameter lag 12 sample age 340"));
  EXPECT_THAT(ProgressPanel("t", s, 80), HasSubstr("parameter lag 12 updates\n"));
  EXPECT_THAT(ProgressPanel("t", s, 80), HasSubstr("sample age 340 updates\n"));
}

TEST(ProgressTest, PanelKeepsToTheTerminalsWidth) {
  for (const auto line :
       absl::StrSplit(ProgressPanel(std::string(200, 'x'), Training(), 40), '\n')) {
    EXPECT_LE(line.size(), 40u);
  }
}

}  // namespace
}  // namespace pompc
