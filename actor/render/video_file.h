// VideoFile: pictures into a film, by ffmpeg in a process of its own.
//
// Thread-safety: none. Blocks while ffmpeg is behind.
#ifndef POMPC_ACTOR_RENDER_VIDEO_FILE_H_
#define POMPC_ACTOR_RENDER_VIDEO_FILE_H_

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace pompc {

struct VideoFormat {
  int width = 0;  // Pixels, even.
  int height = 0;
  double pictures_per_second = 0;  // > 0.
};

class VideoFile {
 public:
  // The ending of `path` says what becomes of it: .mp4, .webm, .gif, .webp, or pictures as
  // name-%04d.png. An existing file is replaced. FAILED_PRECONDITION: no ffmpeg (the message names
  // the package).
  static absl::StatusOr<std::unique_ptr<VideoFile>> Create(const std::string& path,
                                                           const VideoFormat& format);
  // Ends ffmpeg, if Close() was not called.
  ~VideoFile();

  // The next picture: 3 * width * height rgb bytes from the top left. INVALID_ARGUMENT: another
  // size. Errors of ffmpeg, as Close().
  absl::Status Add(absl::Span<const uint8_t> rgb);
  // Waits until the file is complete. ABORTED: ffmpeg failed; the message is its own.
  absl::Status Close();

 private:
  VideoFile(std::string path, size_t picture_bytes)
      : path_(std::move(path)), picture_bytes_(picture_bytes) {}

  const std::string path_;
  const size_t picture_bytes_;
  pid_t ffmpeg_ = -1;  // -1: ended.
  int input_ = -1;     // A socket, whose closed end raises no signal.
  int messages_ = -1;  // A file without a name, for what ffmpeg says.
};

}  // namespace pompc

#endif  // POMPC_ACTOR_RENDER_VIDEO_FILE_H_
