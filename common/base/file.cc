#include "common/base/file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"

namespace pompc {
namespace {

absl::Status ErrnoError(const char* verb, const std::string& path) {
  const int error = errno;
  return absl::ErrnoToStatus(error, absl::StrCat("cannot ", verb, " ", path));
}

class FileDescriptor {
 public:
  FileDescriptor(const std::string& path, int flags)
      : fd_(open(path.c_str(), flags | O_CLOEXEC, 0644)) {}
  FileDescriptor(const FileDescriptor&) = delete;
  FileDescriptor& operator=(const FileDescriptor&) = delete;
  ~FileDescriptor() {
    if (fd_ >= 0) close(fd_);
  }
  int get() const { return fd_; }

 private:
  const int fd_;
};

absl::Status WriteAndSync(const std::string& path, std::string_view content) {
  const FileDescriptor file(path, O_WRONLY | O_CREAT | O_TRUNC);
  if (file.get() < 0) return ErrnoError("create", path);
  while (!content.empty()) {
    const ssize_t n = write(file.get(), content.data(), content.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return ErrnoError("write", path);
    content.remove_prefix(static_cast<size_t>(n));
  }
  if (fsync(file.get()) != 0) return ErrnoError("sync", path);
  return absl::OkStatus();
}

}  // namespace

absl::Status WriteFileAtomically(const std::string& path, std::string_view content) {
  const std::string temporary = path + ".tmp";
  absl::Status status = WriteAndSync(temporary, content);
  if (status.ok() && std::rename(temporary.c_str(), path.c_str()) != 0) {
    status = ErrnoError("replace", path);
  }
  if (!status.ok()) {
    unlink(temporary.c_str());
    return status;
  }
  const std::string parent = std::filesystem::path(path).parent_path();
  return SyncFolder(parent.empty() ? "." : parent);
}

absl::Status SyncFolder(const std::string& path) {
  const FileDescriptor folder(path, O_RDONLY | O_DIRECTORY);
  if (folder.get() < 0 || fsync(folder.get()) != 0) return ErrnoError("sync the folder", path);
  return absl::OkStatus();
}

absl::StatusOr<std::string> ReadFile(const std::string& path) {
  const FileDescriptor file(path, O_RDONLY);
  if (file.get() < 0) return ErrnoError("open", path);
  std::string content;
  // On the heap: an HTTP server's thread, which reads /proc through here, has a stack of 100 KB.
  std::vector<char> buffer(1 << 16);
  for (;;) {
    const ssize_t n = read(file.get(), buffer.data(), buffer.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return ErrnoError("read", path);
    if (n == 0) return content;
    content.append(buffer.data(), static_cast<size_t>(n));
  }
}

}  // namespace pompc
