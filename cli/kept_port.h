// A TCP port of the loopback interface, kept for one of our children by a socket that is bound to
// it and never listens: nobody is given such a port, and SO_REUSEADDR lets the child listen on it,
// also after a restart.
#ifndef POMPC_CLI_KEPT_PORT_H_
#define POMPC_CLI_KEPT_PORT_H_

#include "absl/status/statusor.h"

namespace pompc {

class KeptPort {
 public:
  // number: 0 for a free one. UNAVAILABLE: somebody else has it.
  static absl::StatusOr<KeptPort> Create(int number = 0);

  KeptPort(KeptPort&& other) noexcept;
  ~KeptPort();

  int number() const { return number_; }

 private:
  explicit KeptPort(int socket) : socket_(socket) {}

  int socket_;
  int number_ = 0;
};

}  // namespace pompc

#endif  // POMPC_CLI_KEPT_PORT_H_
