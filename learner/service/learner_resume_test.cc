// Runs that are resumed: after a stop, a kill or a lost disk, with more ranks, at their end
// (learner_run_testing.h).
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/synchronization/mutex.h"
#include "common/base/file.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "learner/client/remote_parameter_subscriber.h"
#include "learner/service/learner_run.h"
#include "learner/service/learner_run_testing.h"
#include "learner/service/testing.h"

namespace {
absl::Mutex mu;
std::map<std::string, int64_t> synced_bytes;  // Of each file that was, at the last time.
}  // namespace

// The program's own comes before the C library's.
extern "C" int fdatasync(int descriptor) {
  struct stat info;
  std::error_code error;
  const std::string path =
      std::filesystem::read_symlink(absl::StrCat("/proc/self/fd/", descriptor), error);
  if (!error && fstat(descriptor, &info) == 0) {
    const absl::MutexLock lock(&mu);
    synced_bytes[path] = info.st_size;
  }
  return static_cast<int>(syscall(SYS_fdatasync, descriptor));
}

namespace pompc {
namespace {

using ::pompc::testing::ExpectEqualsCheckpoint;
using ::pompc::testing::JoinAs;
using ::pompc::testing::kSeed;
using ::pompc::testing::kTotal;
using ::pompc::testing::Lines;
using ::pompc::testing::NewFolder;
using ::pompc::testing::Process;
using ::pompc::testing::Report;
using ::pompc::testing::Soon;
using ::pompc::testing::TestEpisode;
using ::pompc::testing::TestSizes;
using ::pompc::testing::TinyConfig;
using ::testing::HasSubstr;

TEST(LearnerResumeTest, ResumesWithTheParametersItSavedAndRunsOnToTheEnd) {
  const std::string folder = NewFolder();
  int64_t version = 0;
  {
    Process process(TinyConfig(), folder, /*resume=*/false);
    process.StartActor([&process](int64_t decisions) {
      if (decisions == 120) process.Stop();
      return decisions == 120;
    });
    ASSERT_TRUE(absl::IsCancelled(process.End()));
    version = process.front().publisher.version();
  }
  const auto checkpoint = LoadRunCheckpoint(RunCheckpointPath(folder));
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_EQ(checkpoint->books.parameter_version(), version);
  const int64_t updates = checkpoint->state.tensors.at("updates").item<int64_t>();
  ASSERT_GT(updates, kSeed);
  ASSERT_LT(updates, kTotal);

  Process process(TinyConfig(), folder, /*resume=*/true);
  EXPECT_EQ(process.front().identity.run_id(), checkpoint->books.run_id());
  EXPECT_GE(process.front().progress.Now().updates, updates) << "an early report would go back";
  RemoteParameterSubscriber subscriber(process.channel(), 1, RealClock(), process.metrics());
  const auto first = subscriber.WaitForNewer(-1, Soon());
  ASSERT_TRUE(first.ok()) << first.status();
  EXPECT_EQ((*first)->version(), version + 1);
  EXPECT_EQ((*first)->updates(), updates);
  EXPECT_TRUE((*first)->trained());
  ExpectEqualsCheckpoint((*first)->data(), folder);

  subscriber.Close();
  process.StartActor();
  const absl::Status end = process.End();
  EXPECT_TRUE(end.ok()) << end;
  const auto finished = LoadRunCheckpoint(RunCheckpointPath(folder));
  ASSERT_TRUE(finished.ok());
  EXPECT_GE(finished->books.decisions(), kTotal);
  // The new table took kSeed decisions before updates went on.
  const int64_t expected =
      updates + std::max<int64_t>(0, kTotal - checkpoint->books.decisions() - kSeed);
  EXPECT_EQ(finished->state.tensors.at("updates").item<int64_t>(), expected);

  int64_t last = 0;
  const auto lines = Lines(folder + "/losses.csv");
  for (size_t i = 1; i < lines.size(); ++i) {
    int64_t row = 0;
    const std::vector<std::string> cells = absl::StrSplit(lines[i], ',');
    ASSERT_TRUE(absl::SimpleAtoi(cells[0], &row));
    EXPECT_EQ(row, last + 10);
    last = row;
  }
}

TEST(LearnerResumeTest, ACheckpointCountsNoRecordsThatAPowerCutTakesAway) {
  const std::string folder = std::filesystem::canonical(NewFolder());
  {
    Process process(TinyConfig(), folder, /*resume=*/false);
    process.StartActor([&](int64_t decisions) {
      if (decisions == 100) process.Stop();
      return decisions == 100;
    });
    ASSERT_TRUE(absl::IsCancelled(process.End()));
  }
  const auto checkpoint = LoadRunCheckpoint(RunCheckpointPath(folder));
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  const absl::MutexLock lock(&mu);
  EXPECT_EQ(checkpoint->books.record_bytes().size(), 5);
  for (const auto& [name, bytes] : checkpoint->books.record_bytes()) {
    EXPECT_EQ(synced_bytes[absl::StrCat(folder, "/", name)], bytes) << name;
  }
}

TEST(LearnerResumeTest, RanksShareItsUpdatesAndMayBeMoreWhenItIsResumed) {
  v1::RunConfig config = TinyConfig();
  const std::string folder = NewFolder();
  for (const bool resume : {false, true}) {
    config.mutable_learner()->set_data_parallel(resume ? 4 : 2);
    Process process(config, folder, resume);
    process.StartActor([&](int64_t decisions) {
      if (!resume && decisions == 120) process.Stop();
      return !resume && decisions == 120;
    });
    const absl::Status end = process.End();
    EXPECT_TRUE(resume ? end.ok() : absl::IsCancelled(end)) << end;
    EXPECT_GT(process.replay().Info().updated_rows(), 0);  // Reanalyzed.
  }
  EXPECT_GE(LoadRunCheckpoint(RunCheckpointPath(folder))->books.decisions(), kTotal);
}

// The checkpoint is older than the rows, as after a kill: the updates made since then are made
// again, decisions are not.
TEST(LearnerResumeTest, ResumesWithTheRowsThatAreJournaled) {
  v1::RunConfig config = TinyConfig();
  config.mutable_replay()->set_journal(v1::ReplayConfig::PROCESS);
  const std::string folder = NewFolder();
  const std::string checkpoint_path = RunCheckpointPath(folder), old = folder + "/old";
  v1::InfoResponse before;
  {
    Process process(config, folder, /*resume=*/false);
    process.StartActor([&](int64_t decisions) {
      if (decisions == 80) std::filesystem::copy(checkpoint_path, old);
      if (decisions == 150) process.Stop();
      return decisions == 150;
    });
    ASSERT_TRUE(absl::IsCancelled(process.End()));
    before = process.replay().Info();
  }
  ASSERT_GT(before.inserted_decisions(), 140);
  std::filesystem::rename(old, checkpoint_path);

  Process process(config, folder, /*resume=*/true);
  const v1::InfoResponse after = process.replay().Info();
  EXPECT_EQ(after.inserted_rows(), before.inserted_rows());
  EXPECT_EQ(after.windows(), before.windows());
  RemoteParameterSubscriber subscriber(process.channel(), 1, RealClock(), process.metrics());
  const auto first = subscriber.WaitForNewer(-1, Soon());
  ASSERT_TRUE(first.ok()) << first.status();
  EXPECT_EQ((*first)->decisions(), before.inserted_decisions());
  subscriber.Close();
  process.StartActor();
  const absl::Status end = process.End();
  EXPECT_TRUE(end.ok()) << end;
  EXPECT_EQ(process.replay().Info().sampled_batches(), kTotal) << "as if it had never died";
  v1::RunStatus status;
  process.front().progress.FillStatus(&status);
  EXPECT_EQ(status.updates(), kTotal);
  EXPECT_GE(status.decisions(), kTotal);
  // The actor goes on until it hears that the run is over.
  EXPECT_LE(status.decisions(), process.replay().Info().inserted_decisions());
}

// Replay's folder is missing for a while (a disk that was not mounted), and a learner is started
// then.
TEST(LearnerResumeTest, CountsNoDecisionTwiceWhenAnEarlierJournalComesBack) {
  v1::RunConfig config = TinyConfig();
  config.mutable_replay()->set_journal(v1::ReplayConfig::PROCESS);
  const std::string folder = NewFolder(), away = folder + "/away";
  int64_t made = 0;
  {
    Process process(config, folder, /*resume=*/false);
    process.StartActor([&](int64_t decisions) {
      if (decisions == 100) process.Stop();
      return decisions == 100;
    });
    ASSERT_TRUE(absl::IsCancelled(process.End()));
    made = process.replay().Info().inserted_decisions();
  }
  std::filesystem::rename(folder + "/journal", away);
  {
    Process process(config, folder, /*resume=*/true);
    process.Stop();
    process.StartActor();
    ASSERT_TRUE(absl::IsCancelled(process.End()));
  }
  std::filesystem::remove_all(folder + "/journal");
  std::filesystem::rename(away, folder + "/journal");
  const int64_t in_books = LoadRunCheckpoint(RunCheckpointPath(folder))->books.decisions();

  Process process(config, folder, /*resume=*/true);
  RemoteParameterSubscriber subscriber(process.channel(), 1, RealClock(), process.metrics());
  const auto first = subscriber.WaitForNewer(-1, Soon());
  ASSERT_TRUE(first.ok()) << first.status();
  EXPECT_EQ((*first)->decisions(), std::max(in_books, made));
  subscriber.Close();
  process.StartActor();
  EXPECT_TRUE(process.End().ok());
}

TEST(LearnerResumeTest, ALearnerThatDiedUsedVersionsThatItsSuccessorDoesNot) {
  const std::string folder = NewFolder();
  RunCheckpoint checkpoint;
  checkpoint.config = TinyConfig();
  *checkpoint.books.mutable_sizes() = TestSizes();
  checkpoint.books.set_parameter_version(7);
  checkpoint.state.tensors["updates"] = at::zeros({}, at::kLong);
  ASSERT_TRUE(SaveRunCheckpoint(checkpoint, RunCheckpointPath(folder)).ok());
  MetricsRegistry metrics;
  Replay replay(RealClock(), &metrics);
  LocalReplayLink link(&replay, RealClock());
  LearnerRunOptions options;
  options.config = TinyConfig();
  options.run_dir = folder;
  options.resume = true;
  for (const bool left_in_order : {false, true}) {
    if (left_in_order) {
      ASSERT_TRUE(WriteFileAtomically(RunStatusPath(folder), "").ok());
    }
    const auto run = LearnerRun::Create(options, &link, RealClock(), &metrics);
    ASSERT_TRUE(run.ok()) << run.status();
    const int64_t version = (*run)->front().publisher.Publish({});
    EXPECT_EQ(version == 8, left_in_order) << version;
    EXPECT_GE(version, 8);
  }
}

// A replay that cannot be reached, until the learner is told to stop.
class MissingReplayLink final : public ReplayLink {
 public:
  std::function<void()> on_info;

  absl::StatusOr<v1::InfoResponse> Info(const Event&) override {
    on_info();
    return absl::CancelledError("told to stop");
  }
  absl::StatusOr<std::unique_ptr<ReplaySampler>> Open(const v1::RunConfig&, const v1::TableConfig&,
                                                      int64_t) override {
    return absl::UnavailableError("there is no replay");
  }
};

TEST(LearnerResumeTest, AcknowledgesNoReportThatItCouldStillLose) {
  const std::string folder = NewFolder();
  {
    Process process(TinyConfig(), folder, /*resume=*/false);
    ASSERT_TRUE(process.front().roster.Join(JoinAs(v1::ACTOR)).ok());
    RemoteParameterSubscriber subscriber(process.channel(), 1, RealClock(), process.metrics());
    ASSERT_TRUE(subscriber.WaitForNewer(-1, Soon()).ok());  // It has started.
    process.Stop();
    ASSERT_TRUE(absl::IsCancelled(process.End()));
  }
  MetricsRegistry metrics;
  Event stop;
  MissingReplayLink link;
  LearnerRunOptions options;
  options.config = TinyConfig();
  options.run_dir = folder;
  options.resume = true;
  const auto run = LearnerRun::Create(options, &link, RealClock(), &metrics);
  ASSERT_TRUE(run.ok()) << run.status();
  absl::Status reported;
  link.on_info = [&] {
    RunFront& front = (*run)->front();
    reported =
        front.episodes.Report(Report(1, 1, {TestEpisode(v1::ACTOR, 7, front.publisher.version())}),
                              front.publisher.version(), [&] { return front.progress.Now(); });
    stop.Notify();
  };
  EXPECT_TRUE(absl::IsCancelled((*run)->Run(stop)));
  EXPECT_TRUE(absl::IsUnavailable(reported)) << reported;
}

TEST(LearnerResumeTest, ARunThatIsResumedAtItsEndWaitsForThoseWhoHaveToHearOfIt) {
  const std::string folder = NewFolder();
  {
    Process process(TinyConfig(), folder, /*resume=*/false);
    process.StartActor();
    ASSERT_TRUE(process.End().ok());
  }
  Process process(TinyConfig(), folder, /*resume=*/true, absl::Minutes(1));
  for (v1::RunStatus status; status.phase() != "finished"; std::this_thread::yield()) {
    process.front().progress.FillStatus(&status);
  }
  // Nobody is connected yet. Without the wait it writes this file, its last, after some 20 ms.
  RealClock()->SleepUntil(RealClock()->Now() + absl::Milliseconds(200));
  EXPECT_FALSE(std::filesystem::exists(RunStatusPath(folder)));
  process.Stop();
  EXPECT_TRUE(process.End().ok());
  EXPECT_TRUE(std::filesystem::exists(RunStatusPath(folder)));
}

TEST(LearnerResumeTest, AFolderWithARunIsOnlyResumedOnRequestAndOnlyWithItsConfig) {
  const std::string folder = NewFolder();
  RunCheckpoint checkpoint;
  checkpoint.config = TinyConfig();
  *checkpoint.books.mutable_sizes() = TestSizes();
  checkpoint.state.tensors["updates"] = at::zeros({}, at::kLong);
  MetricsRegistry metrics;
  Replay replay(RealClock(), &metrics);
  LocalReplayLink link(&replay, RealClock());
  LearnerRunOptions options;
  options.config = TinyConfig();
  options.run_dir = folder;
  options.resume = true;
  EXPECT_TRUE(absl::IsNotFound(LearnerRun::Create(options, &link, RealClock(), &metrics).status()));
  ASSERT_TRUE(SaveRunCheckpoint(checkpoint, RunCheckpointPath(folder)).ok());
  options.resume = false;
  EXPECT_TRUE(
      absl::IsAlreadyExists(LearnerRun::Create(options, &link, RealClock(), &metrics).status()));
  options.resume = true;
  options.config.set_seed(99);
  const absl::Status refused = LearnerRun::Create(options, &link, RealClock(), &metrics).status();
  EXPECT_TRUE(absl::IsInvalidArgument(refused));
  EXPECT_THAT(std::string(refused.message()), HasSubstr("seed: 99"));
}

}  // namespace
}  // namespace pompc
