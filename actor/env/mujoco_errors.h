// MuJoCo's errors and warnings, without ending the process or writing files.
//
// A warning (bad acceleration, full contact buffer) is counted by MuJoCo in mjData, where Physics
// looks; its text is dropped. An error inside a MuJoCo call that runs under RunMujoco() makes that
// return false; anywhere else it is a broken invariant of ours and aborts with its text.
#ifndef POMPC_ACTOR_ENV_MUJOCO_ERRORS_H_
#define POMPC_ACTOR_ENV_MUJOCO_ERRORS_H_

#include <csetjmp>
#include <string>

namespace pompc::dmc {

// Replaces MuJoCo's process-wide log handler, which prints, writes MUJOCO_LOG.TXT and exits.
// Idempotent.
void InstallMujocoHandlers();

namespace internal {
extern thread_local std::jmp_buf* mujoco_error_exit;
}  // namespace internal

// Text of the last error that RunMujoco() caught on this thread.
std::string LastMujocoError();

// Runs `calls`, which must be calls into MuJoCo alone: on an error they are left by longjmp, past
// any destructor. False on an error; the mjData in use then needs mj_resetData().
template <typename Calls>
bool RunMujoco(const Calls& calls) {
  std::jmp_buf exit;
  if (_setjmp(exit) != 0) {
    internal::mujoco_error_exit = nullptr;
    return false;
  }
  internal::mujoco_error_exit = &exit;
  calls();
  internal::mujoco_error_exit = nullptr;
  return true;
}

}  // namespace pompc::dmc

#endif  // POMPC_ACTOR_ENV_MUJOCO_ERRORS_H_
