#include "replay/server/tables.h"

#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/status_macros.h"

namespace pompc {
absl::StatusOr<Replay*> ReplayTables::Find(absl::string_view name) const {
  if (name.empty()) return unnamed_;
  absl::MutexLock lock(&mu_);
  if (const auto found = named_.find(name); found != named_.end()) return found->second.get();
  return absl::UnavailableError(absl::StrCat(
      "table \"", absl::CHexEscape(name), "\" is not configured yet; this server has ",
      named_.empty() ? "none with a name"
                     : absl::StrJoin(named_, ", ", [](std::string* out, const auto& named) {
                         absl::StrAppend(out, "\"", named.first, "\"");
                       })));
}

absl::StatusOr<Replay*> ReplayTables::FindOrMake(absl::string_view name) {
  if (name.empty()) return unnamed_;
  POMPC_RETURN_IF_ERROR(CheckName("table", name));
  if (make_ == nullptr) {
    return absl::FailedPreconditionError(
        absl::StrCat("table \"", name,
                     "\": the replay inside a learner has one table, without a name; start "
                     "pompc-replay for more"));
  }
  absl::MutexLock lock(&mu_);
  const auto found = named_.find(name);
  if (found != named_.end()) return found->second.get();
  if (named_.size() >= kMaxNamedTables) {
    return absl::ResourceExhaustedError(
        absl::StrCat("table \"", name, "\": this server already has ", kMaxNamedTables));
  }
  POMPC_ASSIGN_OR_RETURN(std::unique_ptr<Replay> made, make_(std::string(name)));
  return named_.emplace(name, std::move(made)).first->second.get();
}

std::vector<std::string> ReplayTables::Names() const {
  absl::MutexLock lock(&mu_);
  std::vector<std::string> names;
  for (const auto& [name, replay] : named_) names.push_back(name);
  return names;
}

void ReplayTables::Close() {
  unnamed_->Close();
  absl::MutexLock lock(&mu_);
  for (const auto& [name, replay] : named_) replay->Close();
}

}  // namespace pompc
