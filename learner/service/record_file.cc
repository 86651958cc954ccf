#include "learner/service/record_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "common/base/file.h"
#include "common/base/log.h"
#include "common/base/status_macros.h"

namespace pompc {

absl::StatusOr<std::unique_ptr<RecordFile>> RecordFile::Open(const std::string& path,
                                                             const std::string& header,
                                                             int64_t keep_bytes) {
  const int descriptor = open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (descriptor < 0) return absl::ErrnoToStatus(errno, absl::StrCat("cannot open ", path));
  auto file = absl::WrapUnique(new RecordFile(path, descriptor));
  struct stat info;
  if (fstat(descriptor, &info) != 0) {
    return absl::ErrnoToStatus(errno, absl::StrCat("cannot read the size of ", path));
  }
  if (info.st_size < keep_bytes) {
    POMPC_ASSIGN_OR_RETURN(const std::string content, ReadFile(path));
    const auto whole = static_cast<int64_t>(content.rfind('\n') + 1);  // 0: not even a line.
    POMPC_LOG(WARNING) << path
                       << " is cut after its last whole line: it has lost its rows from byte "
                       << whole << " to " << keep_bytes << ", its length at the checkpoint";
    keep_bytes = whole;
  }
  POMPC_RETURN_IF_ERROR(file->CutTo(keep_bytes));
  if (keep_bytes == 0) POMPC_RETURN_IF_ERROR(file->Append(header));
  return file;
}

RecordFile::~RecordFile() { close(descriptor_); }

absl::Status RecordFile::Append(const std::string& records) {
  size_t written = 0;
  while (written < records.size()) {
    const ssize_t count = write(descriptor_, records.data() + written, records.size() - written);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) {
      absl::Status failed = absl::ErrnoToStatus(errno, absl::StrCat("cannot write ", path_));
      failed.Update(CutTo(bytes_));  // A disk that is full has taken part of it.
      return failed;
    }
    written += count;
  }
  bytes_ += static_cast<int64_t>(records.size());
  return absl::OkStatus();
}

absl::Status RecordFile::Sync() const {
  if (fdatasync(descriptor_) != 0) {
    return absl::ErrnoToStatus(errno, absl::StrCat("cannot sync ", path_));
  }
  return absl::OkStatus();
}

absl::Status RecordFile::CutTo(int64_t bytes) {
  if (ftruncate(descriptor_, bytes) != 0) {
    return absl::ErrnoToStatus(errno, absl::StrCat("cannot cut ", path_));
  }
  bytes_ = bytes;
  return absl::OkStatus();
}

}  // namespace pompc
