// OpenGL without a display: Mesa's software renderer, loaded when somebody first asks for it, so
// that no program needs it to start.
#ifndef POMPC_ACTOR_RENDER_GL_CONTEXT_H_
#define POMPC_ACTOR_RENDER_GL_CONTEXT_H_

#include <memory>
#include <vector>

#include "absl/status/statusor.h"

namespace pompc {

class GlContext {
 public:
  // Makes a context that is current on the calling thread, on which alone it is used and destroyed.
  // FAILED_PRECONDITION: no libOSMesa (the message names the package), or it refuses.
  static absl::StatusOr<std::unique_ptr<GlContext>> Create();
  ~GlContext();

 private:
  GlContext() = default;

  void* context_ = nullptr;  // OSMesaContext.
  void (*destroy_)(void*) = nullptr;
  std::vector<unsigned char> pixels_;  // What OSMesa draws on; pictures go to MuJoCo's own buffer.
};

}  // namespace pompc

#endif  // POMPC_ACTOR_RENDER_GL_CONTEXT_H_
