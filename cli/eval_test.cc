#include "cli/eval.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "cli/in_process_run.h"
#include "common/config/config.h"

namespace pompc {
namespace {

// Of a run that has just begun, whose actors have planned on `device`. Returns its path.
std::string Checkpoint(const std::string& device) {
  const absl::StatusOr<v1::RunConfig> config =
      LoadRunConfig("quickstart", "", {"environment.episode_steps=20"});
  EXPECT_TRUE(config.ok()) << config.status();
  const absl::StatusOr<std::unique_ptr<InProcessRun>> run = InProcessRun::Create(*config);
  EXPECT_TRUE(run.ok()) << run.status();
  RunCheckpoint checkpoint{.config = *config, .books = {}, .state = (*run)->Save()};
  checkpoint.config.mutable_actor()->set_device(device);
  *checkpoint.books.mutable_sizes() = (*run)->sizes();
  const std::string path = testing::TempDir() + "/eval_test.safetensors";
  const absl::Status saved = SaveRunCheckpoint(checkpoint, path);
  EXPECT_TRUE(saved.ok()) << saved;
  return path;
}

TEST(EvalTest, PlansOnTheCpuWhateverTheRunDid) {
  const absl::Status status = Evaluate({.checkpoint = Checkpoint("cuda:99"), .episodes = 1});
  EXPECT_TRUE(status.ok()) << status;
}

TEST(EvalTest, RefusesADeviceThatIsNotThereByItsFlag) {
  const absl::Status status =
      Evaluate({.checkpoint = Checkpoint("cpu"), .episodes = 1, .device = "cuda:99"});
  EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
  EXPECT_THAT(std::string(status.message()),
              testing::HasSubstr("--device: cannot use \"cuda:99\""));
}

}  // namespace
}  // namespace pompc
