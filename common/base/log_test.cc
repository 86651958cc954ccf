#include "common/base/log.h"

#include <vector>

#include "absl/status/statusor.h"
#include "common/base/check.h"
#include "common/base/status_macros.h"
#include "gtest/gtest.h"

namespace pompc {
namespace {

TEST(LogTest, LinesNameProcessAndPlaceAndAreCounted) {
  InitLogging("actor-3");
  const int64_t before = LogLineCount(LogSeverity::WARNING);
  testing::internal::CaptureStderr();
  POMPC_LOG(WARNING) << "slow plan seconds=" << 2;
  const std::string line = testing::internal::GetCapturedStderr();
  EXPECT_EQ(LogLineCount(LogSeverity::WARNING), before + 1);
  EXPECT_NE(line.find(" actor-3 log_test.cc:"), std::string::npos) << line;
  EXPECT_NE(line.find(" slow plan seconds=2\n"), std::string::npos) << line;
}

TEST(CheckDeathTest, FailureNamesConditionAndMessage) {
  const int size = 3;
  EXPECT_DEATH(POMPC_CHECK(size == 4) << "size=" << size, "check failed.*size == 4.*size=3");
  EXPECT_DEATH(POMPC_CHECK_OK(absl::InternalError("broken")), "INTERNAL: broken");
}

TEST(CheckTest, MessageIsNotEvaluatedWhenTheConditionHolds) {
  int evaluated = 0;
  POMPC_CHECK(true) << ++evaluated;
  EXPECT_EQ(evaluated, 0);
}

absl::Status Forward(const absl::Status& status) {
  POMPC_RETURN_IF_ERROR(status);
  return absl::AlreadyExistsError("went on");
}

absl::StatusOr<int> Increment(absl::StatusOr<int> number) {
  POMPC_ASSIGN_OR_RETURN(const int n, std::move(number));
  return n + 1;
}

TEST(StatusMacrosTest, ReturnEarlyOnErrorOnly) {
  EXPECT_EQ(Forward(absl::DataLossError("x")), absl::DataLossError("x"));
  EXPECT_EQ(Forward(absl::OkStatus()), absl::AlreadyExistsError("went on"));
  EXPECT_EQ(Increment(1).value(), 2);
  EXPECT_EQ(Increment(absl::DataLossError("x")).status(), absl::DataLossError("x"));
}

}  // namespace
}  // namespace pompc
