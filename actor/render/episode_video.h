// EpisodeVideo: a film of played episodes, a picture a decision at the speed of the simulation,
// with the return plotted below.
//
// Thread-safety: none; used and destroyed on the thread that created it.
#ifndef POMPC_ACTOR_RENDER_EPISODE_VIDEO_H_
#define POMPC_ACTOR_RENDER_EPISODE_VIDEO_H_

#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "actor/env/environment.h"
#include "actor/render/renderer.h"
#include "actor/render/video_file.h"

namespace pompc {

class EpisodeVideo {
 public:
  // environment: the task as it is played. path: as VideoFile::Create(). Errors: those of
  // Renderer::Create() and VideoFile::Create().
  static absl::StatusOr<std::unique_ptr<EpisodeVideo>> Create(const EnvironmentOptions& environment,
                                                              const RenderOptions& picture,
                                                              const std::string& path);

  // The next picture: the state before a decision, what the planner weighed there, and the return
  // after each decision of the episode so far. Errors: those of Renderer and VideoFile.
  absl::Status Add(const EnvironmentState& state, const Candidates& candidates,
                   absl::Span<const double> returns);
  // Waits until the file is complete.
  absl::Status Close() { return file_->Close(); }

 private:
  EpisodeVideo(std::unique_ptr<Renderer> renderer, std::unique_ptr<VideoFile> file,
               int64_t decisions, double highest)
      : renderer_(std::move(renderer)),
        file_(std::move(file)),
        decisions_(decisions),
        highest_(highest) {}

  const std::unique_ptr<Renderer> renderer_;
  const std::unique_ptr<VideoFile> file_;
  const int64_t decisions_;  // Of a whole episode.
  const double highest_;     // Return that the plot has room for.
};

}  // namespace pompc

#endif  // POMPC_ACTOR_RENDER_EPISODE_VIDEO_H_
