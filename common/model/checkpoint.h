// Named tensors and strings in one file, in the safetensors format, so that any tool can read it:
// 8 bytes header length (little-endian), JSON header, raw little-endian data.
// https://github.com/huggingface/safetensors#format
//
// Thread-safety: pure functions. Errors: the file system's (common/base/file.h); a damaged
// file is DATA_LOSS.
#ifndef POMPC_COMMON_MODEL_CHECKPOINT_H_
#define POMPC_COMMON_MODEL_CHECKPOINT_H_

#include <map>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/model/tensor.h"

namespace pompc {

struct Checkpoint {
  std::map<std::string, at::Tensor> tensors;    // float32, float64 or int64; any device.
  std::map<std::string, std::string> metadata;  // E.g. the run's config.
};

// Writes beside `path` first, then renames: `path` holds the old file or the new one, never a part.
absl::Status SaveCheckpoint(const Checkpoint& checkpoint, const std::string& path);
// Tensors on the CPU.
absl::StatusOr<Checkpoint> LoadCheckpoint(const std::string& path);

}  // namespace pompc

#endif  // POMPC_COMMON_MODEL_CHECKPOINT_H_
