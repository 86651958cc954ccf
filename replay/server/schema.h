// The columns of a table: a validated TableSchema with the layout that follows from it.
//
// A row is the columns' elements one after the other, in the schema's order and without gaps.
// Thread-safety: immutable after Create().
#ifndef POMPC_REPLAY_SERVER_SCHEMA_H_
#define POMPC_REPLAY_SERVER_SCHEMA_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "proto/pompc/v1/replay.pb.h"

namespace pompc {

class Schema {
 public:
  struct Column {
    std::string name;
    v1::DataType type;
    std::vector<int64_t> shape;  // Empty: a scalar.
    int64_t row_bytes;           // Of one row's elements.
    int64_t offset;              // In bytes, of the column within a row.
  };

  // INVALID_ARGUMENT, naming the column: none or more than 256 columns, a name that is empty or
  // repeated, an unknown type, a dimension < 1, a row of more than 64 MiB.
  static absl::StatusOr<Schema> Create(const v1::TableSchema& proto);

  const std::vector<Column>& columns() const { return columns_; }
  int64_t row_bytes() const { return row_bytes_; }  // All columns.

  // Index of the column called `name`. INVALID_ARGUMENT when there is none.
  absl::StatusOr<int> Find(std::string_view name) const;

  // Whether `data` can be `num_rows` rows of a column. INVALID_ARGUMENT, naming the column: wrong
  // size, or a FLOAT32 that is not finite (its row is named too).
  absl::Status CheckRows(int column, int64_t num_rows, std::string_view data) const;

 private:
  std::vector<Column> columns_;
  int64_t row_bytes_ = 0;
};

}  // namespace pompc

#endif  // POMPC_REPLAY_SERVER_SCHEMA_H_
