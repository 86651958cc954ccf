#include "actor/env/mujoco_errors.h"

#include <cstdio>

#include "absl/base/call_once.h"
#include "common/base/check.h"
#include "mujoco/mujoco.h"

namespace pompc::dmc {

namespace internal {
thread_local std::jmp_buf* mujoco_error_exit = nullptr;
}  // namespace internal

namespace {

// Not a std::string: it is written between MuJoCo's frames and the longjmp over them.
thread_local char last_error[sizeof(mjLogMessage::subject)] = "";

void OnMessage(const mjLogMessage* message) {
  if (message->level < mjLOG_ERROR) return;
  std::snprintf(last_error, sizeof(last_error), "%s", message->subject);
  if (internal::mujoco_error_exit != nullptr) std::longjmp(*internal::mujoco_error_exit, 1);
  POMPC_CHECK(false) << "MuJoCo: " << message->subject;
}

}  // namespace

void InstallMujocoHandlers() {
  static absl::once_flag once;
  absl::call_once(once, [] { mju_setLogHandler(OnMessage); });
}

std::string LastMujocoError() { return last_error; }

}  // namespace pompc::dmc
