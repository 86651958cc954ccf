#include "actor/render/gl_context.h"

#include <dlfcn.h>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"

namespace pompc {
namespace {

// Of GL/osmesa.h, which is not needed to build. The interface has been stable since 2000.
constexpr unsigned kRgba = 0x1908, kUnsignedByte = 0x1401;
constexpr int kDepthBits = 24, kStencilBits = 8, kAccumulationBits = 0;
constexpr int kSize = 64;  // Pixels; of the buffer that nothing is read from.
using CreateContext = void* (*)(unsigned format, int depth, int stencil, int accumulation,
                                void* share);
using MakeCurrent = unsigned char (*)(void* context, void* buffer, unsigned type, int width,
                                      int height);
using DestroyContext = void (*)(void* context);

}  // namespace

absl::StatusOr<std::unique_ptr<GlContext>> GlContext::Create() {
  // Global, because MuJoCo looks among the loaded libraries for one with OpenGL. Never unloaded.
  void* const library = dlopen("libOSMesa.so.8", RTLD_NOW | RTLD_GLOBAL);
  if (library == nullptr) {
    return absl::FailedPreconditionError(absl::StrCat(
        "rendering needs Mesa's libOSMesa: apt-get install libosmesa6 (", dlerror(), ")"));
  }
  const auto create = reinterpret_cast<CreateContext>(dlsym(library, "OSMesaCreateContextExt"));
  const auto make_current = reinterpret_cast<MakeCurrent>(dlsym(library, "OSMesaMakeCurrent"));
  const auto destroy = reinterpret_cast<DestroyContext>(dlsym(library, "OSMesaDestroyContext"));
  if (create == nullptr || make_current == nullptr || destroy == nullptr) {
    return absl::FailedPreconditionError("libOSMesa.so.8 lacks functions of OSMesa");
  }
  auto context = absl::WrapUnique(new GlContext);
  context->destroy_ = destroy;
  context->pixels_.resize(4 * kSize * kSize);
  context->context_ = create(kRgba, kDepthBits, kStencilBits, kAccumulationBits, nullptr);
  if (context->context_ == nullptr ||
      make_current(context->context_, context->pixels_.data(), kUnsignedByte, kSize, kSize) == 0) {
    return absl::FailedPreconditionError("libOSMesa makes no OpenGL context");
  }
  return context;
}

GlContext::~GlContext() {
  if (context_ != nullptr) destroy_(context_);
}

}  // namespace pompc
