// A named thread that is joined when its object goes.
#ifndef POMPC_COMMON_BASE_THREAD_H_
#define POMPC_COMMON_BASE_THREAD_H_

#include <pthread.h>

#include <string>
#include <thread>
#include <utility>

namespace pompc {

// Runs `body` at once. Move-only; the destructor waits for the body to return, so whoever owns the
// thread first tells the body to (an Event, a closed queue).
class Thread {
 public:
  // `name` is what debuggers and `top -H` show; the kernel keeps its first 15 characters.
  template <typename Body>
  Thread(std::string name, Body body)
      : thread_([name = std::move(name), body = std::move(body)]() mutable {
          pthread_setname_np(pthread_self(), name.substr(0, 15).c_str());
          body();
        }) {}

  // Blocks until the body has returned.
  void Join() {
    if (thread_.joinable()) thread_.join();
  }

 private:
  std::jthread thread_;
};

}  // namespace pompc

#endif  // POMPC_COMMON_BASE_THREAD_H_
