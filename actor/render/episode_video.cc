#include "actor/render/episode_video.h"

#include "absl/memory/memory.h"
#include "common/base/status_macros.h"

namespace pompc {

absl::StatusOr<std::unique_ptr<EpisodeVideo>> EpisodeVideo::Create(
    const EnvironmentOptions& environment, const RenderOptions& picture, const std::string& path) {
  POMPC_ASSIGN_OR_RETURN(const EnvironmentSpec spec, FindSpec(environment.task));
  POMPC_ASSIGN_OR_RETURN(std::unique_ptr<Renderer> renderer,
                         Renderer::Create(environment, picture));
  const double pictures_per_second =
      1 / (spec.control_timestep_seconds * environment.action_repeat);
  POMPC_ASSIGN_OR_RETURN(
      std::unique_ptr<VideoFile> file,
      VideoFile::Create(path, {picture.width, picture.height, pictures_per_second}));
  const int64_t steps = environment.episode_steps.value_or(spec.episode_steps);
  // A control step's reward is at most 1 in these tasks.
  return absl::WrapUnique(new EpisodeVideo(std::move(renderer), std::move(file),
                                           steps / environment.action_repeat,
                                           static_cast<double>(steps)));
}

absl::Status EpisodeVideo::Add(const EnvironmentState& state, const Candidates& candidates,
                               absl::Span<const double> returns) {
  POMPC_ASSIGN_OR_RETURN(const absl::Span<const uint8_t> picture,
                         renderer_->Draw(state, candidates, {returns, decisions_, highest_}));
  return file_->Add(picture);
}

}  // namespace pompc
