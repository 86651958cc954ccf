#include "common/config/schema.h"

#include <algorithm>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/check.h"
#include "common/base/spelling.h"
#include "google/protobuf/descriptor.h"

namespace pompc {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

std::string LastPart(const std::string& path) { return path.substr(path.rfind('.') + 1); }

void SetToDefault(Message* message, const FieldDescriptor& field) {
  const auto* reflection = message->GetReflection();
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT32:
      return reflection->SetInt32(message, &field, field.default_value_int32());
    case FieldDescriptor::CPPTYPE_INT64:
      return reflection->SetInt64(message, &field, field.default_value_int64());
    case FieldDescriptor::CPPTYPE_UINT64:
      return reflection->SetUInt64(message, &field, field.default_value_uint64());
    case FieldDescriptor::CPPTYPE_DOUBLE:
      return reflection->SetDouble(message, &field, field.default_value_double());
    case FieldDescriptor::CPPTYPE_BOOL:
      return reflection->SetBool(message, &field, field.default_value_bool());
    case FieldDescriptor::CPPTYPE_ENUM:
      return reflection->SetEnum(message, &field, field.default_value_enum());
    case FieldDescriptor::CPPTYPE_STRING:
      return reflection->SetString(message, &field, field.default_value_string());
    default:
      POMPC_CHECK(false) << "config.proto uses a type not known here: " << field.full_name();
  }
}

void Visit(
    const Message& message, const std::string& prefix,
    const std::function<void(const std::string&, const Message&, const FieldDescriptor&)>& visit) {
  const auto& type = *message.GetDescriptor();
  for (int i = 0; i < type.field_count(); ++i) {
    const FieldDescriptor& field = *type.field(i);
    const std::string path = prefix + field.name();
    if (field.cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
      Visit(message.GetReflection()->GetMessage(message, &field), path + ".", visit);
    } else {
      visit(path, message, field);
    }
  }
}

}  // namespace

void ForEachField(
    const Message& message,
    const std::function<void(const std::string&, const Message&, const FieldDescriptor&)>& visit) {
  Visit(message, "", visit);
}

void MaterializeDefaults(Message* message) {
  const auto& type = *message->GetDescriptor();
  const auto* reflection = message->GetReflection();
  for (int i = 0; i < type.field_count(); ++i) {
    const FieldDescriptor& field = *type.field(i);
    if (field.cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
      MaterializeDefaults(reflection->MutableMessage(message, &field));
    } else if (field.has_default_value() && !reflection->HasField(*message, &field)) {
      SetToDefault(message, field);
    }
  }
}

std::string SuggestPath(const Message& message, const std::string& path) {
  std::string best;
  size_t best_cost = 1 + std::max<size_t>(2, path.size() / 4);  // Farther away is no help.
  const auto consider = [&](const std::string& candidate, size_t cost) {
    if (cost < best_cost) {
      best_cost = cost;
      best = candidate;
    }
  };
  ForEachField(message, [&](const std::string& candidate, const Message&, const FieldDescriptor&) {
    consider(candidate, EditDistance(path, candidate));
    // A good name in the wrong section costs one more than the right path would.
    const size_t leaf = EditDistance(LastPart(path), LastPart(candidate));
    consider(candidate, leaf == 0 ? 1 : leaf * 2 + 1);
    const std::string section = candidate.substr(0, candidate.find('.'));
    consider(section, EditDistance(path, section));
  });
  return best.empty() ? "" : absl::StrCat(", did you mean ", best, "?");
}

std::string EnumNames(const google::protobuf::EnumDescriptor& type) {
  std::vector<std::string> names;
  for (int i = 0; i < type.value_count(); ++i) names.push_back(type.value(i)->name());
  return absl::StrJoin(names, ", ");
}

}  // namespace pompc
