#include "replay/server/schema.h"

#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/check.h"

namespace pompc {
namespace {

constexpr int kMaxColumns = 256;
constexpr int64_t kMaxRowBytes = int64_t{64} << 20;

int64_t ElementBytes(v1::DataType type) {
  switch (type) {
    case v1::FLOAT32:
      return 4;
    case v1::INT64:
      return 8;
    case v1::UINT8:
      return 1;
    default:
      return 0;
  }
}

// Index of the first float that is not finite, or `count`.
int64_t FindNonFinite(const char* data, int64_t count) {
  constexpr uint32_t kExponent = 0x7f800000;  // All ones: infinity or NaN.
  // Rows are checked in blocks without branches, because almost all of them are fine.
  constexpr int64_t kBlock = 1024;
  for (int64_t begin = 0; begin < count; begin += kBlock) {
    const int64_t end = std::min(count, begin + kBlock);
    uint32_t bits;
    uint32_t found = 0;
    for (int64_t i = begin; i < end; ++i) {
      std::memcpy(&bits, data + 4 * i, 4);
      found |= (bits & kExponent) == kExponent;
    }
    if (found == 0) continue;
    for (int64_t i = begin; i < end; ++i) {
      std::memcpy(&bits, data + 4 * i, 4);
      if ((bits & kExponent) == kExponent) return i;
    }
  }
  return count;
}

}  // namespace

absl::StatusOr<Schema> Schema::Create(const v1::TableSchema& proto) {
  if (proto.columns().empty() || proto.columns_size() > kMaxColumns) {
    return absl::InvalidArgumentError(absl::StrCat("schema.columns: ", proto.columns_size(),
                                                   " columns; must be 1 to ", kMaxColumns));
  }
  Schema schema;
  for (const v1::Column& column : proto.columns()) {
    const std::string where = absl::StrCat("schema column \"", column.name(), "\"");
    if (column.name().empty()) {
      return absl::InvalidArgumentError(
          absl::StrCat("schema column ", schema.columns_.size(), ": the name is empty"));
    }
    if (schema.Find(column.name()).ok()) {
      return absl::InvalidArgumentError(absl::StrCat(where, ": the name is used twice"));
    }
    int64_t bytes = ElementBytes(column.type());
    if (bytes == 0) {
      return absl::InvalidArgumentError(absl::StrCat(where, ": unknown type ", column.type(),
                                                     "; must be FLOAT32, INT64 or UINT8"));
    }
    for (const int64_t dim : column.shape()) {
      if (dim < 1 || dim > kMaxRowBytes) {
        return absl::InvalidArgumentError(absl::StrCat(where, ": dimension ", dim, " in shape [",
                                                       absl::StrJoin(column.shape(), ", "),
                                                       "]; must be 1 to ", kMaxRowBytes));
      }
      bytes *= dim;  // Cannot overflow: both factors are at most 2^26.
      if (bytes > kMaxRowBytes) break;
    }
    if (schema.row_bytes_ + bytes > kMaxRowBytes) {
      return absl::InvalidArgumentError(
          absl::StrCat(where, ": rows become larger than ", kMaxRowBytes, " bytes"));
    }
    schema.columns_.push_back({.name = column.name(),
                               .type = column.type(),
                               .shape = {column.shape().begin(), column.shape().end()},
                               .row_bytes = bytes,
                               .offset = schema.row_bytes_});
    schema.row_bytes_ += bytes;
  }
  return schema;
}

absl::StatusOr<int> Schema::Find(std::string_view name) const {
  for (size_t i = 0; i < columns_.size(); ++i) {
    if (columns_[i].name == name) return static_cast<int>(i);
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "no column \"", std::string(name), "\"; there are ",
      absl::StrJoin(columns_, ", ",
                    [](std::string* out, const Column& c) { absl::StrAppend(out, c.name); })));
}

absl::Status Schema::CheckRows(int column, int64_t num_rows, std::string_view data) const {
  const Column& c = columns_[column];
  if (static_cast<int64_t>(data.size()) != num_rows * c.row_bytes) {
    return absl::InvalidArgumentError(absl::StrCat("column \"", c.name, "\": ", data.size(),
                                                   " bytes; ", num_rows, " rows of ", c.row_bytes,
                                                   " bytes are ", num_rows * c.row_bytes));
  }
  if (c.type != v1::FLOAT32) return absl::OkStatus();
  const int64_t count = data.size() / 4;
  const int64_t bad = FindNonFinite(data.data(), count);
  if (bad == count) return absl::OkStatus();
  const int64_t row_floats = c.row_bytes / 4;
  return absl::InvalidArgumentError(absl::StrCat("column \"", c.name, "\": element ",
                                                 bad % row_floats, " of row ", bad / row_floats,
                                                 " is not finite"));
}

}  // namespace pompc
