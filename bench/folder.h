// A new folder for a benchmark.
#ifndef POMPC_BENCH_FOLDER_H_
#define POMPC_BENCH_FOLDER_H_

#include <stdlib.h>

#include <filesystem>
#include <string>

#include "common/base/check.h"

namespace pompc {

// Removed with the object. $TMPDIR says on which disk.
struct TemporaryFolder {
  TemporaryFolder() {
    path = std::filesystem::temp_directory_path() / "pompc-bench-XXXXXX";
    POMPC_CHECK(mkdtemp(path.data()) != nullptr);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  ~TemporaryFolder() { std::filesystem::remove_all(path); }

  std::string path;
};

}  // namespace pompc

#endif  // POMPC_BENCH_FOLDER_H_
