#include "common/base/file.h"

#include <filesystem>

#include "gtest/gtest.h"

namespace pompc {
namespace {

class FileTest : public testing::Test {
 protected:
  FileTest() { std::filesystem::create_directories(folder_); }
  ~FileTest() override { std::filesystem::remove_all(folder_); }

  const std::string folder_ =
      testing::TempDir() + testing::UnitTest::GetInstance()->current_test_info()->name();
};

TEST_F(FileTest, ReadsBackWhatWasWritten) {
  const std::string path = folder_ + "/blob";
  const std::string content = std::string("a\0b\n", 4) + std::string(1 << 18, 'x');
  ASSERT_TRUE(WriteFileAtomically(path, "older").ok());
  ASSERT_TRUE(WriteFileAtomically(path, content).ok());
  EXPECT_EQ(ReadFile(path).value(), content);
  ASSERT_TRUE(WriteFileAtomically(path, "").ok());
  EXPECT_EQ(ReadFile(path).value(), "");
}

TEST_F(FileTest, LeavesNoTemporaryFileBehind) {
  ASSERT_TRUE(WriteFileAtomically(folder_ + "/a", "1").ok());
  // A non-empty folder in the way makes the rename fail.
  std::filesystem::create_directories(folder_ + "/b/c");
  EXPECT_FALSE(WriteFileAtomically(folder_ + "/b", "1").ok());
  EXPECT_FALSE(std::filesystem::exists(folder_ + "/a.tmp"));
  EXPECT_FALSE(std::filesystem::exists(folder_ + "/b.tmp"));
  EXPECT_TRUE(std::filesystem::exists(folder_ + "/b/c"));
}

TEST_F(FileTest, ErrorsCarryTheCodeAndThePath) {
  const std::string path = folder_ + "/missing/file";
  EXPECT_EQ(ReadFile(path).status().code(), absl::StatusCode::kNotFound);
  const absl::Status status = WriteFileAtomically(path, "1");
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_NE(status.message().find(path), std::string::npos);
  EXPECT_TRUE(SyncFolder(folder_).ok());
  EXPECT_EQ(SyncFolder(folder_ + "/missing").code(), absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace pompc
