#include "common/base/signal.h"

#include <signal.h>

#include <cstdlib>

#include "gtest/gtest.h"

namespace pompc {
namespace {

// Each body runs in a process of its own: what it installs is process-wide.
TEST(TerminationRequestDeathTest, FirstSignalRaisesTheEvent) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  for (int signal : {SIGTERM, SIGINT, SIGHUP}) {
    EXPECT_EXIT(
        {
          ::signal(SIGHUP, SIG_DFL);  // Whatever runs this test.
          const Event& stop = TerminationRequest();
          if (stop.HasBeenNotified()) std::exit(1);
          raise(signal);
          stop.Wait();
          std::_Exit(7);
        },
        testing::ExitedWithCode(7), "asked to stop signal=");
  }
}

TEST(TerminationRequestDeathTest, SecondSignalEndsTheProcess) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(
      {
        TerminationRequest();
        raise(SIGTERM);
        raise(SIGTERM);
      },
      testing::ExitedWithCode(128 + SIGTERM), "");
}

// A terminal that closes sends it to the shell's jobs, and again to whoever is in the foreground.
TEST(TerminationRequestDeathTest, HangUpsDoNotCutOffAnOrderlyEnd) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(
      {
        ::signal(SIGHUP, SIG_DFL);
        const Event& stop = TerminationRequest();
        for (int signal : {SIGHUP, SIGTERM, SIGHUP}) raise(signal);
        stop.Wait();
        std::_Exit(7);
      },
      testing::ExitedWithCode(7), "");
}

TEST(TerminationRequestDeathTest, HangUpStaysIgnoredUnderNohup) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(
      {
        ::signal(SIGHUP, SIG_IGN);
        const Event& stop = TerminationRequest();
        raise(SIGHUP);
        raise(SIGTERM);
        stop.Wait();
        std::_Exit(7);
      },
      testing::ExitedWithCode(7), "asked to stop signal=15");
}

}  // namespace
}  // namespace pompc
