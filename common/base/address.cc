#include "common/base/address.h"

#include <algorithm>
#include <cstdint>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace pompc {
namespace {

constexpr char kUnix[] = "unix:";

}  // namespace

bool IsUnixSocket(const std::string& address) { return address.starts_with(kUnix); }

HostPort SplitAddress(const std::string& address) {
  if (IsUnixSocket(address)) return {};
  const size_t colon = address.rfind(':');
  if (colon == std::string::npos) return {.host = address, .port = ""};
  std::string host = address.substr(0, colon);
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') {
    host = host.substr(1, host.size() - 2);
  }
  return {.host = std::move(host), .port = address.substr(colon + 1)};
}

absl::Status CheckAddress(const std::string& address) {
  if (IsUnixSocket(address)) {
    if (address != kUnix) return absl::OkStatus();
    return absl::InvalidArgumentError(absl::StrCat("\"", address, "\": the path is missing"));
  }
  const auto [host, port] = SplitAddress(address);
  const bool bracketed = address.starts_with('[');
  uint32_t number = 0;
  if ((bracketed || !absl::StrContains(host, ':')) &&
      std::all_of(port.begin(), port.end(), absl::ascii_isdigit) &&
      absl::SimpleAtoi(port, &number) && number <= 65535) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat("\"", address,
                   "\" is no address: it must be HOST:PORT, with a port from 0 to "
                   "65535 and an IPv6 address in brackets, or unix:PATH"));
}

}  // namespace pompc
