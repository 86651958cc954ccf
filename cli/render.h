// `pompc render`: a video of how a checkpoint plays.
#ifndef POMPC_CLI_RENDER_H_
#define POMPC_CLI_RENDER_H_

#include <string>

#include "absl/status/statusor.h"

namespace pompc {

struct RenderVideoOptions {
  std::string checkpoint;            // Path of a run's checkpoint.safetensors.
  std::string output = "video.mp4";  // As VideoFile::Create().
  int episodes = 1;                  // One after the other in one video. >= 1.
  bool candidates = false;           // Draw what the planner weighs at each decision.
  int width = 640, height = 480;     // As actor/render's RenderOptions.
  std::string camera;
};

// Plays episodes from the start states of the run's evaluations, a picture a decision at the speed
// of the simulation, with the return plotted below. Returns what was made and the returns, to be
// printed. CANCELLED: asked to stop; what was drawn by then is in the video. Errors: the
// checkpoint's, Renderer's and VideoFile's.
absl::StatusOr<std::string> RenderVideo(const RenderVideoOptions& options);

}  // namespace pompc

#endif  // POMPC_CLI_RENDER_H_
