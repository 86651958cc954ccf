#include "replay/client/episode_writer.h"

#include "gtest/gtest.h"
#include "replay/client/fake_writer.h"

namespace pompc {
namespace {

constexpr absl::Time kNever = absl::InfiniteFuture();

TEST(EpisodeWriterTest, CutsEpisodesIntoSegments) {
  FakeWriter out;
  EpisodeWriter writer(
      {.num_columns = 2, .segment_rows = 2, .environment = 1, .num_environments = 3}, &out);
  ASSERT_TRUE(writer.AddRow({"a", "1"}, kNever).ok());
  EXPECT_TRUE(out.segments().empty());
  ASSERT_TRUE(writer.AddRow({"b", "2"}, kNever).ok());
  ASSERT_TRUE(writer.AddRow({"c", "3"}, kNever).ok());
  ASSERT_TRUE(writer.EndEpisode({"d", "4"}, {"e", "0"}, kNever).ok());
  ASSERT_TRUE(writer.EndEpisode({"f", "6"}, {"g", "0"}, kNever).ok());

  const std::vector<v1::Segment> segments = out.segments();
  ASSERT_EQ(segments.size(), 3u);
  EXPECT_EQ(segments[0].columns(0), "ab");
  EXPECT_EQ(segments[0].columns(1), "12");
  EXPECT_EQ(segments[0].episode_id(), 1u);
  EXPECT_EQ(segments[0].first_row(), 0u);
  EXPECT_EQ(segments[0].num_rows(), 2);
  EXPECT_FALSE(segments[0].ends_episode());
  EXPECT_EQ(segments[1].columns(0), "cde") << "the last decision and the end travel together";
  EXPECT_EQ(segments[1].columns(1), "340");
  EXPECT_EQ(segments[1].first_row(), 2u);
  EXPECT_EQ(segments[1].num_rows(), 3);
  EXPECT_TRUE(segments[1].ends_episode());
  EXPECT_EQ(segments[2].columns(0), "fg");
  EXPECT_EQ(segments[2].episode_id(), 4u);
  EXPECT_EQ(segments[2].first_row(), 0u);
}

TEST(EpisodeWriterTest, KeepsRowsThatCouldNotBeSent) {
  FakeWriter out;
  EpisodeWriter writer({.num_columns = 1, .segment_rows = 1}, &out);
  out.SetStatus(absl::DeadlineExceededError("full"));
  EXPECT_TRUE(absl::IsDeadlineExceeded(writer.AddRow({"a"}, kNever)));
  EXPECT_TRUE(absl::IsDeadlineExceeded(writer.Send(kNever)));
  out.SetStatus(absl::OkStatus());
  EXPECT_TRUE(writer.Send(kNever).ok());
  EXPECT_TRUE(writer.AddRow({"b"}, kNever).ok());
  ASSERT_EQ(out.segments().size(), 2u);
  EXPECT_EQ(out.segments()[0].columns(0), "a");
  EXPECT_EQ(out.segments()[1].first_row(), 1u);
}

}  // namespace
}  // namespace pompc
