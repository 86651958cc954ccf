#include "cli/kept_port.h"

#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"

namespace pompc {

absl::StatusOr<KeptPort> KeptPort::Create(int number) {
  KeptPort port(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(number));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(address);
  const int yes = 1;
  if (port.socket_ < 0 ||
      setsockopt(port.socket_, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes)) != 0 ||
      bind(port.socket_, reinterpret_cast<sockaddr*>(&address), size) != 0 ||
      getsockname(port.socket_, reinterpret_cast<sockaddr*>(&address), &size) != 0) {
    return absl::UnavailableError(
        absl::StrCat("cannot have ", number == 0 ? "a free port" : absl::StrCat("port ", number),
                     " of 127.0.0.1: ", std::strerror(errno)));
  }
  port.number_ = ntohs(address.sin_port);
  return port;
}

KeptPort::KeptPort(KeptPort&& other) noexcept
    : socket_(std::exchange(other.socket_, -1)), number_(other.number_) {}

KeptPort::~KeptPort() {
  if (socket_ >= 0) close(socket_);
}

}  // namespace pompc
