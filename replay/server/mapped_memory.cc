#include "replay/server/mapped_memory.h"

#include <sys/mman.h>

#include <cerrno>

#include "absl/strings/str_cat.h"

namespace pompc {

absl::StatusOr<MappedMemory> MappedMemory::Allocate(size_t bytes) {
  void* data = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (data == MAP_FAILED) {
    return absl::ResourceExhaustedError(
        absl::StrCat("cannot map ", bytes, " bytes: errno ", errno));
  }
  // Draws are random accesses: large pages save most of their address translation misses. Advice
  // only, so a refusal is no error.
  madvise(data, bytes, MADV_HUGEPAGE);
  return MappedMemory(static_cast<char*>(data), bytes);
}

MappedMemory::~MappedMemory() {
  if (data_ != nullptr) munmap(data_, bytes_);
}

}  // namespace pompc
