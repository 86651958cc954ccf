#include "learner/service/run_schedule.h"

#include "gtest/gtest.h"
#include "learner/client/row.h"

namespace pompc {
namespace {

v1::TaskSizes Sizes() {
  v1::TaskSizes sizes;
  sizes.set_observation_dim(3);
  sizes.set_action_dim(1);
  sizes.set_episode_decisions(500);
  return sizes;
}

v1::RunConfig Config(int64_t total_decisions, double updates_per_decision) {
  v1::RunConfig config;
  config.set_total_decisions(total_decisions);
  config.mutable_learning()->set_updates_per_decision(updates_per_decision);
  return config;
}

TEST(RunScheduleTest, SeedPhaseIsTheLongerOfDecisionsAndEpisodesAndPretrainingAsLong) {
  const auto schedule = RunSchedule::ForNewTable(Config(10000, 0.5), Sizes(), 0, 0);
  EXPECT_EQ(schedule.limits().seed_decisions(), 2500);  // 5 episodes of 500.
  EXPECT_EQ(schedule.limits().pretrain_updates(), 2500);
  EXPECT_FALSE(schedule.Seeded(2499));
  EXPECT_TRUE(schedule.Seeded(2500));
  EXPECT_TRUE(schedule.Pretraining(2499));
  EXPECT_FALSE(schedule.Pretraining(2500));
  EXPECT_EQ(schedule.final_updates(), 2500 + 3750);
  EXPECT_FALSE(schedule.Complete(10000, 6249));
  EXPECT_FALSE(schedule.Complete(9999, 6250));
  EXPECT_TRUE(schedule.Complete(10000, 6250));
}

TEST(RunScheduleTest, UtdCountsFromTheEndOfTheSeedPhase) {
  const auto schedule = RunSchedule::ForNewTable(Config(10000, 1), Sizes(), 0, 0);
  EXPECT_EQ(schedule.UpdatesPerDecision(2500, 2500), 0);
  EXPECT_EQ(schedule.UpdatesPerDecision(4500, 3500), 0.5);
}

TEST(RunScheduleTest, KnowsHowManyDecisionsCallForAnUpdate) {
  const auto schedule = RunSchedule::ForNewTable(Config(10000, 0.3), Sizes(), 100, 0);
  EXPECT_EQ(schedule.DecisionsFor(0), 2600);
  EXPECT_EQ(schedule.DecisionsFor(2500), 2600) << "pretraining follows the seed phase";
  EXPECT_EQ(schedule.DecisionsFor(2501), 2604);
  for (const double rate : {0.1, 0.3, 0.7, 1.0, 1.7, 2.0}) {
    const auto each = RunSchedule::ForNewTable(Config(10000, rate), Sizes(), 0, 0);
    for (int64_t n = 1; n < 200; ++n) {
      // As in RateLimiter: the update may be made after `first` decisions and not before.
      const double first = static_cast<double>(each.DecisionsFor(2500 + n) - 2500);
      EXPECT_GE(rate * first, n);
      EXPECT_LT(rate * (first - 1), n);
    }
  }
}

TEST(RunScheduleTest, ANewTableOfAResumedRunIsSeededAgainWithoutPretraining) {
  const auto schedule = RunSchedule::ForNewTable(Config(10000, 1), Sizes(), 6000, 6000);
  EXPECT_EQ(schedule.limits().seed_decisions(), 2500);
  EXPECT_EQ(schedule.limits().pretrain_updates(), 0);
  EXPECT_FALSE(schedule.Pretraining(6000));
  EXPECT_FALSE(schedule.Seeded(8000));
  EXPECT_EQ(schedule.final_updates(), 6000 + 1500);
  // Nothing is left to collect after another seed phase.
  EXPECT_EQ(RunSchedule::ForNewTable(Config(7000, 1), Sizes(), 6000, 6000).final_updates(), 6000);
}

TEST(RunScheduleTest, WhatAnOldTableHasLostCountsAsMadeBeforeIt) {
  const v1::RunConfig config = Config(10000, 2);
  const auto made = RunSchedule::ForNewTable(config, Sizes(), 100, 50);
  v1::InfoResponse replay;
  *replay.mutable_table()->mutable_limits() = made.limits();
  v1::RunBooks books;
  books.mutable_table_offsets()->set_decisions(100);
  books.mutable_table_offsets()->set_updates(50);
  books.set_decisions(100 + 4000);
  replay.set_inserted_decisions(4000 + 70);  // The checkpoint is older than the rows.
  const auto kept = RunSchedule::ForOldTable(config, replay, 1, books, 6000);
  EXPECT_EQ(kept.decisions_offset(), 100);
  EXPECT_EQ(kept.updates_offset(), 50);
  EXPECT_EQ(kept.final_updates(), made.final_updates());
  replay.set_inserted_decisions(4000 - 300);
  const auto lost = RunSchedule::ForOldTable(config, replay, 1, books, 6000);
  EXPECT_EQ(lost.decisions_offset(), 100 + 300);
  EXPECT_EQ(lost.updates_offset(), 50 + 600);
  EXPECT_EQ(lost.final_updates(), made.final_updates());
  // Nearly everything: what is left of pretraining is not more for that.
  replay.set_inserted_decisions(5);
  const auto hardly = RunSchedule::ForOldTable(config, replay, 1, books, 6000);
  EXPECT_FALSE(hardly.Pretraining(6000));
  EXPECT_EQ(hardly.final_updates(), 6000 + 2 * (10000 - hardly.decisions_offset() - 2500));
  // 450 updates of its pretraining were made, 2,000 are left.
  EXPECT_EQ(RunSchedule::ForOldTable(config, replay, 1, books, 500).updates_offset(), 50);
}

// Replay has no journal and was killed: the learner, before it ends, declares the table anew, and
// actors fill it until the next learner is there.
TEST(RunScheduleTest, ATableThatWasDeclaredAnewBeginsAtTheBooks) {
  const v1::RunConfig config = Config(10000, 1);
  const auto made = RunSchedule::ForNewTable(config, Sizes(), 0, 0);
  v1::RunBooks books;
  books.set_decisions(4800);
  (*books.mutable_known_tables())[7] = books.table_offsets();  // 0 and 0.
  v1::InfoResponse replay;
  *replay.mutable_table()->mutable_limits() = made.limits();
  replay.set_table_id(8);
  for (const int64_t decisions : {5, 3000, 6000}) {
    replay.set_inserted_decisions(decisions);
    const auto anew = RunSchedule::ForOldTable(config, replay, 1, books, 4800);
    EXPECT_EQ(anew.decisions_offset(), 4800);
    EXPECT_FALSE(anew.Pretraining(4800));
    // As of a new table, although this one has the limits of the first.
    EXPECT_EQ(anew.final_updates(),
              RunSchedule::ForNewTable(config, Sizes(), 4800, 4800).final_updates());
  }
  // Lost in pretraining: the rest of it is left.
  const auto early = RunSchedule::ForOldTable(config, replay, 1, books, 1000);
  EXPECT_TRUE(early.Pretraining(2499));
  EXPECT_FALSE(early.Pretraining(2500));
  // Of two servers the other one has kept its rows.
  replay.set_inserted_decisions(2400 + 10);
  EXPECT_EQ(RunSchedule::ForOldTable(config, replay, 2, books, 4800).decisions_offset(), 2390);
  // The first table, in use when the books were closed, is there again.
  replay.set_table_id(7);
  EXPECT_EQ(RunSchedule::ForOldTable(config, replay, 1, books, 4800).decisions_offset(), 2390);
}

TEST(RunScheduleTest, ATableThatIsThereAgainHasItsOwnOffsets) {
  v1::InfoResponse replay;
  *replay.mutable_table()->mutable_limits() =
      RunSchedule::ForNewTable(Config(10000, 1), Sizes(), 100, 50).limits();
  v1::RunBooks books;
  books.set_decisions(100 + 4000 + 30);  // 30 of them in the table in use.
  books.mutable_table_offsets()->set_decisions(100 + 4000);
  books.mutable_table_offsets()->set_updates(4050);
  v1::RunBooks::TableOffsets& earlier = (*books.mutable_known_tables())[7];
  earlier.set_decisions(100);
  earlier.set_updates(50);
  replay.set_table_id(7);
  replay.set_inserted_decisions(4000);
  const auto again = RunSchedule::ForOldTable(Config(10000, 1), replay, 1, books, 6000);
  EXPECT_EQ(again.decisions_offset() + replay.inserted_decisions(), books.decisions());
  EXPECT_EQ(again.updates_offset(), 50 + 30);
  // One that the books do not name was created after they were closed.
  replay.set_table_id(8);
  replay.set_inserted_decisions(45);
  const auto in_use = RunSchedule::ForOldTable(Config(10000, 1), replay, 1, books, 6000);
  EXPECT_EQ(in_use.decisions_offset(), 100 + 4000);
}

TEST(RunScheduleTest, ARunThatStoppedInPretrainingMakesTheRestOfIt) {
  const auto schedule = RunSchedule::ForNewTable(Config(10000, 1), Sizes(), 2500, 1000);
  EXPECT_EQ(schedule.limits().pretrain_updates(), 1500);
  EXPECT_TRUE(schedule.Pretraining(2499));
  EXPECT_FALSE(schedule.Pretraining(2500));
}

TEST(RunScheduleTest, ARunWithoutRoomForItsSeedPhaseMakesNoUpdates) {
  const auto schedule = RunSchedule::ForNewTable(Config(100, 1), Sizes(), 0, 0);
  EXPECT_EQ(schedule.final_updates(), 0);
  EXPECT_TRUE(schedule.Complete(100, 0));
}

TEST(RunScheduleTest, TheSmallestToleranceIsLockStep) {
  v1::RunConfig config = Config(10000, 1);
  config.mutable_replay()->set_rate_tolerance_updates(1);
  const auto schedule = RunSchedule::ForNewTable(config, Sizes(), 0, 0);
  EXPECT_EQ(schedule.limits().max_updates_ahead(), 0);
  EXPECT_EQ(schedule.limits().max_updates_behind(), 1);
}

TEST(RunScheduleTest, TheTableHasTheColumnsOfARowAndTheWindowOfTheConfig) {
  const v1::RunConfig config = Config(10000, 1);
  const auto schedule = RunSchedule::ForNewTable(config, Sizes(), 0, 0);
  const v1::TableConfig table = MakeTableConfig(config, Sizes(), "run", schedule.limits());
  EXPECT_EQ(table.schema().columns_size(), static_cast<int>(kNumRowColumns));
  EXPECT_EQ(table.window_rows(), config.learning().window() + 1);
  EXPECT_EQ(table.writer_credits(), config.actor().segment_rows());
  EXPECT_EQ(table.journal(), v1::TableConfig::PROCESS);
}

}  // namespace
}  // namespace pompc
