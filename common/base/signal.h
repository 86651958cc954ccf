// SIGTERM, SIGINT and SIGHUP as an Event that a program waits for, then leaves in order.
#ifndef POMPC_COMMON_BASE_SIGNAL_H_
#define POMPC_COMMON_BASE_SIGNAL_H_

#include "common/base/clock.h"

namespace pompc {

// Handles SIGTERM, SIGINT and SIGHUP from the first call on and returns the event that the first of
// them raises. A second SIGTERM or SIGINT ends the process at once, with status 128 + signal, for
// those who will not wait; SIGHUP does not count for that, since a terminal that closes may send
// several, and other signals with them. It stays ignored where it is ignored when this is
// first called (nohup). Thread-safe; the event lives as long as the process.
const Event& TerminationRequest();

}  // namespace pompc

#endif  // POMPC_COMMON_BASE_SIGNAL_H_
