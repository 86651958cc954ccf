#include "learner/service/run_records.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#include "common/base/crc32c.h"
#include "common/base/file.h"
#include "common/base/thread.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "learner/service/testing.h"
#include "proto/pompc/v1/tensorboard.pb.h"

namespace pompc {
namespace {

using ::pompc::testing::Lines;
using ::pompc::testing::NewFolder;
using ::pompc::testing::Report;
using ::pompc::testing::TestEpisode;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::StartsWith;

const absl::Time kTime = absl::FromUnixMillis(1'700'000'000'250);
constexpr char kFirstEvents[] = "tensorboard/events.out.tfevents.0000000000.pompc";
constexpr char kSecondEvents[] = "tensorboard/events.out.tfevents.0000000001.pompc";

RunRecordsOptions Options(const std::string& folder) {
  return {.folder = folder,
          .action_repeat = 2,
          .stat_names = {"first_loss", "second_loss"},
          .kept_bytes = {},
          .now = kTime};
}

// The moment of a row.
auto At(int64_t decisions, double updates_per_second = 0) {
  return [=] {
    return RunMoment{.decisions = decisions,
                     .updates = 90,
                     .seconds = 3.25,
                     .time = kTime,
                     .decisions_per_second = updates_per_second / 2,
                     .updates_per_second = updates_per_second};
  };
}

// The events of a file, as "step: what". TensorBoard's own reader: tests/e2e/run_records.py.
std::vector<std::string> Events(const std::string& path) {
  const std::string file = ReadFile(path).value();
  std::vector<std::string> events;
  const auto masked = [](const std::string& data) {
    const uint32_t crc = Crc32c(data);
    return ((crc >> 15) | (crc << 17)) + 0xa282ead8u;
  };
  for (size_t at = 0; at < file.size();) {
    uint64_t length = 0;
    uint32_t length_crc = 0, crc = 0;
    std::memcpy(&length, file.data() + at, 8);
    std::memcpy(&length_crc, file.data() + at + 8, 4);
    const std::string data = file.substr(at + 12, length);
    std::memcpy(&crc, file.data() + at + 12 + length, 4);
    EXPECT_EQ(length_crc, masked(file.substr(at, 8)));
    EXPECT_EQ(crc, masked(data));
    at += 16 + length;
    v1::TensorBoardEvent event;
    EXPECT_TRUE(event.ParseFromString(data));
    EXPECT_NEAR(event.wall_time(), 1'700'000'000.25, 1e-6);
    std::string what = event.file_version();
    if (event.has_session_log()) what = "START";
    for (const auto& value : event.summary().value()) {
      absl::StrAppend(&what, value.tag(), "=", value.simple_value(), " ");
    }
    events.push_back(absl::StrCat(event.step(), ": ", what));
  }
  return events;
}

TEST(RunRecordsTest, EveryFileHasWholeRows) {
  const std::string folder = NewFolder();
  const auto records = RunRecords::Open(Options(folder));
  ASSERT_TRUE(records.ok()) << records.status();
  const auto report = Report(1, 1,
                             {TestEpisode(v1::ACTOR, 1.5), TestEpisode(v1::EVALUATOR, 3),
                              TestEpisode(v1::EVALUATOR, 4), TestEpisode(v1::ACTOR, 2.5)});
  const Evaluation evaluation{.decisions_at = 100, .returns = {3, 4}};
  ASSERT_TRUE((*records)->AddReport(report.episodes(), {evaluation}, At(120)).ok());
  ASSERT_TRUE((*records)->AddLosses({0.5, -2}, At(130, 50)).ok());
  EXPECT_THAT(
      Lines(folder + "/returns.csv"),
      ElementsAre("role,actor_index,decisions_at,env_steps,return,episode_decisions,"
                  "parameter_version,updates,seconds",
                  "actor,1,100,200,1.5,20,3,90,3.250", "evaluator,1,100,200,3,20,3,90,3.250",
                  "evaluator,1,100,200,4,20,3,90,3.250", "actor,1,100,200,2.5,20,3,90,3.250"));
  EXPECT_THAT(Lines(folder + "/evaluations.csv"),
              ElementsAre("decisions,env_steps,episodes,mean,min,max,seconds,updates",
                          "100,200,2,3.5,3,4,3.250,90"));
  EXPECT_THAT(Lines(folder + "/losses.csv"),
              ElementsAre("updates,decisions,env_steps,seconds,first_loss,second_loss",
                          "90,130,260,3.250,0.5,-2"));
  const auto lines = Lines(folder + "/records.jsonl");
  ASSERT_EQ(lines.size(), 6u);
  EXPECT_EQ(lines[0], R"({"kind":"episode","time":1700000000.250,"role":"actor","actor_index":1,)"
                      R"("decisions_at":100,"env_steps":200,"return":1.5,"episode_decisions":20,)"
                      R"("parameter_version":3,"updates":90,"seconds":3.250})");
  EXPECT_EQ(lines[4],
            R"({"kind":"evaluation","time":1700000000.250,"decisions":100,"env_steps":200,)"
            R"("episodes":2,"mean":3.5,"min":3,"max":4,"seconds":3.250,"updates":90})");
  EXPECT_EQ(lines[5], R"({"kind":"losses","time":1700000000.250,"updates":90,"decisions":130,)"
                      R"("env_steps":260,"seconds":3.250,"first_loss":0.5,"second_loss":-2,)"
                      R"("decisions_per_second":25,"updates_per_second":50})");
  EXPECT_THAT(Events(folder + "/" + kFirstEvents),
              ElementsAre("0: brain.Event:2", "240: returns/training=2 ",
                          "200: returns/evaluation=3.5 returns/evaluation_least=3 "
                          "returns/evaluation_greatest=4 ",
                          "260: training/first_loss=0.5 training/second_loss=-2 "
                          "throughput/decisions_per_second=25 throughput/updates_per_second=50 "));
}

TEST(RunRecordsTest, ResumingDropsTheRowsAfterTheCheckpoint) {
  const std::string folder = NewFolder();
  RunRecordsOptions options = Options(folder);
  {
    const auto records = RunRecords::Open(options);
    ASSERT_TRUE((*records)->AddLosses({1, 1}, At(10)).ok());
    options.kept_bytes = (*records)->record_bytes();
    options.kept_decisions = 10;
    ASSERT_TRUE((*records)->AddLosses({2, 2}, At(20)).ok());
  }
  {
    // This process dies before its first checkpoint.
    ASSERT_TRUE((*RunRecords::Open(options))->AddLosses({2, 2}, At(20)).ok());
  }
  const auto resumed = RunRecords::Open(options);
  ASSERT_TRUE(resumed.ok()) << resumed.status();
  ASSERT_TRUE((*resumed)->AddLosses({3, 3}, At(20)).ok());
  EXPECT_THAT(Lines(folder + "/losses.csv"),
              ElementsAre("updates,decisions,env_steps,seconds,first_loss,second_loss",
                          "90,10,20,3.250,1,1", "90,20,40,3.250,3,3"));
  EXPECT_THAT(Lines(folder + "/records.jsonl"),
              ElementsAre(HasSubstr("\"first_loss\":1,"), HasSubstr("\"first_loss\":3,")));
  EXPECT_THAT(Events(folder + "/" + kFirstEvents),
              ElementsAre("0: brain.Event:2", "20: training/first_loss=1 training/second_loss=1 "));
  EXPECT_THAT(Events(folder + "/" + kSecondEvents),
              ElementsAre("0: brain.Event:2", "21: START",
                          "40: training/first_loss=3 training/second_loss=3 "));
  EXPECT_THAT((*resumed)->record_bytes(), ::testing::IsSupersetOf({::testing::Key(kFirstEvents),
                                                                   ::testing::Key(kSecondEvents)}));
}

TEST(RunRecordsTest, EventFilesThatSomebodyRemovedAreNotMissed) {
  const std::string folder = NewFolder();
  RunRecordsOptions options = Options(folder);
  options.kept_bytes = (*RunRecords::Open(options))->record_bytes();
  std::filesystem::remove_all(folder + "/tensorboard");
  const auto resumed = RunRecords::Open(options);
  ASSERT_TRUE(resumed.ok()) << resumed.status();
  EXPECT_THAT(Events(folder + "/" + kFirstEvents), ElementsAre("0: brain.Event:2"));
}

TEST(RunRecordsTest, RowsOfSeveralThreadsAreInTheOrderOfTheirMoments) {
  const std::string folder = NewFolder();
  const auto records = RunRecords::Open(Options(folder));
  ASSERT_TRUE(records.ok()) << records.status();
  constexpr int64_t kRows = 200;
  std::atomic<int64_t> decisions = 0;  // One more at each look, as time goes on at each.
  const auto moment = [&] {
    const RunMoment now = At(++decisions)();
    std::this_thread::yield();  // To whoever would write a later row before this one.
    return now;
  };
  {
    const auto add = [&] {
      for (int64_t row = 0; row < kRows; ++row) {
        EXPECT_TRUE((*records)->AddLosses({1, 1}, moment).ok());
      }
    };
    Thread one("one", add), other("other", add);
  }
  std::vector<std::string> lines = Lines(folder + "/losses.csv");
  ASSERT_EQ(lines.size(), 1 + 2 * kRows);
  for (int64_t row = 1; row <= 2 * kRows; ++row) {
    EXPECT_THAT(lines[static_cast<size_t>(row)], StartsWith(absl::StrCat("90,", row, ",")));
  }
}

TEST(RunRecordsTest, AFileThatHasLostRowsGoesOnAfterItsLastWholeOne) {
  const std::string folder = NewFolder();
  RunRecordsOptions options = Options(folder);
  {
    const auto records = RunRecords::Open(options);
    ASSERT_TRUE((*records)->AddLosses({1, 1}, At(10)).ok());
    ASSERT_TRUE((*records)->AddLosses({2, 2}, At(20)).ok());
    options.kept_bytes = (*records)->record_bytes();
  }
  std::filesystem::resize_file(folder + "/losses.csv", options.kept_bytes["losses.csv"] - 3);
  std::filesystem::resize_file(folder + "/returns.csv", 5);  // Within its header.
  std::filesystem::remove(folder + "/records.jsonl");
  const auto resumed = RunRecords::Open(options);
  ASSERT_TRUE(resumed.ok()) << resumed.status();
  ASSERT_TRUE((*resumed)->AddLosses({3, 3}, At(30)).ok());
  EXPECT_THAT(Lines(folder + "/losses.csv"),
              ElementsAre("updates,decisions,env_steps,seconds,first_loss,second_loss",
                          "90,10,20,3.250,1,1", "90,30,60,3.250,3,3"));
  EXPECT_THAT(Lines(folder + "/returns.csv"), ElementsAre(StartsWith("role,actor_index,")));
  EXPECT_THAT(Lines(folder + "/records.jsonl"), ElementsAre(HasSubstr("\"first_loss\":3,")));
  EXPECT_EQ((*resumed)->record_bytes()["losses.csv"],
            static_cast<int64_t>(std::filesystem::file_size(folder + "/losses.csv")));
}

TEST(RunRecordsTest, AFolderThatIsMissingIsNamed) {
  const auto records = RunRecords::Open(Options("/nonexistent/run"));
  EXPECT_TRUE(absl::IsNotFound(records.status()));
  EXPECT_THAT(std::string(records.status().message()), HasSubstr("/nonexistent/run"));
}

}  // namespace
}  // namespace pompc
