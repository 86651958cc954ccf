// Zeroed memory that costs nothing until it is touched.
//
// Thread-safety: as plain memory. Movable; unmapped by the destructor.
#ifndef POMPC_REPLAY_SERVER_MAPPED_MEMORY_H_
#define POMPC_REPLAY_SERVER_MAPPED_MEMORY_H_

#include <cstddef>
#include <utility>

#include "absl/status/statusor.h"

namespace pompc {

class MappedMemory {
 public:
  // RESOURCE_EXHAUSTED when the system refuses so much address space.
  static absl::StatusOr<MappedMemory> Allocate(size_t bytes);

  MappedMemory(MappedMemory&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
  MappedMemory& operator=(MappedMemory&&) = delete;
  ~MappedMemory();

  char* data() const { return data_; }

 private:
  MappedMemory(char* data, size_t bytes) : data_(data), bytes_(bytes) {}

  char* data_;
  size_t bytes_;
};

}  // namespace pompc

#endif  // POMPC_REPLAY_SERVER_MAPPED_MEMORY_H_
