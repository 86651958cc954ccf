// Whole files in and out, such that a crash or power cut leaves either the old file or the new one.
//
// Errors: the code of errno (NOT_FOUND, PERMISSION_DENIED, RESOURCE_EXHAUSTED for a full disk...),
// with the path in the message. Thread-safe as far as the paths differ.
#ifndef POMPC_COMMON_BASE_FILE_H_
#define POMPC_COMMON_BASE_FILE_H_

#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace pompc {

// Replaces or creates `path` (its folder must exist): writes PATH.tmp, syncs it, renames it over
// `path` and syncs the folder. On failure `path` is as it was.
absl::Status WriteFileAtomically(const std::string& path, std::string_view content);

// Blocks until the disk knows which files the folder holds: those made, renamed and removed there.
absl::Status SyncFolder(const std::string& path);

// The content of `path`.
absl::StatusOr<std::string> ReadFile(const std::string& path);

}  // namespace pompc

#endif  // POMPC_COMMON_BASE_FILE_H_
