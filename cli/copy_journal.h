// `pompc copy-journal`: a copy of a replay's journal, made while the run goes on.
#ifndef POMPC_CLI_COPY_JOURNAL_H_
#define POMPC_CLI_COPY_JOURNAL_H_

#include <string>

#include "absl/status/statusor.h"
#include "common/rpc/security.h"

namespace pompc {

// Asks the replay at `address` (a learner's own, if it embeds the table) for a copy called `name`.
// Returns what to print: where it lies and what to do with it. Blocks for at most a minute. Errors:
// those of RpcSecurity::CheckClient() and of the Checkpoint call, UNAVAILABLE when nobody answers.
absl::StatusOr<std::string> CopyJournal(const std::string& address, const std::string& name,
                                        const RpcSecurity& security);

}  // namespace pompc

#endif  // POMPC_CLI_COPY_JOURNAL_H_
