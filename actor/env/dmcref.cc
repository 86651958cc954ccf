#include "actor/env/dmcref.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/base/check.h"

namespace pompc::dmc {
namespace {

namespace fs = std::filesystem;

size_t ElementSize(const std::string& dtype) {
  POMPC_CHECK(dtype.size() == 2 && (dtype[1] == '4' || dtype[1] == '8')) << dtype;
  return dtype[1] - '0';
}

template <typename T>
T Load(const char* at) {
  T value;
  std::memcpy(&value, at, sizeof(value));
  return value;
}

}  // namespace

size_t Dmcref::Array::row_size() const {
  size_t size = 1;
  for (size_t i = 1; i < shape.size(); ++i) size *= shape[i];
  return size;
}

absl::StatusOr<Dmcref> Dmcref::Read(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return absl::NotFoundError(path);
  std::string line;
  if (!std::getline(file, line) || line != "DMCREF 1") {
    return absl::InvalidArgumentError(absl::StrCat(path, " is no DMCREF 1 file"));
  }
  Dmcref ref;
  while (std::getline(file, line)) {
    std::istringstream words(line);
    std::string key;
    words >> key;
    if (key == "array") {
      std::string name;
      size_t rank = 0;
      Array array;
      words >> name >> array.dtype >> rank;
      array.shape.resize(rank);
      for (size_t& size : array.shape) words >> size;
      words >> array.offset;
      ref.arrays_[name] = array;
    } else if (key == "data") {
      size_t start = 0;
      words >> start;
      file.seekg(static_cast<std::streamoff>(start));
      std::ostringstream rest;
      rest << file.rdbuf();
      ref.data_ = rest.str();
      return ref;
    } else {
      std::string value;
      std::getline(words >> std::ws, value);
      ref.meta_.emplace(key, value);
    }
  }
  return absl::InvalidArgumentError(absl::StrCat(path, " has no data"));
}

std::vector<std::string> Dmcref::Meta(const std::string& key) const {
  std::vector<std::string> values;
  for (auto [it, end] = meta_.equal_range(key); it != end; ++it) values.push_back(it->second);
  return values;
}

std::string Dmcref::Value(const std::string& key) const {
  const std::vector<std::string> values = Meta(key);
  POMPC_CHECK(values.size() == 1) << key;
  return values[0];
}

int Dmcref::Int(const std::string& key) const { return std::stoi(Value(key)); }

std::vector<std::string> Dmcref::ArraysWithPrefix(const std::string& prefix) const {
  std::vector<std::string> names;
  for (const auto& [name, array] : arrays_) {
    if (name.rfind(prefix, 0) == 0) names.push_back(name);
  }
  return names;
}

const Dmcref::Array& Dmcref::Get(const std::string& name) const {
  const auto it = arrays_.find(name);
  POMPC_CHECK(it != arrays_.end()) << name;
  return it->second;
}

size_t Dmcref::Rows(const std::string& array) const { return Has(array) ? Get(array).shape[0] : 0; }

std::vector<double> Dmcref::Row(const std::string& name, size_t row) const {
  const Array& array = Get(name);
  const size_t element = ElementSize(array.dtype);
  std::vector<double> values(array.row_size());
  const char* at = data_.data() + array.offset + row * values.size() * element;
  POMPC_CHECK(at + values.size() * element <= data_.data() + data_.size()) << name;
  for (double& value : values) {
    if (array.dtype == "f8") value = Load<double>(at);
    if (array.dtype == "f4") value = Load<float>(at);
    if (array.dtype == "i4") value = Load<int32_t>(at);
    if (array.dtype == "u4") value = Load<uint32_t>(at);
    at += element;
  }
  return values;
}

uint64_t Dmcref::Bits(const std::string& name, size_t row) const {
  const Array& array = Get(name);
  POMPC_CHECK(array.dtype == "u8" && array.row_size() == 1) << name;
  return Load<uint64_t>(data_.data() + array.offset + row * sizeof(uint64_t));
}

std::vector<std::string> FindFixtures(const std::string& scratch) {
  const char* folders = std::getenv("POMPC_FIXTURES");
  const std::vector<std::string> roots =
      absl::StrSplit(folders != nullptr ? folders : POMPC_DEFAULT_FIXTURES, ':', absl::SkipEmpty());
  std::vector<fs::path> search(roots.begin(), roots.end());
  std::set<std::string> fixtures;
  for (size_t i = 0; i < search.size(); ++i) {
    POMPC_CHECK(fs::is_directory(search[i])) << "no folder with fixtures: " << search[i].string();
    for (const fs::directory_entry& file : fs::recursive_directory_iterator(search[i])) {
      const std::string path = file.path().string();
      if (file.path().extension() == ".dmcref") fixtures.insert(path);
      if (!absl::StrContains(file.path().filename().string(), ".tar.xz")) continue;
      const fs::path unpacked = fs::path(scratch) / absl::StrCat(search.size());
      fs::create_directories(unpacked);
      const std::string command = absl::StrCat("cd '", unpacked.string(), "' && '", POMPC_CMAKE,
                                               "' -E tar xf '", fs::absolute(path).string(), "'");
      POMPC_CHECK(std::system(command.c_str()) == 0) << command;
      search.push_back(unpacked);
    }
  }
  return {fixtures.begin(), fixtures.end()};
}

}  // namespace pompc::dmc
