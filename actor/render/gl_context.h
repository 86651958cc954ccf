// OpenGL without a display, by a library that is loaded when somebody first asks for it, so that no
// program needs it to start.
//
// $MUJOCO_GL says which, as for dm_control: "osmesa", Mesa's software renderer and what is taken
// when it is unset, or "egl", which draws on a GPU where its driver brings EGL.
#ifndef POMPC_ACTOR_RENDER_GL_CONTEXT_H_
#define POMPC_ACTOR_RENDER_GL_CONTEXT_H_

#include <functional>
#include <memory>
#include <utility>

#include "absl/status/statusor.h"

namespace pompc {

class GlContext {
 public:
  // Makes a context that is current on the calling thread, on which alone it is used and destroyed.
  // One process uses one of the libraries. FAILED_PRECONDITION: no such library (the message names
  // the package), it refuses, or $MUJOCO_GL names another one.
  static absl::StatusOr<std::unique_ptr<GlContext>> Create();
  ~GlContext() { destroy_(); }

 private:
  explicit GlContext(std::function<void()> destroy) : destroy_(std::move(destroy)) {}

  const std::function<void()> destroy_;
};

}  // namespace pompc

#endif  // POMPC_ACTOR_RENDER_GL_CONTEXT_H_
