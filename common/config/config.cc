#include "common/config/config.h"

#include <algorithm>
#include <cstdint>
#include <cstdio>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "common/base/check.h"
#include "common/base/file.h"
#include "common/base/status_macros.h"
#include "common/config/presets.h"
#include "common/config/schema.h"
#include "common/config/validate.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/io/tokenizer.h"
#include "google/protobuf/text_format.h"

namespace pompc {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::TextFormat;
using v1::RunConfig;

// The path in RunConfig of the field `name` of the section whose message is `type`; just `name` for
// RunConfig itself.
std::string PathInSection(const std::string& type, const std::string& name) {
  const auto& root = *RunConfig::descriptor();
  for (int i = 0; i < root.field_count(); ++i) {
    const auto* section = root.field(i)->message_type();
    if (section != nullptr && section->full_name() == type) {
      return absl::StrCat(root.field(i)->name(), ".", name);
    }
  }
  return name;
}

// Adds what a person needs to the parser's message: the nearest field, or the names of the enum.
// The names come from the quoted parts of protobuf's message, which is all that it gives; when they
// are not found, the message stays as it is.
std::string Explain(const std::string& message) {
  const std::vector<std::string> parts = absl::StrSplit(message, '"');
  if (parts.size() < 5) return message;
  if (message.starts_with("Message type")) {  // "Message type "T" has no field named "F"."
    const std::string path = PathInSection(parts[1], parts[3]);
    return absl::StrCat("unknown field ", path, SuggestPath(RunConfig(), path));
  }
  std::string allowed;  // "Unknown enumeration value of "V" for field "F"."
  ForEachField(RunConfig(), [&](const std::string&, const Message&, const FieldDescriptor& field) {
    if (field.name() == parts[3] && field.enum_type() != nullptr) {
      allowed = absl::StrCat(" Allowed: ", EnumNames(*field.enum_type()), ".");
    }
  });
  return message + allowed;
}

// Receives the parser's complaints. Unknown fields arrive as warnings, so that parsing goes on and
// finds the next ones; here they are mistakes like any other.
class MistakeCollector : public google::protobuf::io::ErrorCollector {
 public:
  // `source` is put before line and column; without places for text that has no lines.
  MistakeCollector(std::string source, bool has_lines, std::vector<std::string>* mistakes)
      : source_(std::move(source)), has_lines_(has_lines), mistakes_(mistakes) {}

  void AddError(int line, int column, const std::string& message) override {
    const std::string place =
        has_lines_ ? absl::StrCat(":", line + 1, ":", column + 1) : std::string();
    mistakes_->push_back(absl::StrCat(source_, place, ": ", Explain(message)));
  }
  void AddWarning(int line, int column, const std::string& message) override {
    AddError(line, column, message);
  }

 private:
  const std::string source_;
  const bool has_lines_;
  std::vector<std::string>* const mistakes_;
};

void MergeText(const std::string& source, const std::string& text, RunConfig* config,
               std::vector<std::string>* mistakes) {
  MistakeCollector collector(source, /*has_lines=*/true, mistakes);
  TextFormat::Parser parser;
  parser.AllowUnknownField(true);  // See MistakeCollector.
  parser.RecordErrorsTo(&collector);
  const size_t before = mistakes->size();
  RunConfig overlay;
  const bool parsed = parser.ParseFromString(text, &overlay);
  if (!parsed && mistakes->size() == before) mistakes->push_back(source + ": not a textproto");
  config->MergeFrom(overlay);
}

// Applies one "path=value".
void ApplySet(const std::string& set, RunConfig* config, std::vector<std::string>* mistakes) {
  const std::string source = "--set " + set;
  const size_t equals = set.find('=');
  if (equals == std::string::npos) {
    mistakes->push_back(source + ": expected path=value");
    return;
  }
  const std::string path = set.substr(0, equals), value = set.substr(equals + 1);
  Message* holder = config;
  const FieldDescriptor* field = nullptr;
  for (const std::string& part : std::vector<std::string>(absl::StrSplit(path, '.'))) {
    if (field != nullptr && holder != nullptr) {
      holder = field->message_type() == nullptr
                   ? nullptr
                   : holder->GetReflection()->MutableMessage(holder, field);
    }
    field = holder == nullptr ? nullptr : holder->GetDescriptor()->FindFieldByName(part);
    if (field == nullptr) {
      mistakes->push_back(
          absl::StrCat(source, ": unknown field ", path, SuggestPath(RunConfig(), path)));
      return;
    }
  }
  if (field->message_type() != nullptr) {
    mistakes->push_back(absl::StrCat(source, ": ", path, " is a section, not a field"));
    return;
  }
  const bool quoted = !value.empty() && (value.front() == '"' || value.front() == '\'');
  if (field->cpp_type() == FieldDescriptor::CPPTYPE_STRING && !quoted) {
    holder->GetReflection()->SetString(holder, field, value);
    return;
  }
  MistakeCollector collector(source, /*has_lines=*/false, mistakes);
  TextFormat::Parser parser;
  parser.RecordErrorsTo(&collector);
  const size_t before = mistakes->size();
  const bool parsed = parser.ParseFieldValueFromString(value, field, holder);
  if (!parsed && mistakes->size() == before) {
    mistakes->push_back(source + ": expected one value after the equals sign");
  }
}

}  // namespace

std::vector<std::string> PresetNames() {
  std::vector<std::string> names;
  for (const Preset& preset : Presets()) names.emplace_back(preset.name);
  return names;
}

RunConfig DefaultRunConfig() {
  RunConfig config;
  MaterializeDefaults(&config);
  return config;
}

absl::StatusOr<RunConfig> LoadRunConfig(const std::string& preset, const std::string& file,
                                        const std::vector<std::string>& sets) {
  RunConfig config = DefaultRunConfig();
  std::vector<std::string> mistakes;

  const auto presets = Presets();
  const auto found = std::find_if(presets.begin(), presets.end(),
                                  [&](const Preset& p) { return p.name == preset; });
  if (found == presets.end()) {
    mistakes.push_back(absl::StrCat("unknown preset ", preset,
                                    "; available: ", absl::StrJoin(PresetNames(), ", ")));
  } else {
    MergeText("preset " + preset, std::string(found->text), &config, &mistakes);
  }
  if (!file.empty()) {
    POMPC_ASSIGN_OR_RETURN(const std::string text, ReadFile(file));
    MergeText(file, text, &config, &mistakes);
  }
  for (const std::string& set : sets) ApplySet(set, &config, &mistakes);

  for (std::string& mistake : Mistakes(config)) mistakes.push_back(std::move(mistake));
  if (!mistakes.empty()) return absl::InvalidArgumentError(absl::StrJoin(mistakes, "\n"));
  return config;
}

std::string ConfigToText(const RunConfig& config) {
  std::string text;
  POMPC_CHECK(TextFormat::PrintToString(config, &text));
  return text;
}

std::string ConfigHash(const RunConfig& config) {
  // FNV-1a over the text, whose order of fields is that of their numbers.
  uint64_t hash = 0xcbf29ce484222325;
  for (char c : ConfigToText(config)) hash = (hash ^ static_cast<uint8_t>(c)) * 0x100000001b3;
  return absl::StrFormat("%016x", hash);
}

}  // namespace pompc
