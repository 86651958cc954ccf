// The recorded numbers of the published implementations (tests/fixtures/algorithm), for tests: one
// case is a set of named tensors; README.md beside them says what each is.
#ifndef POMPC_COMMON_MODEL_ALGORITHM_FIXTURE_H_
#define POMPC_COMMON_MODEL_ALGORITHM_FIXTURE_H_

#include <deque>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "common/model/noise.h"
#include "common/model/parameters.h"
#include "common/model/tensor.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "proto/pompc/v1/config.pb.h"

namespace pompc {

// Names of the cases in which the regular expression is found, in the subfolder "algorithm" of the
// folders of the environment variable POMPC_FIXTURES (colon-separated; default: tests/fixtures of
// the repository).
std::vector<std::string> FixtureCases(const std::string& pattern);

class AlgorithmFixture {
 public:
  explicit AlgorithmFixture(const std::string& name);

  bool Has(const std::string& key) const { return tensors_.count(key) > 0; }
  const at::Tensor& operator[](const std::string& key) const;
  double Config(const std::string& name) const { return (*this)["cfg/" + name].item<double>(); }
  // The name of the algorithm: "tdmpc2", "bmpc" or "tdmpc_square".
  const std::string& algorithm() const { return algorithm_; }
  bool is_double() const { return dtype_ == at::kDouble; }
  at::TensorOptions options() const { return dtype_; }
  const std::map<std::string, at::Tensor>& tensors() const { return tensors_; }

  // Our config of the case.
  v1::RunConfig RunConfig() const;
  ModelSpec Spec() const;
  // Under `prefix` ("w/", "u0/grad/", "u0/after/"), the recorded tensor of our parameter `name`,
  // or of its target; undefined if the case does not hold it.
  at::Tensor Parameter(const std::string& prefix, const std::string& name, bool target) const;
  // Writes the initial weights into every view.
  void LoadWeights(Parameters& parameters) const;

 private:
  std::map<std::string, at::Tensor> tensors_;
  std::string algorithm_;
  at::ScalarType dtype_;
};

// Gives recorded draws in the order in which they were added; fails on a draw of another size.
class ReplayNoise final : public Noise {
 public:
  explicit ReplayNoise(at::Device device = at::kCPU) : device_(device) {}
  void Add(const at::Tensor& draw) { draws_.push_back(draw); }
  bool empty() const { return draws_.empty(); }

  at::Tensor Normal(at::IntArrayRef shape) override;
  at::Tensor Heads(int64_t num_heads) override;
  // From Exp(1) draws [B, E], or by inverse CDF from one uniform draw (TD-M(PC)^2).
  at::Tensor Index(const at::Tensor& probability) override;
  void FillNormal(at::Tensor& out) override;
  void FillHeads(int64_t num_heads, std::array<int64_t, 2>& heads) override;
  void FillIndex(const at::Tensor& probability, std::vector<int64_t>& index) override;
  at::Tensor DropoutMask(at::IntArrayRef shape, double rate) override;
  std::optional<uint64_t> KernelSeed() override { return std::nullopt; }

 private:
  at::Tensor Next();
  const at::Device device_;
  std::deque<at::Tensor> draws_;
};

// |actual - expected| <= tolerance * (largest |expected|), shapes equal up to dimensions of 1.
testing::AssertionResult Close(const at::Tensor& actual, const at::Tensor& expected,
                               double tolerance);
// |actual - expected| <= tolerance.
testing::AssertionResult CloseAbsolute(const at::Tensor& actual, const at::Tensor& expected,
                                       double tolerance);

}  // namespace pompc

#endif  // POMPC_COMMON_MODEL_ALGORITHM_FIXTURE_H_
