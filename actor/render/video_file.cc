#include "actor/render/video_file.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <vector>

#include "absl/memory/memory.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

extern char** environ;

namespace pompc {
namespace {

std::vector<std::string> Encoding(const std::string& path) {
  if (absl::EndsWith(path, ".mp4")) {
    // What every browser plays, from the first byte on.
    return {"-c:v", "libx264", "-pix_fmt", "yuv420p", "-crf", "20", "-movflags", "+faststart"};
  }
  if (absl::EndsWith(path, ".webm")) return {"-c:v", "libvpx-vp9", "-crf", "30", "-b:v", "0"};
  if (absl::EndsWith(path, ".gif")) {
    return {"-filter_complex", "split[a][b];[a]palettegen[p];[b][p]paletteuse=dither=none"};
  }
  if (absl::EndsWith(path, ".webp")) return {"-c:v", "libwebp", "-quality", "70", "-loop", "0"};
  return {};
}

}  // namespace

absl::StatusOr<std::unique_ptr<VideoFile>> VideoFile::Create(const std::string& path,
                                                             const VideoFormat& format) {
  std::vector<std::string> argv = {"ffmpeg",      "-loglevel",
                                   "error",       "-y",
                                   "-f",          "rawvideo",
                                   "-pix_fmt",    "rgb24",
                                   "-video_size", absl::StrCat(format.width, "x", format.height),
                                   "-framerate",  absl::StrCat(format.pictures_per_second),
                                   "-i",          "pipe:0"};
  for (std::string& option : Encoding(path)) argv.push_back(std::move(option));
  argv.push_back(absl::StrCat("file:", path));  // Whatever the name looks like.
  std::vector<char*> arguments;
  for (std::string& a : argv) arguments.push_back(a.data());
  arguments.push_back(nullptr);

  auto file =
      absl::WrapUnique(new VideoFile(path, static_cast<size_t>(3) * format.width * format.height));
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) {
    return absl::ErrnoToStatus(errno, "socketpair");
  }
  file->input_ = ends[0];
  file->messages_ = memfd_create("ffmpeg", MFD_CLOEXEC);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, ends[1], STDIN_FILENO);
  posix_spawn_file_actions_adddup2(&actions, file->messages_, STDOUT_FILENO);
  posix_spawn_file_actions_adddup2(&actions, file->messages_, STDERR_FILENO);
  const int error =
      posix_spawnp(&file->ffmpeg_, "ffmpeg", &actions, nullptr, arguments.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  close(ends[1]);
  if (error == 0) return file;
  file->ffmpeg_ = -1;
  if (error == ENOENT) {
    return absl::FailedPreconditionError("videos need ffmpeg: apt-get install ffmpeg");
  }
  return absl::ErrnoToStatus(error, "cannot start ffmpeg");
}

VideoFile::~VideoFile() {
  if (ffmpeg_ >= 0) kill(ffmpeg_, SIGKILL);
  Close().IgnoreError();
  close(messages_);
}

absl::Status VideoFile::Add(absl::Span<const uint8_t> rgb) {
  if (rgb.size() != picture_bytes_) {
    return absl::InvalidArgumentError(
        absl::StrCat("a picture of ", rgb.size(), " bytes, not ", picture_bytes_));
  }
  while (!rgb.empty()) {
    const ssize_t count = send(input_, rgb.data(), rgb.size(), MSG_NOSIGNAL);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) {
      // It has ended: its message says more than the socket's error.
      const int error = errno;
      absl::Status closed = Close();
      return closed.ok() ? absl::ErrnoToStatus(error, absl::StrCat("cannot write ", path_))
                         : closed;
    }
    rgb.remove_prefix(count);
  }
  return absl::OkStatus();
}

absl::Status VideoFile::Close() {
  if (input_ >= 0) close(std::exchange(input_, -1));
  if (ffmpeg_ < 0) return absl::OkStatus();
  int status = 0;
  while (waitpid(ffmpeg_, &status, 0) < 0 && errno == EINTR) {
  }
  ffmpeg_ = -1;
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return absl::OkStatus();
  char said[1000];
  const ssize_t size = pread(messages_, said, sizeof(said), 0);
  return absl::AbortedError(
      absl::StrCat("ffmpeg could not write ", path_, ": ",
                   absl::StripSuffix(absl::string_view(said, size < 0 ? 0 : size), "\n")));
}

}  // namespace pompc
