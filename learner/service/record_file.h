// RecordFile: a file to which whole lines are appended, and which is cut back to where it was.
//
// Thread-safety: none. Errors: those of the file system, with the path.
#ifndef POMPC_LEARNER_SERVICE_RECORD_FILE_H_
#define POMPC_LEARNER_SERVICE_RECORD_FILE_H_

#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace pompc {

class RecordFile {
 public:
  // Cuts an existing file to `keep_bytes` (0: starts anew), or, with a warning, after its last line
  // if it is shorter: what is lost are curves, for which a run does not stop. Writes the header if
  // it is then empty.
  static absl::StatusOr<std::unique_ptr<RecordFile>> Open(const std::string& path,
                                                          const std::string& header,
                                                          int64_t keep_bytes);
  ~RecordFile();

  // Written through at once. On an error nothing is appended.
  absl::Status Append(const std::string& records);
  // Blocks until all of it is on the disk.
  absl::Status Sync() const;
  // Drops what was appended after the file had `bytes`.
  absl::Status CutTo(int64_t bytes);
  int64_t bytes() const { return bytes_; }

 private:
  RecordFile(std::string path, int descriptor) : path_(std::move(path)), descriptor_(descriptor) {}

  const std::string path_;
  const int descriptor_;
  int64_t bytes_ = 0;
};

}  // namespace pompc

#endif  // POMPC_LEARNER_SERVICE_RECORD_FILE_H_
