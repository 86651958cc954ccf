#include "common/base/log.h"

#include <array>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <string>

#include "common/base/check.h"
#include "spdlog/sinks/stdout_sinks.h"
#include "spdlog/spdlog.h"

namespace pompc {
namespace {

std::array<std::atomic<int64_t>, 5> line_counts{};

spdlog::logger& Logger() {
  // Leaked on purpose: threads may log while static destructors run.
  static spdlog::logger* const logger = [] {
    auto* l = new spdlog::logger("pompc", std::make_shared<spdlog::sinks::stderr_sink_mt>());
    l->set_pattern("%Y-%m-%dT%H:%M:%S.%e %L %n %v");
    l->flush_on(spdlog::level::trace);
    return l;
  }();
  return *logger;
}

std::string& ProcessName() {
  static std::string* const name = new std::string("pompc");
  return *name;
}

const char* Basename(const char* path) {
  const char* slash = std::strrchr(path, '/');
  return slash == nullptr ? path : slash + 1;
}

}  // namespace

void InitLogging(std::string_view process) { ProcessName() = process; }

int64_t LogLineCount(LogSeverity severity) {
  return line_counts[static_cast<size_t>(severity)].load(std::memory_order_relaxed);
}

namespace internal {

LogLine::~LogLine() {
  line_counts[static_cast<size_t>(severity_)].fetch_add(1, std::memory_order_relaxed);
  constexpr spdlog::level::level_enum kLevels[] = {spdlog::level::debug, spdlog::level::info,
                                                   spdlog::level::warn, spdlog::level::err,
                                                   spdlog::level::critical};
  Logger().log(kLevels[static_cast<size_t>(severity_)], "{} {}:{} {}", ProcessName(),
               Basename(file_), line_, stream_.str());
}

CheckFailure::CheckFailure(const char* file, int line, const char* condition) {
  stream_ << "check failed at " << Basename(file) << ":" << line << ": " << condition << " ";
}

CheckFailure::~CheckFailure() {
  POMPC_LOG(FATAL) << stream_.str();
  std::abort();
}

}  // namespace internal
}  // namespace pompc
