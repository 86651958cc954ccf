#include "common/model/checkpoint.h"

#include <cstring>
#include <filesystem>

#include "common/base/file.h"
#include "gtest/gtest.h"

namespace pompc {
namespace {

class CheckpointTest : public testing::Test {
 protected:
  std::string Path() const {
    return (std::filesystem::path(testing::TempDir()) /
            testing::UnitTest::GetInstance()->current_test_info()->name())
        .string();
  }
};

Checkpoint Sample() {
  Checkpoint checkpoint;
  checkpoint.tensors["policy.0.weight"] = at::arange(6, at::kFloat).view({2, 3}) / 7;
  checkpoint.tensors["double"] = at::arange(3, at::kDouble) / 3;
  checkpoint.tensors["updates"] = at::scalar_tensor(1234567890123, at::kLong);
  checkpoint.tensors["empty"] = at::zeros({0}, at::kFloat);
  checkpoint.metadata["config"] = "task: \"walker\"\n";
  return checkpoint;
}

TEST_F(CheckpointTest, LoadsWhatWasSaved) {
  const Checkpoint saved = Sample();
  ASSERT_TRUE(SaveCheckpoint(saved, Path()).ok());
  const auto loaded = LoadCheckpoint(Path());
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_EQ(loaded->metadata, saved.metadata);
  ASSERT_EQ(loaded->tensors.size(), saved.tensors.size());
  for (const auto& [name, tensor] : saved.tensors) {
    EXPECT_TRUE(at::equal(loaded->tensors.at(name), tensor)) << name;
    EXPECT_EQ(loaded->tensors.at(name).scalar_type(), tensor.scalar_type()) << name;
  }
}

TEST_F(CheckpointTest, WritesTheSafetensorsFormat) {
  Checkpoint checkpoint;
  checkpoint.tensors["a"] = at::full({2}, 1.5, at::kFloat);
  ASSERT_TRUE(SaveCheckpoint(checkpoint, Path()).ok());
  const std::string file = *ReadFile(Path());
  uint64_t length = 0;
  std::memcpy(&length, file.data(), 8);
  EXPECT_EQ(length % 8, 0u);
  ASSERT_EQ(file.size(), 8 + length + 8);
  const std::string header = file.substr(8, length);
  for (const char* part :
       {"\"a\"", "\"dtype\":\"F32\"", "\"shape\":[2]", "\"data_offsets\":[0,8]"}) {
    EXPECT_NE(header.find(part), std::string::npos) << header;
  }
}

TEST_F(CheckpointTest, ReportsDamagedFiles) {
  EXPECT_EQ(LoadCheckpoint(Path() + "-missing").status().code(), absl::StatusCode::kNotFound);
  ASSERT_TRUE(SaveCheckpoint(Sample(), Path()).ok());
  const std::string file = *ReadFile(Path());
  for (const size_t size : {size_t{3}, size_t{20}, file.size() - 1}) {
    ASSERT_TRUE(WriteFileAtomically(Path(), file.substr(0, size)).ok());
    EXPECT_EQ(LoadCheckpoint(Path()).status().code(), absl::StatusCode::kDataLoss) << size;
  }
}

}  // namespace
}  // namespace pompc
