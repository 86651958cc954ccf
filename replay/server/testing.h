// Rows that tell who they are, for tests of replay.
#ifndef POMPC_REPLAY_SERVER_TESTING_H_
#define POMPC_REPLAY_SERVER_TESTING_H_

#include <cstdint>
#include <cstring>
#include <string>

#include "proto/pompc/v1/replay.pb.h"

namespace pompc::testing {

// Column 0, "id": what row this is. Column 1, "prior": something to overwrite.
struct RowId {
  int64_t writer, episode, row;
  bool operator==(const RowId&) const = default;
};
inline constexpr int kPriorFloats = 2;

inline v1::TableSchema TestSchema() {
  v1::TableSchema schema;
  v1::Column* id = schema.add_columns();
  id->set_name("id");
  id->set_type(v1::INT64);
  id->add_shape(3);
  v1::Column* prior = schema.add_columns();
  prior->set_name("prior");
  prior->set_type(v1::FLOAT32);
  prior->add_shape(kPriorFloats);
  return schema;
}

// The prior of a row is its number, in every element.
inline v1::Segment TestSegment(uint64_t writer, uint64_t sequence, uint64_t episode,
                               uint64_t first_row, int64_t num_rows, bool ends_episode = false) {
  v1::Segment segment;
  segment.set_writer_id(writer);
  segment.set_sequence(sequence);
  segment.set_episode_id(episode);
  segment.set_first_row(first_row);
  segment.set_num_rows(num_rows);
  segment.set_ends_episode(ends_episode);
  std::string* ids = segment.add_columns();
  std::string* priors = segment.add_columns();
  for (int64_t i = 0; i < num_rows; ++i) {
    const RowId id = {static_cast<int64_t>(writer), static_cast<int64_t>(episode),
                      static_cast<int64_t>(first_row) + i};
    ids->append(reinterpret_cast<const char*>(&id), sizeof(id));
    const float value[kPriorFloats] = {static_cast<float>(id.row), static_cast<float>(id.row)};
    priors->append(reinterpret_cast<const char*>(value), sizeof(value));
  }
  return segment;
}

// Row `index` of a column of RowIds.
inline RowId IdAt(const std::string& column, size_t index) {
  RowId id;
  std::memcpy(&id, column.data() + index * sizeof(id), sizeof(id));
  return id;
}

// A table of these rows without a rate limit to speak of.
inline v1::TableConfig TestTable(int32_t window_rows, int64_t capacity_rows) {
  v1::TableConfig table;
  *table.mutable_schema() = TestSchema();
  table.set_capacity_rows(capacity_rows);
  table.set_capacity_bytes(int64_t{1} << 30);
  table.set_window_rows(window_rows);
  table.mutable_limits()->set_updates_per_decision(1);
  table.mutable_limits()->set_max_updates_ahead(1e12);
  table.mutable_limits()->set_max_updates_behind(1e12);
  table.set_run_id("test");
  table.set_seed(1);
  table.set_writer_credits(100);
  return table;
}

}  // namespace pompc::testing

#endif  // POMPC_REPLAY_SERVER_TESTING_H_
