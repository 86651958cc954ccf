// POMPC_CHECK: ends the process when an invariant of our own code is broken. Never for bad input,
// which gets an absl::Status.
//
//   POMPC_CHECK(index < size) << "index=" << index << " size=" << size;
#ifndef POMPC_COMMON_BASE_CHECK_H_
#define POMPC_COMMON_BASE_CHECK_H_

#include <sstream>

namespace pompc::internal {

// Collects the message; its destructor logs it at FATAL and aborts.
class CheckFailure {
 public:
  CheckFailure(const char* file, int line, const char* condition);
  [[noreturn]] ~CheckFailure();
  std::ostream& stream() { return stream_; }

 private:
  std::ostringstream stream_;
};

// Gives both branches of the conditional below the type void.
struct Voidify {
  void operator&(std::ostream&) const {}
};

}  // namespace pompc::internal

#define POMPC_CHECK(condition)                 \
  (condition) ? (void)0                        \
              : ::pompc::internal::Voidify() & \
                    ::pompc::internal::CheckFailure(__FILE__, __LINE__, #condition).stream()

#define POMPC_CHECK_OK(expr)                                                 \
  do {                                                                       \
    const absl::Status& pompc_check_status_ = (expr);                        \
    POMPC_CHECK(pompc_check_status_.ok()) << pompc_check_status_.ToString(); \
  } while (false)

#endif  // POMPC_COMMON_BASE_CHECK_H_
