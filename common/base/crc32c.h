// CRC-32C (Castagnoli), as in RFC 3720 appendix B.4: guards parameters, journals and checkpoints.
#ifndef POMPC_COMMON_BASE_CRC32C_H_
#define POMPC_COMMON_BASE_CRC32C_H_

#include <cstdint>
#include <string_view>

namespace pompc {

// The checksum of `data`, or of what `crc` was the checksum of followed by `data`. About 8 GB/s
// with SSE 4.2, which is looked for at run time. Thread-safe.
uint32_t Crc32c(std::string_view data, uint32_t crc = 0);

namespace internal {
// The portable path, one table look-up a byte; for tests.
uint32_t Crc32cPortable(std::string_view data, uint32_t crc);
}  // namespace internal
}  // namespace pompc

#endif  // POMPC_COMMON_BASE_CRC32C_H_
