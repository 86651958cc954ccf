// The tables of one replay server, by name.
//
// A server has a table without a name, and makes further ones when somebody configures them: for
// several runs on one server, or for rows that are not to be mixed with those trained on. Each is a
// Replay of its own, with its own schema, limits, writers and journal; they share nothing but the
// process. A client says which one it means in the address of its channel, "host:port#name"
// (common/rpc/channel.h).
//
// Thread-safety: thread-safe.
#ifndef POMPC_REPLAY_SERVER_TABLES_H_
#define POMPC_REPLAY_SERVER_TABLES_H_

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "replay/server/replay.h"

namespace pompc {

// Tables with a name that a server has at most.
inline constexpr size_t kMaxNamedTables = 256;

class ReplayTables {
 public:
  // Makes the replay of a table with a name, with the rows that its journal holds, if any.
  using Make = std::function<absl::StatusOr<std::unique_ptr<Replay>>(const std::string& name)>;

  // `unnamed` must outlive this. Without `make` there are no other tables.
  explicit ReplayTables(Replay* unnamed, Make make = nullptr)
      : unnamed_(unnamed), make_(std::move(make)) {}

  // The table of this name; the empty name is that of the table without one. UNAVAILABLE: nobody
  // has configured it yet.
  absl::StatusOr<Replay*> Find(absl::string_view name) const;
  // Makes the table if it is not there. INVALID_ARGUMENT: no name for a table. FAILED_PRECONDITION:
  // this server has only one. RESOURCE_EXHAUSTED: too many. UNAVAILABLE: cannot be made.
  absl::StatusOr<Replay*> FindOrMake(absl::string_view name);

  // Of the tables with a name, in order.
  std::vector<std::string> Names() const;

  // Closes all tables. May be repeated.
  void Close();

 private:
  Replay* const unnamed_;
  const Make make_;
  mutable absl::Mutex mu_;
  std::map<std::string, std::unique_ptr<Replay>, std::less<>> named_ ABSL_GUARDED_BY(mu_);
};

}  // namespace pompc

#endif  // POMPC_REPLAY_SERVER_TABLES_H_
