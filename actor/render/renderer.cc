#include "actor/render/renderer.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "actor/env/mujoco_errors.h"
#include "actor/env/suite_environment.h"
#include "actor/render/gl_context.h"
#include "common/base/check.h"
#include "common/base/status_macros.h"
#include "mujoco/mujoco.h"

namespace pompc {
namespace {

constexpr int kMaxGeoms = 20000;       // Of a scene, traces included.
constexpr int kPlotShare = 4;          // The plot takes the lowest quarter of a picture.
constexpr double kTraceWidth = 0.004;  // Of a trace, in the model's extents.

std::vector<std::string> CameraNames(const mjModel& model) {
  std::vector<std::string> names;
  for (int i = 0; i < model.ncam; ++i) {
    if (const char* name = mj_id2name(&model, mjOBJ_CAMERA, i); name != nullptr) {
      names.emplace_back(name);
    }
  }
  return names;
}

// -1: the free camera, of a model without any.
absl::StatusOr<int> FindCamera(const mjModel& model, const std::string& task,
                               const std::string& name) {
  if (name.empty()) {
    // As the pictures of TD-MPC2 (nicklashansen/tdmpc2@e9f5932 tdmpc2/envs/dmcontrol.py).
    const int usual = absl::StartsWith(task, "quadruped-") ? 2 : 0;
    return usual < model.ncam ? usual : -1;
  }
  const int id = mj_name2id(&model, mjOBJ_CAMERA, name.c_str());
  if (id >= 0) return id;
  return absl::InvalidArgumentError(absl::StrCat("no camera '", name, "' in ", task, "; it has ",
                                                 absl::StrJoin(CameraNames(model), ", ")));
}

// The body whose path is drawn: what the task moves (torso or head), else the end of the chain.
int TracedBody(const mjModel& model) {
  for (const char* name : {"torso", "head"}) {
    if (const int id = mj_name2id(&model, mjOBJ_BODY, name); id > 0) return id;
  }
  int deepest = 0, greatest_depth = -1;
  for (int body = 0; body < model.nbody; ++body) {
    int depth = 0;
    for (int b = body; b != 0; b = model.body_parentid[b]) ++depth;
    // A target that a task puts somewhere does not move by itself.
    if (depth > greatest_depth && (body == 0 || model.body_weldid[body] != 0)) {
      deepest = body;
      greatest_depth = depth;
    }
  }
  return deepest;
}

using Point = std::array<double, 3>;

// From dark violet over red to yellow: readable on the suite's blue floors.
std::array<float, 4> Colour(double shade) {
  const double s = std::clamp(shade, 0.0, 1.0);
  return {static_cast<float>(std::min(1.0, 0.35 + 1.1 * s)), static_cast<float>(s * s * 0.95),
          static_cast<float>(0.55 * (1 - s)), static_cast<float>(0.25 + 0.75 * s)};
}

class MujocoRenderer final : public Renderer {
 public:
  MujocoRenderer(std::unique_ptr<GlContext> context,
                 std::unique_ptr<dmc::SuiteEnvironment> environment, const RenderOptions& options,
                 int camera)
      : gl_(std::move(context)),
        shown_(std::move(environment)),
        width_(options.width),
        height_(options.height),
        traced_body_(TracedBody(shown_->physics().model())) {
    mjr_defaultContext(&context_);
    mjv_defaultScene(&scene_);
    mjv_defaultOption(&option_);
    mjv_defaultCamera(&camera_);
    if (camera >= 0) {
      camera_.type = mjCAMERA_FIXED;
      camera_.fixedcamid = camera;
    } else {
      mjv_defaultFreeCamera(&shown_->physics().model(), &camera_);
    }
    PrepareFigure();
  }

  ~MujocoRenderer() override {
    mjv_freeScene(&scene_);
    mjr_freeContext(&context_);
  }

  absl::Status MakeBuffers() {
    const mjModel& model = shown_->physics().model();
    const bool made = dmc::RunMujoco([&] {
      mjv_makeScene(&model, &scene_, kMaxGeoms);
      mjr_makeContext(&model, &context_, width_ >= 1000 ? mjFONTSCALE_150 : mjFONTSCALE_100);
      mjr_resizeOffscreen(width_, height_, &context_);
      mjr_setBuffer(mjFB_OFFSCREEN, &context_);
    });
    if (!made || context_.currentBuffer != mjFB_OFFSCREEN) {
      return absl::FailedPreconditionError(
          absl::StrCat("MuJoCo cannot render here: ", dmc::LastMujocoError()));
    }
    bottom_up_.resize(static_cast<size_t>(3) * width_ * height_);
    picture_.resize(bottom_up_.size());
    return absl::OkStatus();
  }

  absl::StatusOr<absl::Span<const uint8_t>> Draw(const EnvironmentState& state,
                                                 const Candidates& candidates,
                                                 const ReturnPlot& plot) override {
    POMPC_RETURN_IF_ERROR(RollOut(state, candidates));
    POMPC_RETURN_IF_ERROR(shown_->LoadState(state));
    const mjModel& model = shown_->physics().model();
    // Escaping quadrupeds get new ground with every episode.
    for (int i = 0; i < model.nhfield; ++i) mjr_uploadHField(&model, &context_, i);
    mjv_updateScene(&model, &shown_->physics().data(), &option_, nullptr, &camera_, mjCAT_ALL,
                    &scene_);
    AddTraces(model.stat.extent * kTraceWidth);
    const int below = height_ / kPlotShare;
    const mjrRect whole = {0, 0, width_, height_};
    mjr_render({0, below, width_, height_ - below}, &scene_, &context_);
    DrawPlot(plot, {0, 0, width_, below});
    mjr_readPixels(bottom_up_.data(), nullptr, whole, &context_);
    const size_t row = static_cast<size_t>(3) * width_;
    for (int y = 0; y < height_; ++y) {
      std::memcpy(&picture_[y * row], &bottom_up_[(height_ - 1 - y) * row], row);
    }
    return absl::MakeConstSpan(picture_);
  }

 private:
  // The paths of the candidates from `state`, worst first.
  absl::Status RollOut(const EnvironmentState& state, const Candidates& candidates) {
    traces_.clear();
    const size_t count = candidates.values.size();
    if (count == 0) return absl::OkStatus();
    const size_t action_dim = shown_->spec().action_dim;
    const size_t horizon = candidates.actions.size() / (count * action_dim);
    if (horizon == 0 || candidates.actions.size() != count * horizon * action_dim) {
      return absl::InvalidArgumentError(absl::StrCat(count, " candidates of ", shown_->spec().task,
                                                     " with ", candidates.actions.size(),
                                                     " action elements"));
    }
    float low = std::numeric_limits<float>::infinity(), high = -low;
    for (const float value : candidates.values) {
      if (!std::isfinite(value)) continue;
      low = std::min(low, value);
      high = std::max(high, value);
    }
    std::vector<float> observation(shown_->spec().observation_dim);
    for (size_t k = 0; k < count; ++k) {
      const float value = candidates.values[k];
      if (!std::isfinite(value)) continue;
      Trace trace{.shade = high > low ? (value - low) / (high - low) : 1.0};
      POMPC_RETURN_IF_ERROR(shown_->LoadState(state));
      trace.points.push_back(TracedPoint());
      bool over = state.episode_over;
      for (size_t t = 0; t < horizon && !over; ++t) {
        POMPC_ASSIGN_OR_RETURN(
            const StepResult result,
            shown_->Step(candidates.actions.subspan((k * horizon + t) * action_dim, action_dim),
                         absl::MakeSpan(observation)));
        trace.points.push_back(TracedPoint());
        over = result.terminated || result.truncated;
      }
      traces_.push_back(std::move(trace));
    }
    std::sort(traces_.begin(), traces_.end(),
              [](const Trace& a, const Trace& b) { return a.shade < b.shade; });
    return absl::OkStatus();
  }

  Point TracedPoint() const {
    const double* p = shown_->physics().data().xipos + 3 * traced_body_;
    return {p[0], p[1], p[2]};
  }

  void AddTraces(double width) {
    for (const Trace& trace : traces_) {
      const std::array<float, 4> colour = Colour(trace.shade);
      for (size_t i = 1; i < trace.points.size() && scene_.ngeom < scene_.maxgeom; ++i) {
        mjvGeom* geom = &scene_.geoms[scene_.ngeom++];
        mjv_initGeom(geom, mjGEOM_CAPSULE, nullptr, nullptr, nullptr, colour.data());
        mjv_connector(geom, mjGEOM_CAPSULE, width, trace.points[i - 1].data(),
                      trace.points[i].data());
        geom->emission = 1;  // Lines, not bodies: no shading.
        geom->category = mjCAT_DECOR;
      }
    }
  }

  void PrepareFigure() {
    mjv_defaultFigure(&figure_);
    figure_.flg_legend = 0;
    figure_.flg_extend = 0;
    figure_.flg_barplot = 0;
    figure_.figurergba[0] = figure_.figurergba[1] = figure_.figurergba[2] = 0.09f;
    figure_.figurergba[3] = 1;
    figure_.panergba[0] = figure_.panergba[1] = figure_.panergba[2] = 0.14f;
    figure_.panergba[3] = 1;
    figure_.linergb[0][0] = 1.0f;
    figure_.linergb[0][1] = 0.75f;
    figure_.linergb[0][2] = 0.2f;
    figure_.linewidth = 2;
    figure_.gridsize[0] = 6;
    figure_.gridsize[1] = 3;
    std::strcpy(figure_.xformat, "%.0f");
    std::strcpy(figure_.yformat, "%.0f");
    std::strcpy(figure_.minwidth, "1000");
  }

  void DrawPlot(const ReturnPlot& plot, const mjrRect& where) {
    const double now = plot.returns.empty() ? 0 : plot.returns.back();
    absl::SNPrintF(figure_.title, sizeof(figure_.title), "%s   decision %d   return %.1f",
                   shown_->spec().task, plot.returns.size(), now);
    figure_.range[0][0] = 0;
    figure_.range[0][1] = static_cast<float>(std::max<int64_t>(plot.decisions, 1));
    figure_.range[1][0] = 0;
    figure_.range[1][1] = static_cast<float>(std::max(plot.highest, 1e-3));
    // The curve from the origin, thinned to what a figure takes.
    const size_t stride = plot.returns.size() / (mjMAXLINEPNT - 2) + 1;
    int points = 0;
    const auto add = [&](size_t decision, double value) {
      figure_.linedata[0][2 * points] = static_cast<float>(decision);
      figure_.linedata[0][2 * points + 1] = static_cast<float>(value);
      ++points;
    };
    add(0, 0);
    for (size_t i = stride; i < plot.returns.size(); i += stride) add(i, plot.returns[i - 1]);
    if (!plot.returns.empty()) add(plot.returns.size(), now);
    figure_.linepnt[0] = points;
    mjr_figure(where, &figure_, &context_);
  }

  struct Trace {
    std::vector<Point> points = {};
    double shade = 0;  // 0: the worst of its plan, 1: the best.
  };

  const std::unique_ptr<GlContext> gl_;  // Outlives what MuJoCo made in it.
  const std::unique_ptr<dmc::SuiteEnvironment> shown_;
  const int width_, height_, traced_body_;
  mjrContext context_;
  mjvScene scene_;
  mjvOption option_;
  mjvCamera camera_;
  mjvFigure figure_;
  std::vector<Trace> traces_;
  std::vector<uint8_t> bottom_up_, picture_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Renderer>> Renderer::Create(EnvironmentOptions environment,
                                                           const RenderOptions& options) {
  for (const int size : {options.width, options.height}) {
    if (size < 64 || size > 4096 || size % 2 != 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("a picture of ", options.width, "x", options.height,
                       ": width and height must be even and in [64, 4096]"));
    }
  }
  environment.visuals = true;
  POMPC_ASSIGN_OR_RETURN(std::unique_ptr<dmc::SuiteEnvironment> shown,
                         dmc::SuiteEnvironment::Create(environment));
  POMPC_ASSIGN_OR_RETURN(const int camera,
                         FindCamera(shown->physics().model(), environment.task, options.camera));
  POMPC_ASSIGN_OR_RETURN(std::unique_ptr<GlContext> context, GlContext::Create());
  auto renderer =
      std::make_unique<MujocoRenderer>(std::move(context), std::move(shown), options, camera);
  POMPC_RETURN_IF_ERROR(renderer->MakeBuffers());
  return renderer;
}

}  // namespace pompc
