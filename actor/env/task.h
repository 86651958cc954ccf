// What a task adds to a simulation: how episodes start, what is observed, what is rewarded.
//
// To add one: derive from Task in actor/env/tasks/<domain>.cc, list it in that file's table, and
// put a fixture of it in tests/fixtures/tasks. Thread-safety: as the Physics it is used with.
#ifndef POMPC_ACTOR_ENV_TASK_H_
#define POMPC_ACTOR_ENV_TASK_H_

#include <functional>
#include <initializer_list>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "actor/env/environment.h"
#include "actor/env/model.h"
#include "actor/env/physics.h"
#include "actor/env/random_state.h"

namespace pompc::dmc {

// Collects an observation, slice by slice: Slice("height"), then the values of "height".
class ObservationWriter {
 public:
  // values: appended to. slices: appended to; null when only values are wanted.
  ObservationWriter(std::vector<double>* values, std::vector<ObservationSlice>* slices)
      : values_(*values), slices_(slices) {}

  // Ends the slice before, if any. Call End() after the last.
  void Slice(const char* name) {
    if (slices_ == nullptr) return;
    End();
    slices_->push_back({name, static_cast<int64_t>(values_.size()), 0});
  }
  void End() {
    if (slices_ == nullptr || slices_->empty()) return;
    slices_->back().size = static_cast<int64_t>(values_.size()) - slices_->back().offset;
  }
  void Put(double value) { values_.push_back(value); }
  void Put(absl::Span<const double> values) {
    values_.insert(values_.end(), values.begin(), values.end());
  }

 private:
  std::vector<double>& values_;
  std::vector<ObservationSlice>* slices_;
};

class Task {
 public:
  virtual ~Task() = default;

  // Draws that dm_control makes when it builds the environment, before the first episode.
  virtual void Build(Physics&, RandomState&) {}
  // Sets the state for a new episode, after Physics::Reset() and before a last
  // ForwardWithoutActuation(). INTERNAL: no valid state found.
  virtual absl::Status InitializeEpisode(Physics& physics, RandomState& random) = 0;
  virtual void Observe(const Physics& physics, ObservationWriter& out) const = 0;
  virtual double Reward(const Physics& physics) const = 0;
  virtual bool Terminated(const Physics&) const { return false; }

  // The model entries that Build() and InitializeEpisode() change, as part of the state. Floats and
  // doubles apart, because the heightfield is float.
  virtual std::vector<absl::Span<double>> ModelEdits(Physics&) const { return {}; }
  virtual absl::Span<float> HeightfieldEdit(Physics&) const { return {}; }
};

// A row of a domain's table.
struct TaskEntry {
  std::string name;                     // "domain-task".
  std::string file;                     // In suite/.
  double control_timestep_seconds = 0;  // 0: one physics step.
  bool edits_model = false;             // Task::ModelEdits() is not empty.
  std::function<std::unique_ptr<Task>(Physics&)> make = nullptr;
  std::string variant = "";  // Names `edit`; equal file and variant mean equal models.
  ModelEdit edit = nullptr;  // Null: the file as it is.
  bool can_terminate = false;
};

// Sets every limited joint to a uniform draw from its range and every unlimited hinge to one from
// [-pi, pi], in joint order; turns free joints to a random orientation.
// Source: dm_control 1.0.50 suite/utils/randomizers.py:35-91 (without its ball joints, which no
// model has).
void RandomizeLimitedAndRotationalJoints(Physics& physics, RandomState& random);

// Slices "position" (all but the first, how far the planar body has travelled) and "velocity".
void ObserveAllButFirstPosition(const Physics& physics, ObservationWriter& out);

// Repeats `randomize`, then ForwardWithoutActuation(), until nothing touches.
// INTERNAL: not within 10,000 attempts.
absl::Status RandomizeUntilNoContact(Physics& physics, const std::function<void()>& randomize);

}  // namespace pompc::dmc

#endif  // POMPC_ACTOR_ENV_TASK_H_
