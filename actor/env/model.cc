#include "actor/env/model.h"

#include <cstdlib>
#include <filesystem>
#include <map>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "actor/env/mujoco_errors.h"
#include "common/base/status_macros.h"

namespace pompc::dmc {
namespace {

namespace fs = std::filesystem;

bool HoldsSuite(const fs::path& folder) {
  std::error_code ignored;
  return fs::exists(folder / "suite", ignored);
}

std::vector<mjsElement*> Elements(mjSpec* spec, mjtObj type) {
  std::vector<mjsElement*> elements;
  for (mjsElement* e = mjs_firstElement(spec, type); e != nullptr; e = mjs_nextElement(spec, e)) {
    elements.push_back(e);
  }
  return elements;
}

}  // namespace

absl::StatusOr<std::string> FindDmControl() {
  if (const char* folder = std::getenv("POMPC_DM_CONTROL"); folder != nullptr && *folder != 0) {
    if (HoldsSuite(folder)) return std::string(folder);
    return absl::NotFoundError(
        absl::StrCat("$POMPC_DM_CONTROL=", folder, " holds no folder suite/ with task models"));
  }
  std::error_code error;
  const fs::path program = fs::read_symlink("/proc/self/exe", error);
  const fs::path installed = program.parent_path().parent_path() / "share/pompc/dm_control";
  if (!error && HoldsSuite(installed)) return installed.string();
  if (HoldsSuite(POMPC_DM_CONTROL_FOLDER)) return std::string(POMPC_DM_CONTROL_FOLDER);
  return absl::NotFoundError(
      absl::StrCat("no task models: neither ", installed.string(), " nor ", POMPC_DM_CONTROL_FOLDER,
                   " exists. Run `make setup`, or let $POMPC_DM_CONTROL name dm_control's folder"));
}

absl::StatusOr<ModelSpec> ModelSpec::Parse(const std::string& path) {
  InstallMujocoHandlers();
  std::error_code ignored;
  if (!fs::exists(path, ignored)) return absl::NotFoundError(absl::StrCat("no model file ", path));
  char error[1000] = "";
  mjSpec* spec = mj_parseXML(path.c_str(), nullptr, error, sizeof(error));
  if (spec == nullptr) return absl::InvalidArgumentError(absl::StrCat(path, ": ", error));
  return ModelSpec(spec);
}

absl::StatusOr<mjsElement*> ModelSpec::Find(mjtObj type, const char* name) const {
  mjsElement* element = mjs_findElement(get(), type, name);
  if (element != nullptr) return element;
  return absl::FailedPreconditionError(absl::StrCat("model ", mjs_getString(get()->modelname),
                                                    " has no ", mju_type2Str(type), " '", name,
                                                    "': not dm_control 1.0.50?"));
}

absl::StatusOr<mjsDefault*> ModelSpec::FindDefault(const char* name) const {
  mjsDefault* found = mjs_findDefault(get(), name);
  if (found != nullptr) return found;
  return absl::FailedPreconditionError(absl::StrCat("model ", mjs_getString(get()->modelname),
                                                    " has no default class '", name,
                                                    "': not dm_control 1.0.50?"));
}

absl::Status ModelSpec::Delete(mjtObj type, const char* name) {
  POMPC_ASSIGN_OR_RETURN(mjsElement * element, Find(type, name));
  return Delete(element);
}

absl::Status ModelSpec::DeleteSensors(mjtSensor type) {
  for (mjsElement* e : Elements(get(), mjOBJ_SENSOR)) {
    if (mjs_asSensor(e)->type == type) POMPC_RETURN_IF_ERROR(Delete(e));
  }
  return absl::OkStatus();
}

absl::Status ModelSpec::Delete(mjsElement* element) {
  if (mjs_delete(get(), element) == 0) return absl::OkStatus();
  return absl::InternalError(absl::StrCat("model ", mjs_getString(get()->modelname),
                                          ": cannot delete ", mjs_getString(mjs_getName(element)),
                                          ": ", mjs_getError(get())));
}

absl::Status ModelSpec::Strip() {
  for (mjsElement* e : Elements(get(), mjOBJ_MATERIAL)) {
    mjStringVec* textures = mjs_asMaterial(e)->textures;
    for (int role = 0; role < mjNTEXROLE; ++role) mjs_setInStringVec(textures, role, "");
  }
  for (const mjtObj type : {mjOBJ_TEXTURE, mjOBJ_SKIN}) {
    for (mjsElement* e : Elements(get(), type)) POMPC_RETURN_IF_ERROR(Delete(e));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::shared_ptr<const mjModel>> ModelSpec::Compile() const {
  mjModel* model = mj_compile(get(), nullptr);
  if (model == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat("model ", mjs_getString(get()->modelname), ": ", mjs_getError(get())));
  }
  return std::shared_ptr<const mjModel>(
      model, [](const mjModel* m) { mj_deleteModel(const_cast<mjModel*>(m)); });
}

absl::StatusOr<std::shared_ptr<const mjModel>> LoadModel(const std::string& file,
                                                         const std::string& variant,
                                                         const ModelEdit& edit, Visuals visuals) {
  // One lock for the whole compilation: environments that are created at once wait for one model.
  static absl::Mutex mutex(absl::kConstInit);
  static auto* const models ABSL_GUARDED_BY(mutex) =
      new std::map<std::string, std::weak_ptr<const mjModel>>;
  POMPC_ASSIGN_OR_RETURN(const std::string folder, FindDmControl());
  const std::string path = absl::StrCat(folder, "/suite/", file);
  absl::MutexLock lock(&mutex);
  std::weak_ptr<const mjModel>& cached =
      (*models)[absl::StrCat(path, ":", variant, visuals == Visuals::kKeep ? ":visuals" : "")];
  if (std::shared_ptr<const mjModel> model = cached.lock()) return model;
  POMPC_ASSIGN_OR_RETURN(ModelSpec spec, ModelSpec::Parse(path));
  if (edit) POMPC_RETURN_IF_ERROR(edit(spec));
  if (visuals == Visuals::kDrop) POMPC_RETURN_IF_ERROR(spec.Strip());
  POMPC_ASSIGN_OR_RETURN(std::shared_ptr<const mjModel> model, spec.Compile());
  cached = model;
  return model;
}

}  // namespace pompc::dmc
