#include "learner/service/run_checkpoint.h"

#include <map>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/log.h"
#include "common/base/status_macros.h"
#include "common/config/config.h"
#include "common/config/schema.h"
#include "google/protobuf/text_format.h"

namespace pompc {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::TextFormat;

constexpr char kUnset[] = "unset";

bool MayDiffer(const std::string& path) {
  return path == "preset" || path == "total_decisions" || absl::StartsWith(path, "evaluation.") ||
         absl::StartsWith(path, "actor.") ||
         (absl::StartsWith(path, "learner.") && path != "learner.publish_every");
}

std::map<std::string, std::string> FieldValues(const v1::RunConfig& config) {
  std::map<std::string, std::string> values;
  ForEachField(config, [&values](const std::string& path, const Message& holder,
                                 const FieldDescriptor& field) {
    std::string& value = values[path];
    if (!holder.GetReflection()->HasField(holder, &field)) {
      value = kUnset;
    } else {
      TextFormat::PrintFieldValueToString(holder, &field, -1, &value);
    }
  });
  return values;
}

absl::StatusOr<std::string> Metadata(const Checkpoint& checkpoint, const std::string& key,
                                     const std::string& path) {
  const auto found = checkpoint.metadata.find(key);
  if (found == checkpoint.metadata.end()) {
    return absl::DataLossError(absl::StrCat(path, " is no checkpoint of a run: no ", key));
  }
  return found->second;
}

}  // namespace

std::string NewRunId(const v1::RunConfig& config, absl::Time start) {
  return absl::StrCat(ConfigHash(config), "-", absl::Hex(absl::ToUnixMicros(start)));
}

std::string RunStatusPath(const std::string& run_dir) {
  return absl::StrCat(run_dir, "/status.textproto");
}

std::string RunCheckpointPath(const std::string& run_dir) {
  return absl::StrCat(run_dir, "/checkpoint.safetensors");
}

absl::Status SaveRunCheckpoint(const RunCheckpoint& checkpoint, const std::string& path) {
  Checkpoint file = checkpoint.state;
  file.metadata["config"] = ConfigToText(checkpoint.config);
  TextFormat::PrintToString(checkpoint.books, &file.metadata["books"]);
  return SaveCheckpoint(file, path);
}

absl::StatusOr<RunCheckpoint> LoadRunCheckpoint(const std::string& path) {
  RunCheckpoint checkpoint;
  POMPC_ASSIGN_OR_RETURN(checkpoint.state, LoadCheckpoint(path));
  POMPC_ASSIGN_OR_RETURN(const std::string config, Metadata(checkpoint.state, "config", path));
  POMPC_ASSIGN_OR_RETURN(const std::string books, Metadata(checkpoint.state, "books", path));
  if (!TextFormat::ParseFromString(config, &checkpoint.config) ||
      !TextFormat::ParseFromString(books, &checkpoint.books)) {
    return absl::DataLossError(absl::StrCat(path, " holds metadata that this version cannot read"));
  }
  checkpoint.state.metadata.clear();
  return checkpoint;
}

absl::Status CheckResumable(const v1::RunConfig& saved, const v1::RunConfig& wanted) {
  const std::map<std::string, std::string> old_values = FieldValues(saved);
  const std::map<std::string, std::string> defaults = FieldValues(DefaultRunConfig());
  std::vector<std::string> mistakes;
  for (const auto& [path, value] : FieldValues(wanted)) {
    const std::string& old_value = old_values.at(path);
    if (old_value == kUnset && defaults.at(path) != kUnset) {
      POMPC_LOG(WARNING) << "the run was begun by a version without " << path
                         << ", it goes on with " << value;
    } else if (old_value != value && !MayDiffer(path)) {
      mistakes.push_back(
          absl::StrCat(path, ": ", value, ", but the run to resume has ", old_value));
    }
  }
  if (mistakes.empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrJoin(mistakes, "\n"));
}

}  // namespace pompc
