#include "common/model/checkpoint.h"

#include <google/protobuf/struct.pb.h>
#include <google/protobuf/util/json_util.h>

#include <cstring>

#include "absl/strings/str_cat.h"
#include "common/base/file.h"
#include "common/base/status_macros.h"

namespace pompc {
namespace {

using google::protobuf::Struct;
using google::protobuf::Value;

struct DtypeName {
  const char* name;
  at::ScalarType type;
};
constexpr DtypeName kDtypes[] = {{"F32", at::kFloat}, {"F64", at::kDouble}, {"I64", at::kLong}};

absl::Status Damaged(const std::string& path, const std::string& what) {
  return absl::DataLossError(absl::StrCat(path, ": ", what));
}

const Value* Find(const Struct& object, const std::string& key) {
  const auto it = object.fields().find(key);
  return it == object.fields().end() ? nullptr : &it->second;
}

// The tensor that `entry` of the header describes, copied out of `data`; undefined if it does not
// fit the format.
at::Tensor ReadTensor(const Struct& entry, std::string_view data) {
  const Value* dtype = Find(entry, "dtype");
  const Value* shape = Find(entry, "shape");
  const Value* offsets = Find(entry, "data_offsets");
  if (dtype == nullptr || shape == nullptr || offsets == nullptr) return {};
  if (offsets->list_value().values_size() != 2) return {};
  const double begin = offsets->list_value().values(0).number_value();
  const double end = offsets->list_value().values(1).number_value();
  if (!(begin >= 0 && begin <= end && end <= static_cast<double>(data.size()))) return {};
  std::vector<int64_t> sizes;
  double elements = 1;
  for (const Value& v : shape->list_value().values()) {
    if (!(v.number_value() >= 0)) return {};
    sizes.push_back(static_cast<int64_t>(v.number_value()));
    elements *= v.number_value();
  }
  for (const DtypeName& known : kDtypes) {
    if (dtype->string_value() != known.name) continue;
    if (elements * static_cast<double>(at::elementSize(known.type)) != end - begin) return {};
    at::Tensor tensor = at::empty(sizes, known.type);
    if (tensor.numel() > 0) {  // Else it has no memory to copy to.
      std::memcpy(tensor.data_ptr(), data.data() + static_cast<size_t>(begin), tensor.nbytes());
    }
    return tensor;
  }
  return {};
}

}  // namespace

absl::Status SaveCheckpoint(const Checkpoint& checkpoint, const std::string& path) {
  Struct header;
  Struct& metadata = *(*header.mutable_fields())["__metadata__"].mutable_struct_value();
  for (const auto& [key, value] : checkpoint.metadata) {
    (*metadata.mutable_fields())[key].set_string_value(value);
  }
  std::string data;
  for (const auto& [name, tensor] : checkpoint.tensors) {
    const at::Tensor host = tensor.detach().to(at::kCPU).contiguous();
    Struct& entry = *(*header.mutable_fields())[name].mutable_struct_value();
    for (const DtypeName& known : kDtypes) {
      if (known.type == host.scalar_type()) {
        (*entry.mutable_fields())["dtype"].set_string_value(known.name);
      }
    }
    if (entry.fields().empty()) {
      return absl::InvalidArgumentError(absl::StrCat(name, ": dtype cannot be saved"));
    }
    auto& shape = *(*entry.mutable_fields())["shape"].mutable_list_value();
    for (const int64_t n : host.sizes())
      shape.add_values()->set_number_value(static_cast<double>(n));
    auto& offsets = *(*entry.mutable_fields())["data_offsets"].mutable_list_value();
    offsets.add_values()->set_number_value(static_cast<double>(data.size()));
    data.append(static_cast<const char*>(host.const_data_ptr()), host.nbytes());
    offsets.add_values()->set_number_value(static_cast<double>(data.size()));
  }
  std::string json;
  if (!google::protobuf::util::MessageToJsonString(header, &json).ok()) {
    return absl::InternalError(absl::StrCat(path, ": header cannot be written"));
  }
  json.append((8 - json.size() % 8) % 8, ' ');  // The format aligns data to 8 bytes.
  const uint64_t length = json.size();
  std::string file(reinterpret_cast<const char*>(&length), sizeof(length));
  file += json;
  file += data;
  return WriteFileAtomically(path, file);
}

absl::StatusOr<Checkpoint> LoadCheckpoint(const std::string& path) {
  POMPC_ASSIGN_OR_RETURN(const std::string file, ReadFile(path));
  uint64_t length = 0;
  if (file.size() < sizeof(length)) return Damaged(path, "no safetensors header");
  std::memcpy(&length, file.data(), sizeof(length));
  if (length > file.size() - sizeof(length)) return Damaged(path, "header is cut off");
  Struct header;
  if (!google::protobuf::util::JsonStringToMessage(file.substr(sizeof(length), length), &header)
           .ok()) {
    return Damaged(path, "header is no JSON object");
  }
  const std::string_view data = std::string_view(file).substr(sizeof(length) + length);
  Checkpoint checkpoint;
  for (const auto& [name, value] : header.fields()) {
    if (name == "__metadata__") {
      for (const auto& [key, text] : value.struct_value().fields()) {
        checkpoint.metadata[key] = text.string_value();
      }
      continue;
    }
    at::Tensor tensor = ReadTensor(value.struct_value(), data);
    if (!tensor.defined()) return Damaged(path, absl::StrCat("tensor ", name, " is damaged"));
    checkpoint.tensors[name] = std::move(tensor);
  }
  return checkpoint;
}

}  // namespace pompc
