// Event files: what TensorBoard shows of a run, in a folder of their own.
//
// A file is a sequence of records in TensorFlow's framing: the length (uint64), its masked CRC-32C,
// the event, its masked CRC-32C, all little-endian. TensorBoard reads the files of a folder in the
// order of their names and keeps its place in each while it watches a run. A run that resumes
// therefore cuts the earlier files to their length at the checkpoint, for whoever reads them from
// now on, and goes on in a new file, whose START event makes a reader that was there before forget
// what was cut. Both then show each step once.
//
// Thread-safety: functions without state. Errors: those of the file system, with the path.
#ifndef POMPC_LEARNER_SERVICE_EVENT_FILES_H_
#define POMPC_LEARNER_SERVICE_EVENT_FILES_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "learner/service/record_file.h"

namespace pompc {

// One framed event: scalars by tag.
std::string ScalarEvent(int64_t step, absl::Time time,
                        const std::vector<std::pair<std::string, double>>& scalars);

struct EventFilesOptions {
  std::string folder;  // Of the run.
  // Length of the files at the checkpoint that the run resumes from, by their names below `folder`.
  // Files that are not in it were begun later and are removed.
  std::map<std::string, int64_t> kept_bytes;
  int64_t kept_step = 0;  // Newest step that may be in them.
  absl::Time now;
};

// Opens the next file: its name below `folder`, and the file. The disk knows of it then, as far as
// it knows of the folder of event files. Length of the earlier ones that are left goes into
// `earlier`.
absl::StatusOr<std::pair<std::string, std::unique_ptr<RecordFile>>> OpenNextEventFile(
    const EventFilesOptions& options, std::map<std::string, int64_t>* earlier);

}  // namespace pompc

#endif  // POMPC_LEARNER_SERVICE_EVENT_FILES_H_
