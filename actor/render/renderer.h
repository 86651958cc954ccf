// Renderer: pictures of a task's states, as dm_control shows them, with what a planner considered
// and the return so far.
//
// Has a simulation of its own, with the textures that training drops, and puts states into it that
// an Environment of the same task has saved.
//
// Shapes: K candidate sequences, H their length in decisions, A action size.
// Thread-safety: none; used and destroyed on the thread that created it.
#ifndef POMPC_ACTOR_RENDER_RENDERER_H_
#define POMPC_ACTOR_RENDER_RENDERER_H_

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "actor/env/environment.h"

namespace pompc {

struct RenderOptions {
  int width = 640;  // Pixels of the whole picture, in [64, 4096], even.
  int height = 480;
  std::string camera = "";  // Of the model; empty: the task's usual one.
};

// The return over an episode, drawn below the picture.
struct ReturnPlot {
  absl::Span<const double> returns;  // After each decision until now.
  int64_t decisions = 0;             // Where the axis ends.
  double highest = 0;                // Where the other one ends.
};

// Action sequences that a planner weighed, drawn as the paths that they lead to.
struct Candidates {
  absl::Span<const float> actions;  // [K, H, A]; empty: none.
  absl::Span<const float> values;   // [K]; brighter is better. -inf is not drawn.
};

class Renderer {
 public:
  // INVALID_ARGUMENT: a size, task or camera that cannot be (the message names the cameras).
  // FAILED_PRECONDITION: no OpenGL here.
  static absl::StatusOr<std::unique_ptr<Renderer>> Create(EnvironmentOptions environment,
                                                          const RenderOptions& options);
  virtual ~Renderer() = default;

  // Draws a state: rgb bytes, row by row from the top; valid until the next call.
  // INVALID_ARGUMENT: not a state of the task, or candidates of another shape.
  virtual absl::StatusOr<absl::Span<const uint8_t>> Draw(const EnvironmentState& state,
                                                         const Candidates& candidates,
                                                         const ReturnPlot& plot) = 0;
};

}  // namespace pompc

#endif  // POMPC_ACTOR_RENDER_RENDERER_H_
