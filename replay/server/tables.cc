#include "replay/server/tables.h"

#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/status_macros.h"

namespace pompc {
namespace {

constexpr size_t kLongestName = 64;

}  // namespace

absl::Status CheckName(absl::string_view field, absl::string_view name) {
  if (!name.empty() && name.size() <= kLongestName &&
      std::all_of(name.begin(), name.end(),
                  [](char c) { return absl::ascii_isalnum(c) || c == '-' || c == '_'; })) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat(field, ": \"", absl::CHexEscape(name),
                                                 "\"; must be 1 to ", kLongestName,
                                                 " letters, digits, \"-\" and \"_\""));
}

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
