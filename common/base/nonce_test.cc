#include "common/base/nonce.h"

#include <set>

#include "gtest/gtest.h"

namespace pompc {
namespace {

TEST(NonceTest, NoTwoAreTheSame) {
  std::set<uint64_t> drawn;
  for (int i = 0; i < 1000; ++i) drawn.insert(DrawNonce());
  EXPECT_EQ(drawn.size(), 1000u);  // Of 2^64: equal ones once in 10^13 tests.
  EXPECT_FALSE(drawn.contains(0));
}

}  // namespace
}  // namespace pompc
