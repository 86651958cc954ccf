// Numbers that nobody else has drawn, for what no seed can tell apart: processes of one run that
// ask for the same thing, on machines that share neither process ids nor a clock.
#ifndef POMPC_COMMON_BASE_NONCE_H_
#define POMPC_COMMON_BASE_NONCE_H_

#include <cstdint>

namespace pompc {

// From the system's entropy; never 0. Not for anything that a run's results depend on. Thread-safe.
uint64_t DrawNonce();

}  // namespace pompc

#endif  // POMPC_COMMON_BASE_NONCE_H_
