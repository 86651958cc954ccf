#include "common/base/address.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace pompc {
namespace {

TEST(AddressTest, SplitsHostAndPort) {
  const auto split = [](const char* address) {
    const HostPort parts = SplitAddress(address);
    return parts.host + " " + parts.port;
  };
  EXPECT_EQ(split("learner.lab:7000"), "learner.lab 7000");
  EXPECT_EQ(split("[::1]:7000"), "::1 7000");
  EXPECT_EQ(split(":7000"), " 7000");
  EXPECT_EQ(split("learner"), "learner ");
  EXPECT_EQ(split("unix:/run/x:1"), " ");
}

TEST(AddressTest, RefusesWhatHasNoPortOrPath) {
  for (const char* address :
       {"learner:7000", "127.0.0.1:0", "[::]:65535", ":7301", "unix:/run/x"}) {
    EXPECT_TRUE(CheckAddress(address).ok()) << address;
  }
  for (const char* address :
       {"learner", "learner:", "learner:http", "learner:65536", "learner:-1", "learner:0x10",
        "learner: 7", "learner:70000000000", "", "unix:", "::1", "fe80::1:7000"}) {
    const absl::Status refused = CheckAddress(address);
    EXPECT_TRUE(absl::IsInvalidArgument(refused)) << address;
    EXPECT_THAT(std::string(refused.message()), testing::HasSubstr(address));
  }
}

}  // namespace
}  // namespace pompc
