// EpisodeWriter: collects the rows of one environment into segments for a ReplayWriter.
//
//   for each decision:  writer.AddRow({observation, action, reward, ...}, deadline);
//   at the last one:    writer.EndEpisode({observation, action, ...}, {last observation, zeros,
//                                         ...}, deadline);
//
// Thread-safety: none; several of them, on several threads, may share one ReplayWriter.
// Errors: those of ReplayWriter::Append(). After DEADLINE_EXCEEDED the rows are kept: call Send().
#ifndef POMPC_REPLAY_CLIENT_EPISODE_WRITER_H_
#define POMPC_REPLAY_CLIENT_EPISODE_WRITER_H_

#include <cstdint>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "proto/pompc/v1/replay.pb.h"
#include "replay/client/writer.h"

namespace pompc {

struct EpisodeWriterOptions {
  int num_columns = 0;       // Of the schema.
  int64_t segment_rows = 1;  // Decisions sent at once, >= 1; a segment also ends with its episode.
  // Tell apart the episodes of the environments that share a writer: this one's ids are
  // environment, environment + num_environments, ...
  uint64_t environment = 0;
  uint64_t num_environments = 1;
};

class EpisodeWriter {
 public:
  // `writer` must outlive this.
  EpisodeWriter(const EpisodeWriterOptions& options, ReplayWriter* writer);

  // Adds the row of a decision that does not end the episode: the content of each column, in the
  // schema's order. Sends the segment when it is full.
  absl::Status AddRow(absl::Span<const std::string_view> columns, absl::Time deadline);
  // Adds the row of the last decision and the one that holds the last observation only, and sends
  // what the episode has left. Both travel in one segment: a batch is drawn either before the
  // decision is stored or after the episode's end is.
  absl::Status EndEpisode(absl::Span<const std::string_view> last_decision,
                          absl::Span<const std::string_view> last_observation, absl::Time deadline);
  // Sends the rows collected so far, if any.
  absl::Status Send(absl::Time deadline);

 private:
  void Collect(absl::Span<const std::string_view> columns);

  const EpisodeWriterOptions options_;
  ReplayWriter* const writer_;
  uint64_t episode_id_;
  uint64_t episode_rows_ = 0;  // Sent ones of this episode.
  v1::Segment segment_;        // Being collected.
};

}  // namespace pompc

#endif  // POMPC_REPLAY_CLIENT_EPISODE_WRITER_H_
