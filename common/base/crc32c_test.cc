#include "common/base/crc32c.h"

#include <string>

#include "common/base/rng.h"
#include "gtest/gtest.h"

namespace pompc {
namespace {

// RFC 3720 appendix B.4, and the check value of the CRC catalogue ("123456789").
TEST(Crc32cTest, MatchesPublishedVectors) {
  std::string ascending;
  for (int i = 0; i < 32; ++i) ascending.push_back(static_cast<char>(i));
  EXPECT_EQ(Crc32c(""), 0u);
  EXPECT_EQ(Crc32c("123456789"), 0xE3069283u);
  EXPECT_EQ(Crc32c(std::string(32, '\0')), 0x8A9136AAu);
  EXPECT_EQ(Crc32c(std::string(32, '\xff')), 0x62A8AB43u);
  EXPECT_EQ(Crc32c(ascending), 0x46DD794Eu);
}

TEST(Crc32cTest, PathsAgreeAndChecksumsExtendAtAnySplit) {
  Rng rng(1, RngRole::kTest, 0, 0);
  std::string data(67, '\0');
  for (char& c : data) c = static_cast<char>(rng());
  const uint32_t whole = Crc32c(data);
  EXPECT_EQ(whole, internal::Crc32cPortable(data, 0));
  for (size_t split = 0; split <= data.size(); ++split) {
    const std::string_view view(data);
    EXPECT_EQ(Crc32c(view.substr(split), Crc32c(view.substr(0, split))), whole) << split;
  }
}

}  // namespace
}  // namespace pompc
