#include "replay/client/episode_writer.h"

#include <utility>

#include "common/base/check.h"
#include "common/base/status_macros.h"

namespace pompc {

EpisodeWriter::EpisodeWriter(const EpisodeWriterOptions& options, ReplayWriter* writer)
    : options_(options), writer_(writer), episode_id_(options.environment) {
  POMPC_CHECK(options.segment_rows >= 1 && options.environment < options.num_environments);
}

void EpisodeWriter::Collect(absl::Span<const std::string_view> columns) {
  POMPC_CHECK(static_cast<int>(columns.size()) == options_.num_columns);
  if (segment_.columns().empty()) {
    for (int i = 0; i < options_.num_columns; ++i) {
      segment_.add_columns()->reserve(columns[i].size() * (options_.segment_rows + 1));
    }
  }
  for (int i = 0; i < options_.num_columns; ++i) segment_.mutable_columns(i)->append(columns[i]);
  segment_.set_num_rows(segment_.num_rows() + 1);
}

absl::Status EpisodeWriter::AddRow(absl::Span<const std::string_view> columns,
                                   absl::Time deadline) {
  Collect(columns);
  if (segment_.num_rows() < options_.segment_rows) return absl::OkStatus();
  return Send(deadline);
}

absl::Status EpisodeWriter::EndEpisode(absl::Span<const std::string_view> last_decision,
                                       absl::Span<const std::string_view> last_observation,
                                       absl::Time deadline) {
  Collect(last_decision);
  Collect(last_observation);
  segment_.set_ends_episode(true);
  return Send(deadline);
}

absl::Status EpisodeWriter::Send(absl::Time deadline) {
  if (segment_.num_rows() == 0) return absl::OkStatus();
  segment_.set_episode_id(episode_id_);
  segment_.set_first_row(episode_rows_);
  // A copy, so that a refused segment can be sent again.
  POMPC_RETURN_IF_ERROR(writer_->Append(segment_, deadline));
  episode_rows_ += segment_.num_rows();
  if (segment_.ends_episode()) {
    episode_id_ += options_.num_environments;
    episode_rows_ = 0;
  }
  segment_.Clear();
  return absl::OkStatus();
}

}  // namespace pompc
