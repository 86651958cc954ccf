// How kernels of our own are started (launch.cuh), for those who record them.
#ifndef POMPC_COMMON_MODEL_LAUNCH_H_
#define POMPC_COMMON_MODEL_LAUNCH_H_

namespace pompc {

// While one with `late` lives, kernels that this thread starts are set up only when the one before
// them has ended. Set up early they wait on multiprocessors that others could use meanwhile.
class LateLaunchScope {
 public:
  explicit LateLaunchScope(bool late) : before_(late_) { late_ = late; }
  ~LateLaunchScope() { late_ = before_; }
  LateLaunchScope(const LateLaunchScope&) = delete;
  LateLaunchScope& operator=(const LateLaunchScope&) = delete;

  static bool late() { return late_; }

 private:
  static inline thread_local bool late_ = false;
  const bool before_;
};

}  // namespace pompc

#endif  // POMPC_COMMON_MODEL_LAUNCH_H_
