#include "common/model/branch.h"

#include <gtest/gtest.h>

#include <vector>

namespace pompc {
namespace {

// So on a CPU, and outside Run().
TEST(BranchTest, WorkIsACallWhereThereAreNoStreams) {
  BranchStreams streams(at::kCPU);
  std::vector<int> order;
  const auto calls = [&] {
    const Branch branch(BranchStream::kTarget);
    const int result = branch.Run([&] {
      order.push_back(1);
      return 7;
    });
    order.push_back(2);
    branch.Join();
    branch.Uses(at::ones({2}));
    return result;
  };
  EXPECT_EQ(calls(), 7);
  EXPECT_EQ(streams.Run(calls), 7);
  EXPECT_EQ(order, (std::vector<int>{1, 2, 1, 2}));
}

class GpuBranchTest : public testing::Test {
 protected:
  void SetUp() override {
    if (!at::hasCUDA()) GTEST_SKIP() << "no GPU";
  }
};

// Long enough products that a stream which did not wait would read what is not there yet.
TEST_F(GpuBranchTest, ResultsAndGradientsAreThoseOfOneStream) {
  BranchStreams streams(at::kCUDA);
  const at::Tensor start = at::randn({1024, 1024}, at::kCUDA) / 32;
  const at::Tensor weight = (at::randn({1024, 1024}, at::kCUDA) / 32).requires_grad_(true);
  const auto chain = [&](at::Tensor x) {
    for (int i = 0; i < 4; ++i) x = at::tanh(at::mm(x, weight));
    return x;
  };
  const auto work = [&] {
    weight.mutable_grad() = at::Tensor();
    const Branch first(BranchStream::kTarget), second(BranchStream::kLosses);
    const at::Tensor x = at::tanh(start);
    first.Uses(x);
    const at::Tensor a = first.Run([&] { return chain(x); });
    const at::Tensor b = chain(2 * x);
    const at::Tensor c = second.Run([&] {
      first.Join();
      return chain(a);
    });
    second.Join();
    (a * b + c).sum().backward();
    return std::vector<at::Tensor>{b + c, weight.grad().clone()};
  };
  const std::vector<at::Tensor> expected = work();
  for (int i = 0; i < 20; ++i) {
    const std::vector<at::Tensor> got = streams.Run(work);
    EXPECT_TRUE(got[0].equal(expected[0]));
    EXPECT_TRUE(at::allclose(got[1], expected[1], 1e-4, 1e-5));
  }
}

}  // namespace
}  // namespace pompc
