// SIGTERM and SIGINT as an Event that a program waits for, then leaves in order.
#ifndef POMPC_COMMON_BASE_SIGNAL_H_
#define POMPC_COMMON_BASE_SIGNAL_H_

#include "common/base/clock.h"

namespace pompc {

// Handles SIGTERM and SIGINT from the first call on and returns the event that the first of them
// raises. A second signal ends the process at once, with status 128 + signal, for those who will
// not wait. Thread-safe; the event lives as long as the process.
const Event& TerminationRequest();

}  // namespace pompc

#endif  // POMPC_COMMON_BASE_SIGNAL_H_
