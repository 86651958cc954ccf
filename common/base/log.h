// POMPC_LOG(INFO) << "joined learner" << " actor_index=" << index;
//
// One line per event: a message, then key=value pairs. Nothing is logged per environment step.
// Thread-safe. Lines go to stderr; InitLogging() names the process in them.
#ifndef POMPC_COMMON_BASE_LOG_H_
#define POMPC_COMMON_BASE_LOG_H_

#include <cstdint>
#include <sstream>
#include <string_view>

namespace pompc {

enum class LogSeverity { DEBUG, INFO, WARNING, ERROR, FATAL };

// Prefixes every line with `process`, e.g. "learner" or "actor-3". Call once, in main().
void InitLogging(std::string_view process);

// Lines logged so far at this severity, for the log_lines_total metric.
int64_t LogLineCount(LogSeverity severity);

namespace internal {

class LogLine {
 public:
  LogLine(LogSeverity severity, const char* file, int line)
      : severity_(severity), file_(file), line_(line) {}
  ~LogLine();
  std::ostream& stream() { return stream_; }

 private:
  LogSeverity severity_;
  const char* file_;
  int line_;
  std::ostringstream stream_;
};

}  // namespace internal
}  // namespace pompc

#define POMPC_LOG(severity) \
  ::pompc::internal::LogLine(::pompc::LogSeverity::severity, __FILE__, __LINE__).stream()

#endif  // POMPC_COMMON_BASE_LOG_H_
