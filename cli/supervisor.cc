#include "cli/supervisor.h"

#include <algorithm>
#include <csignal>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/base/exit_status.h"
#include "common/base/file.h"
#include "common/base/status_macros.h"

namespace pompc {
namespace {

constexpr absl::Duration kPollInterval = absl::Milliseconds(100);
// A child that ran this long was healthy: its failures are counted anew.
constexpr absl::Duration kHealthyAfter = absl::Minutes(1);
constexpr absl::Duration kLongestBackoff = absl::Seconds(30);

}  // namespace

absl::Status Supervisor::Add(Child child) {
  Entry entry{.child = std::move(child)};
  POMPC_RETURN_IF_ERROR(Start(entry, /*again=*/false));
  entries_.push_back(std::move(entry));
  return absl::OkStatus();
}

absl::Status Supervisor::Start(Entry& entry, bool again) {
  POMPC_ASSIGN_OR_RETURN(ChildProcess process,
                         ChildProcess::Start(entry.child.argv, LogPath(entry.child.name)));
  if (again) {
    entry.started_again = true;
    ++restarts_;
    report_(absl::StrCat(entry.child.name, " started again (pid ", process.pid(), ")"));
  }
  entry.process.emplace(std::move(process));
  entry.started = clock_->Now();
  return absl::OkStatus();
}

absl::Status Supervisor::HandleEnd(Entry& entry) {
  const ChildProcess::End end = *entry.process->Poll();
  entry.process.reset();
  if (end.code == 0 && entry.child.may_leave) {
    entry.left = true;
    return absl::OkStatus();
  }
  const std::string log = LogPath(entry.child.name);
  const auto end_of_log = [&] {
    return absl::StrCat("The end of ", log, ":\n", TailOfFile(log, 12));
  };
  const absl::Time now = clock_->Now();
  const bool healthy = now - entry.started > kHealthyAfter;
  if (end.code == kWrongCommandLine && !healthy && !entry.started_again) {
    return absl::InvalidArgumentError(absl::StrFormat("%s cannot do what it was told (%s)\n%s",
                                                      entry.child.name, end.what, end_of_log()));
  }
  if (healthy) entry.failures = 0;
  ++entry.failures;
  if (entry.failures >= kMaxFailures) {
    return absl::AbortedError(absl::StrFormat("%s failed %d times in a row (%s)\n%s",
                                              entry.child.name, entry.failures, end.what,
                                              end_of_log()));
  }
  const absl::Duration backoff =
      std::min(absl::Seconds(1 << (entry.failures - 1)), kLongestBackoff);
  entry.restart_at = now + backoff;
  report_(absl::StrFormat("%s ended: %s; next try in %s (log: %s)", entry.child.name, end.what,
                          absl::FormatDuration(backoff), log));
  return absl::OkStatus();
}

absl::Status Supervisor::Tick() {
  for (Entry& entry : entries_) {
    if (entry.left) continue;
    if (entry.process.has_value()) {
      if (entry.process->Poll().has_value()) POMPC_RETURN_IF_ERROR(HandleEnd(entry));
    } else if (clock_->Now() >= entry.restart_at) {
      POMPC_RETURN_IF_ERROR(Start(entry, /*again=*/true));
    }
  }
  return absl::OkStatus();
}

bool Supervisor::HasLeft(const std::string& name) const {
  return std::any_of(entries_.begin(), entries_.end(),
                     [&](const Entry& e) { return e.child.name == name && e.left; });
}

void Supervisor::Pause() { clock_->SleepUntil(clock_->Now() + kPollInterval); }

void Supervisor::AwaitLeave(absl::Duration grace) {
  const absl::Time deadline = clock_->Now() + grace;
  for (Entry& entry : entries_) {
    while (entry.child.may_leave && entry.process.has_value() &&
           !entry.process->Poll().has_value() && clock_->Now() < deadline) {
      Pause();
    }
  }
}

void Supervisor::Stop(absl::Duration grace) {
  while (!entries_.empty()) {
    int tier = entries_.front().child.tier;
    for (const Entry& entry : entries_) tier = std::max(tier, entry.child.tier);
    const auto runs = [tier](Entry& entry) {
      return entry.child.tier == tier && entry.process.has_value() &&
             !entry.process->Poll().has_value();
    };
    for (Entry& entry : entries_) {
      if (runs(entry)) entry.process->Signal(SIGTERM);
    }
    const absl::Time deadline = clock_->Now() + grace;
    while (std::any_of(entries_.begin(), entries_.end(), runs) && clock_->Now() < deadline) Pause();
    for (Entry& entry : entries_) {
      if (!runs(entry)) continue;
      report_(absl::StrCat(entry.child.name, " did not leave within ", absl::FormatDuration(grace),
                           " and is killed"));
    }
    // Kills what still runs.
    std::erase_if(entries_, [tier](const Entry& entry) { return entry.child.tier == tier; });
  }
}

std::string TailOfFile(const std::string& path, int lines) {
  std::string content = ReadFile(path).value_or("");
  if (!content.empty() && content.back() == '\n') content.pop_back();
  size_t from = content.size();
  for (int i = 0; i < lines && from != std::string::npos && from > 0; ++i) {
    from = content.rfind('\n', from - 1);
  }
  return from == std::string::npos || from == 0 ? content : content.substr(from + 1);
}

}  // namespace pompc
