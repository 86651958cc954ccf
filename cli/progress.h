// What `pompc train` shows, as pure functions from the run's status to text.
#ifndef POMPC_CLI_PROGRESS_H_
#define POMPC_CLI_PROGRESS_H_

#include <string>
#include <string_view>

#include "proto/pompc/v1/learner.pb.h"

namespace pompc {

// 1234567 -> "1,234,567".
std::string WithThousands(int64_t number);
// 3725 s -> "1:02:05", 125 s -> "2:05".
std::string ShortDuration(double seconds);

// Seconds until the run is complete at the present rate; negative when that cannot be said.
double RemainingSeconds(const v1::RunStatus& status);

// One line, for logs and pipes.
std::string ProgressLine(const v1::RunStatus& status);

// Some lines that are drawn over each other in a terminal of `columns` characters, each ended by a
// newline and no longer than the terminal is wide.
std::string ProgressPanel(std::string_view title, const v1::RunStatus& status, int columns);

}  // namespace pompc

#endif  // POMPC_CLI_PROGRESS_H_
