#include "actor/render/gl_context.h"

#include <dlfcn.h>

#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"

namespace pompc {
namespace {

// A context and what ends it.
using Destroy = std::function<void()>;

absl::StatusOr<void*> Load(const char* library, const char* package) {
  // Global, because MuJoCo looks among the loaded libraries for one with OpenGL. Never unloaded.
  if (void* const handle = dlopen(library, RTLD_NOW | RTLD_GLOBAL); handle != nullptr) {
    return handle;
  }
  return absl::FailedPreconditionError(absl::StrCat(
      "rendering needs ", library, ": apt-get install ", package, " (", dlerror(), ")"));
}

absl::Status Refused(const char* what) {
  return absl::FailedPreconditionError(absl::StrCat("no OpenGL context: ", what));
}

// Of GL/osmesa.h, which is not needed to build. The interface has been stable since 2000.
absl::StatusOr<Destroy> CreateOsMesa() {
  constexpr unsigned kRgba = 0x1908, kUnsignedByte = 0x1401;
  constexpr int kDepthBits = 24, kStencilBits = 8, kAccumulationBits = 0;
  constexpr int kSize = 64;  // Pixels; of the buffer that nothing is read from.
  POMPC_ASSIGN_OR_RETURN(void* const library, Load("libOSMesa.so.8", "libosmesa6"));
  const auto create =
      reinterpret_cast<void* (*)(unsigned format, int depth, int stencil, int accumulation,
                                 void* share)>(dlsym(library, "OSMesaCreateContextExt"));
  const auto make_current =
      reinterpret_cast<unsigned char (*)(void* context, void* buffer, unsigned type, int width,
                                         int height)>(dlsym(library, "OSMesaMakeCurrent"));
  const auto destroy =
      reinterpret_cast<void (*)(void* context)>(dlsym(library, "OSMesaDestroyContext"));
  if (create == nullptr || make_current == nullptr || destroy == nullptr) {
    return Refused("libOSMesa.so.8 lacks functions of OSMesa");
  }
  void* const context = create(kRgba, kDepthBits, kStencilBits, kAccumulationBits, nullptr);
  if (context == nullptr) return Refused("OSMesaCreateContextExt failed");
  // What OSMesa draws on; pictures go to MuJoCo's own buffer.
  auto pixels = std::make_shared<std::vector<unsigned char>>(4 * kSize * kSize);
  Destroy end = [destroy, context, pixels] { destroy(context); };
  if (make_current(context, pixels->data(), kUnsignedByte, kSize, kSize) == 0) {
    end();
    return Refused("OSMesaMakeCurrent failed");
  }
  return end;
}

// Of EGL/egl.h and EGL/eglext.h: the first device that can, without a surface.
absl::StatusOr<Destroy> CreateEgl() {
  constexpr unsigned kDevicePlatform = 0x313F, kOpenGl = 0x30A2;
  constexpr int kMaxDevices = 16;
  // Red, green, blue and alpha 8 bits, depth 24, stencil 8; of RGB, for OpenGL in a pixel buffer.
  constexpr int kConfig[] = {0x3024, 8, 0x3023, 8,      0x3022, 8, 0x3021, 8, 0x3025, 24,
                             0x3026, 8, 0x303F, 0x308E, 0x3033, 1, 0x3040, 8, 0x3038};
  POMPC_ASSIGN_OR_RETURN(void* const library, Load("libEGL.so.1", "libegl1"));
  const auto address =
      reinterpret_cast<void* (*)(const char* name)>(dlsym(library, "eglGetProcAddress"));
  if (address == nullptr) return Refused("libEGL.so.1 lacks functions of EGL");
  const auto query_devices = reinterpret_cast<unsigned (*)(int max, void** devices, int* count)>(
      address("eglQueryDevicesEXT"));
  const auto get_display =
      reinterpret_cast<void* (*)(unsigned platform, void* device, const int* attributes)>(
          address("eglGetPlatformDisplayEXT"));
  const auto initialize = reinterpret_cast<unsigned (*)(void* display, int* major, int* minor)>(
      address("eglInitialize"));
  const auto bind_api = reinterpret_cast<unsigned (*)(unsigned api)>(address("eglBindAPI"));
  const auto choose_config =
      reinterpret_cast<unsigned (*)(void* display, const int* attributes, void** configs, int max,
                                    int* count)>(address("eglChooseConfig"));
  const auto create =
      reinterpret_cast<void* (*)(void* display, void* config, void* share, const int* attributes)>(
          address("eglCreateContext"));
  const auto make_current =
      reinterpret_cast<unsigned (*)(void* display, void* draw, void* read, void* context)>(
          address("eglMakeCurrent"));
  const auto destroy =
      reinterpret_cast<unsigned (*)(void* display, void* context)>(address("eglDestroyContext"));
  if (query_devices == nullptr || get_display == nullptr || initialize == nullptr ||
      bind_api == nullptr || choose_config == nullptr || create == nullptr ||
      make_current == nullptr || destroy == nullptr) {
    return Refused("libEGL.so.1 lacks functions of EGL");
  }
  void* devices[kMaxDevices];
  int num_devices = 0;
  query_devices(kMaxDevices, devices, &num_devices);
  for (int i = 0; i < num_devices; ++i) {
    // Displays are shared by all contexts and not ended.
    void* const display = get_display(kDevicePlatform, devices[i], nullptr);
    if (display == nullptr || initialize(display, nullptr, nullptr) == 0) continue;
    void* config = nullptr;
    int num_configs = 0;
    if (bind_api(kOpenGl) == 0 || choose_config(display, kConfig, &config, 1, &num_configs) == 0 ||
        num_configs < 1) {
      continue;
    }
    void* const context = create(display, config, nullptr, nullptr);
    if (context == nullptr) continue;
    Destroy end = [make_current, destroy, display, context] {
      make_current(display, nullptr, nullptr, nullptr);
      destroy(display, context);
    };
    if (make_current(display, nullptr, nullptr, context) != 0) return end;
    end();
  }
  return Refused("EGL has no device that makes one");
}

}  // namespace

absl::StatusOr<std::unique_ptr<GlContext>> GlContext::Create() {
  const char* const set = std::getenv("MUJOCO_GL");
  const std::string choice = set == nullptr || *set == '\0' ? "osmesa" : set;
  if (choice != "osmesa" && choice != "egl") {
    return absl::FailedPreconditionError(
        absl::StrCat("MUJOCO_GL=", choice, ": there are osmesa and egl"));
  }
  POMPC_ASSIGN_OR_RETURN(Destroy destroy, choice == "egl" ? CreateEgl() : CreateOsMesa());
  return absl::WrapUnique(new GlContext(std::move(destroy)));
}

}  // namespace pompc
