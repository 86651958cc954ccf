#include "common/model/device.h"

#include <ATen/Parallel.h>
#include <stdlib.h>  // setenv

#include <string>

#include "common/base/thread.h"
#include "gtest/gtest.h"

namespace pompc {
namespace {

TEST(SeparateStreamsTest, KeepsWhatTheUserSays) {
  constexpr char kName[] = "CUDA_DEVICE_MAX_CONNECTIONS";
  unsetenv(kName);
  SeparateStreams();
  EXPECT_STREQ(getenv(kName), "32");
  setenv(kName, "4", 1);
  SeparateStreams();
  EXPECT_STREQ(getenv(kName), "4");
  unsetenv(kName);
}

TEST(SetCpuThreadsTest, OtherThreadsDoNotTakeItBack) {
  const int before = at::get_num_threads();
  int computing = 0;
  Thread("first", [&] {
    SetCpuThreads(3);
    Thread("second", [] { SetCpuThreads(2); }).Join();
    computing = at::get_num_threads();
  }).Join();
  EXPECT_EQ(computing, 3);
  EXPECT_EQ(at::get_num_threads(), before) << "of this thread";
  SetCpuThreads(before);  // Of threads to come.
}

TEST(FindDeviceTest, NamesTheFieldOfADeviceThatIsMissing) {
  EXPECT_TRUE(FindDevice("learner.device", "cpu").ok());
  for (const char* name : {"cuda:63", "tpu"}) {
    const absl::Status status = FindDevice("learner.device", name).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << name;
    EXPECT_NE(status.message().find("learner.device: cannot use \"" + std::string(name)),
              std::string::npos)
        << status;
  }
}

}  // namespace
}  // namespace pompc
