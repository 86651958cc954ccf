#include "actor/loop/evaluation_videos.h"

#include <filesystem>
#include <memory>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/types/span.h"
#include "actor/loop/episodes.h"
#include "actor/render/episode_video.h"
#include "common/base/log.h"
#include "common/base/status_macros.h"

namespace pompc {

namespace fs = std::filesystem;

EvaluationVideos::EvaluationVideos(const v1::EnvironmentConfig& config, std::string folder)
    : environment_(EnvironmentOptionsOf(config)), folder_(std::move(folder)) {}

void EvaluationVideos::Make(const v1::Episode& episode, const Event& stop) {
  if (!possible_) return;
  const std::string steps =
      absl::StrFormat("steps-%010d", episode.decisions_at() * environment_.action_repeat);
  // Hidden until it is complete.
  const fs::path unfinished = fs::path(folder_) / absl::StrCat(".", steps, ".mp4");
  const fs::path path =
      fs::path(folder_) / absl::StrFormat("%s-return-%.1f.mp4", steps, episode.return_());
  std::error_code error;
  fs::create_directories(folder_, error);
  const absl::Status drawn =
      error ? absl::UnavailableError(absl::StrCat("cannot create ", folder_, ": ", error.message()))
            : Draw(unfinished, stop);
  if (drawn.ok()) {
    fs::rename(unfinished, path, error);
    if (!error) return;
  }
  std::error_code ignored;
  fs::remove(unfinished, ignored);
  if (absl::IsCancelled(drawn)) return;
  if (absl::IsFailedPrecondition(drawn)) {
    possible_ = false;
    POMPC_LOG(WARNING) << "no videos of evaluations: " << drawn.message();
  } else {
    POMPC_LOG(WARNING) << "no video " << path.string() << ": "
                       << (drawn.ok() ? error.message() : drawn.ToString());
  }
}

absl::Status EvaluationVideos::Draw(const std::string& path, const Event& stop) const {
  POMPC_ASSIGN_OR_RETURN(const std::unique_ptr<EpisodeVideo> video,
                         EpisodeVideo::Create(environment_, {}, path));
  for (size_t i = 0; i < recording_.states.size(); ++i) {
    if (stop.HasBeenNotified()) return absl::CancelledError("told to stop");
    POMPC_RETURN_IF_ERROR(video->Add(recording_.states[i], {},
                                     absl::MakeConstSpan(recording_.returns).subspan(0, i)));
  }
  return video->Close();
}

}  // namespace pompc
