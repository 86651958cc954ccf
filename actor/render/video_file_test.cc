#include "actor/render/video_file.h"

#include <sys/stat.h>
#include <unistd.h>

#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace pompc {
namespace {

// Skips where there is no ffmpeg, which Create() says.
#define POMPC_VIDEO_OR_SKIP(video)                                                    \
  if (absl::IsFailedPrecondition((video).status())) GTEST_SKIP() << (video).status(); \
  ASSERT_TRUE((video).ok()) << (video).status()

TEST(VideoFileTest, APictureAfterTheOtherBecomesAFilm) {
  const std::string path = ::testing::TempDir() + "/pictures.mp4";
  unlink(path.c_str());
  const auto video = VideoFile::Create(path, {64, 48, 25});
  POMPC_VIDEO_OR_SKIP(video);
  for (int i = 0; i < 10; ++i) {
    const std::vector<uint8_t> picture(3 * 64 * 48, static_cast<uint8_t>(25 * i));
    ASSERT_TRUE((*video)->Add(picture).ok());
  }
  ASSERT_TRUE((*video)->Close().ok());
  struct stat info;
  ASSERT_EQ(stat(path.c_str(), &info), 0);
  EXPECT_GT(info.st_size, 500);
}

TEST(VideoFileTest, WhatFfmpegSaysBecomesTheError) {
  const auto video = VideoFile::Create("/nonexistent/film.mp4", {64, 48, 25});
  POMPC_VIDEO_OR_SKIP(video);
  const std::vector<uint8_t> picture(3 * 64 * 48);
  absl::Status status;
  for (int i = 0; i < 1000 && status.ok(); ++i) status = (*video)->Add(picture);
  if (status.ok()) status = (*video)->Close();
  EXPECT_TRUE(absl::IsAborted(status)) << status;
  EXPECT_THAT(std::string(status.message()), ::testing::HasSubstr("No such file"));
}

TEST(VideoFileTest, APictureOfAnotherSizeIsRefused) {
  const auto video = VideoFile::Create(::testing::TempDir() + "/sizes.mp4", {64, 48, 25});
  POMPC_VIDEO_OR_SKIP(video);
  EXPECT_TRUE(absl::IsInvalidArgument((*video)->Add(std::vector<uint8_t>(3 * 64 * 47))));
}

}  // namespace
}  // namespace pompc
