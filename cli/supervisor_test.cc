#include "cli/supervisor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <algorithm>
#include <filesystem>
#include <string>
#include <vector>

#include "common/base/clock.h"
#include "common/base/file.h"

namespace pompc {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

class SupervisorTest : public testing::Test {
 protected:
  void SetUp() override {
    dir_ = testing::TempDir() + "/supervisor_test_" +
           testing::UnitTest::GetInstance()->current_test_info()->name();
    std::filesystem::remove_all(dir_);
    std::filesystem::create_directories(dir_);
  }

  Supervisor Make() {
    return Supervisor(dir_, RealClock(),
                      [this](const std::string& line) { reports_.push_back(line); });
  }
  static std::vector<std::string> Shell(const std::string& script) {
    return {"/bin/sh", "-c", script};
  }
  // Says "ready", then runs `script` when it is asked to end.
  static std::vector<std::string> OnTerm(const std::string& script) {
    return Shell("trap '" + script + "' TERM; echo ready; while :; do sleep 0.05; done");
  }
  // Ticks until `done` or 20 s have passed.
  template <typename Done>
  absl::Status TickUntil(Supervisor& supervisor, Done done) {
    const absl::Time deadline = RealClock()->Now() + absl::Seconds(20);
    while (!done() && RealClock()->Now() < deadline) {
      if (absl::Status s = supervisor.Tick(); !s.ok()) return s;
      RealClock()->SleepUntil(RealClock()->Now() + absl::Milliseconds(10));
    }
    return done() ? absl::OkStatus() : absl::DeadlineExceededError("condition never held");
  }
  absl::Status TickUntilReady(Supervisor& supervisor, const std::vector<std::string>& names) {
    return TickUntil(supervisor, [&] {
      return std::all_of(names.begin(), names.end(), [&](const std::string& name) {
        return ReadFile(supervisor.LogPath(name)).value_or("") == "ready\n";
      });
    });
  }

  std::string dir_;
  std::vector<std::string> reports_;
};

TEST_F(SupervisorTest, CleanExitOfAChildThatMayLeaveIsItsEnd) {
  Supervisor supervisor = Make();
  ASSERT_TRUE(supervisor.Add({"a", Shell("echo hello"), /*may_leave=*/true}).ok());
  EXPECT_TRUE(TickUntil(supervisor, [&] { return supervisor.HasLeft("a"); }).ok());
  EXPECT_EQ(*ReadFile(supervisor.LogPath("a")), "hello\n");
  EXPECT_THAT(reports_, IsEmpty());
}

TEST_F(SupervisorTest, CrashedChildIsStartedAgain) {
  Supervisor supervisor = Make();
  ASSERT_TRUE(supervisor.Add({"a", Shell("mkdir " + dir_ + "/once && exit 3; exit 0"), true}).ok());
  EXPECT_TRUE(TickUntil(supervisor, [&] { return supervisor.HasLeft("a"); }).ok());
  EXPECT_EQ(supervisor.restarts(), 1);
  EXPECT_THAT(reports_,
              ElementsAre(HasSubstr("a ended: exit code 3"), HasSubstr("a started again")));
}

TEST_F(SupervisorTest, WhatFailsAgainAndAgainIsGivenUp) {
  FakeClock clock;
  Supervisor supervisor(dir_, &clock, [](const std::string&) {});
  ASSERT_TRUE(supervisor.Add({"a", Shell("echo no luck; exit 3")}).ok());
  absl::Status end;
  const absl::Time deadline = RealClock()->Now() + absl::Seconds(60);
  while (end.ok() && RealClock()->Now() < deadline) {
    end = supervisor.Tick();
    clock.Advance(absl::Milliseconds(10));
    RealClock()->SleepUntil(RealClock()->Now() + absl::Milliseconds(2));
  }
  EXPECT_EQ(end.code(), absl::StatusCode::kAborted);
  EXPECT_THAT(std::string(end.message()), HasSubstr("a failed 5 times in a row (exit code 3)"));
  EXPECT_THAT(std::string(end.message()), HasSubstr("\nno luck"));
  EXPECT_EQ(supervisor.restarts(), Supervisor::kMaxFailures - 1);
}

TEST_F(SupervisorTest, WhatCannotDoWhatItWasToldIsGivenUpAtOnce) {
  Supervisor supervisor = Make();
  ASSERT_TRUE(supervisor.Add({"a", Shell("echo no such device; exit 2")}).ok());
  const absl::Status end = TickUntil(supervisor, [] { return false; });
  EXPECT_EQ(end.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(end.message()), HasSubstr("a cannot do what it was told"));
  EXPECT_THAT(std::string(end.message()), HasSubstr("\nno such device"));
  EXPECT_EQ(supervisor.restarts(), 0);
}

// Then it could at first.
TEST_F(SupervisorTest, ExitCodeTwoAfterARestartIsAFailureLikeOthers) {
  Supervisor supervisor = Make();
  ASSERT_TRUE(
      supervisor
          .Add({"a",
                Shell("mkdir " + dir_ + "/1 && exit 3; mkdir " + dir_ + "/2 && exit 2; exit 0"),
                true})
          .ok());
  EXPECT_TRUE(TickUntil(supervisor, [&] { return supervisor.HasLeft("a"); }).ok());
  EXPECT_EQ(supervisor.restarts(), 2);
}

TEST_F(SupervisorTest, KilledChildIsReportedBySignal) {
  Supervisor supervisor = Make();
  ASSERT_TRUE(supervisor.Add({"a", Shell("kill -9 $$"), true}).ok());
  EXPECT_TRUE(TickUntil(supervisor, [&] { return !reports_.empty(); }).ok());
  EXPECT_THAT(reports_.front(), HasSubstr("killed by signal 9"));
}

TEST_F(SupervisorTest, ProgramThatDoesNotExistIsAnErrorWithItsName) {
  Supervisor supervisor = Make();
  const absl::Status status = supervisor.Add({"a", {"/no/such/program"}, true});
  EXPECT_TRUE(absl::IsNotFound(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("/no/such/program"));
}

TEST_F(SupervisorTest, StopEndsHigherTiersFirstAndKillsTheStubborn) {
  Supervisor supervisor = Make();
  const std::string order = dir_ + "/order";
  const auto polite = [&](const std::string& name) {
    return OnTerm("echo " + name + " >> " + order + "; exit 0");
  };
  ASSERT_TRUE(supervisor.Add({"learner", polite("learner"), true, /*tier=*/1}).ok());
  ASSERT_TRUE(supervisor.Add({"actor", polite("actor"), true, /*tier=*/2}).ok());
  ASSERT_TRUE(supervisor.Add({"stubborn", OnTerm(""), true, /*tier=*/2}).ok());
  ASSERT_TRUE(supervisor.Add({"replay", polite("replay"), false, /*tier=*/0}).ok());
  ASSERT_TRUE(TickUntilReady(supervisor, {"learner", "actor", "stubborn", "replay"}).ok());
  supervisor.Stop(absl::Seconds(2));
  EXPECT_EQ(*ReadFile(order), "actor\nlearner\nreplay\n");
  EXPECT_THAT(reports_, ElementsAre(HasSubstr("stubborn did not leave")));
}

TEST_F(SupervisorTest, StopAsksAllOfATierTogether) {
  Supervisor supervisor = Make();
  // Each leaves once the other has been asked to.
  const auto after = [&](const std::string& self, const std::string& other) {
    return OnTerm("touch " + dir_ + "/" + self + "; until [ -e " + dir_ + "/" + other +
                  " ]; do sleep 0.05; done; exit 0");
  };
  ASSERT_TRUE(supervisor.Add({"a", after("a", "b"), true}).ok());
  ASSERT_TRUE(supervisor.Add({"b", after("b", "a"), true}).ok());
  ASSERT_TRUE(TickUntilReady(supervisor, {"a", "b"}).ok());
  supervisor.Stop(absl::Seconds(20));
  EXPECT_THAT(reports_, IsEmpty());
}

TEST_F(SupervisorTest, TailGivesTheLastLines) {
  ASSERT_TRUE(WriteFileAtomically(dir_ + "/log", "1\n2\n3\n").ok());
  EXPECT_EQ(TailOfFile(dir_ + "/log", 2), "2\n3");
  EXPECT_EQ(TailOfFile(dir_ + "/log", 9), "1\n2\n3");
  EXPECT_EQ(TailOfFile(dir_ + "/none", 9), "");
}

TEST_F(SupervisorTest, WaitsOnlyForThoseThatMayLeave) {
  Supervisor supervisor = Make();
  ASSERT_TRUE(supervisor.Add({"server", Shell("exec sleep 1000"), /*may_leave=*/false}).ok());
  ASSERT_TRUE(supervisor.Add({"worker", Shell("exit 0"), /*may_leave=*/true}).ok());
  supervisor.AwaitLeave(absl::InfiniteDuration());
  ASSERT_TRUE(supervisor.Tick().ok());
  EXPECT_TRUE(supervisor.HasLeft("worker"));
  EXPECT_THAT(reports_, IsEmpty()) << "the server was ended";
}

}  // namespace
}  // namespace pompc
