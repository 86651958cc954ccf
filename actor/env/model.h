// Finds, edits, strips and compiles MJCF models, and shares compiled ones within the process.
//
// Textures, materials' references to them and skins are dropped before compiling: they are most of
// a model's memory (11 MiB of a cartpole's 11.3) and change nothing in the dynamics.
// Thread-safety: ModelSpec: none. The free functions may be called from any thread.
#ifndef POMPC_ACTOR_ENV_MODEL_H_
#define POMPC_ACTOR_ENV_MODEL_H_

#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "mujoco/mujoco.h"

namespace pompc::dmc {

// Folder with dm_control's files, i.e. the one that holds suite/. See CreateEnvironment() for where
// it is looked for. NOT_FOUND: nowhere; the message says what to run.
absl::StatusOr<std::string> FindDmControl();

// A parsed model that can still be edited: the C++ counterpart of dm_control's XML edits.
class ModelSpec {
 public:
  // NOT_FOUND: no such file. INVALID_ARGUMENT: not MJCF; the message is MuJoCo's.
  static absl::StatusOr<ModelSpec> Parse(const std::string& path);

  // Strings and vectors in it belong to MuJoCo's C++ library, which need not be ours: touch them
  // through mjs_getString(), mjs_setString() and their like alone.
  mjSpec* get() const { return spec_.get(); }
  // FAILED_PRECONDITION: no element of this name, so the file is not the one this code was written
  // for.
  absl::StatusOr<mjsElement*> Find(mjtObj type, const char* name) const;
  absl::StatusOr<mjsDefault*> FindDefault(const char* name) const;
  absl::Status Delete(mjtObj type, const char* name);
  absl::Status DeleteSensors(mjtSensor type);

  // Drops what only a renderer needs.
  absl::Status Strip();
  // INVALID_ARGUMENT: does not compile; the message is MuJoCo's.
  absl::StatusOr<std::shared_ptr<const mjModel>> Compile() const;

 private:
  absl::Status Delete(mjsElement* element);

  explicit ModelSpec(mjSpec* spec) : spec_(spec, mj_deleteSpec) {}
  std::unique_ptr<mjSpec, void (*)(mjSpec*)> spec_;
};

using ModelEdit = std::function<absl::Status(ModelSpec&)>;

enum class Visuals { kDrop, kKeep };  // Whether Strip() is applied.

// The compiled model of suite/<file> after `edit` (may be empty). Shared with everyone who still
// holds the model of the same `file`, `visuals` and `variant`, which names the edit.
// Errors: as FindDmControl(), Parse(), Find() and Compile().
absl::StatusOr<std::shared_ptr<const mjModel>> LoadModel(const std::string& file,
                                                         const std::string& variant,
                                                         const ModelEdit& edit, Visuals visuals);

}  // namespace pompc::dmc

#endif  // POMPC_ACTOR_ENV_MODEL_H_
