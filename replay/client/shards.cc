#include "replay/client/shards.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"

namespace pompc {

std::vector<int> DrawShards(absl::Span<const double> weights, int count, Rng& rng) {
  std::vector<double> ends;  // ends[i]: weight of the shards up to i.
  int last = -1;             // That has any.
  for (size_t i = 0; i < weights.size(); ++i) {
    ends.push_back((ends.empty() ? 0 : ends.back()) + weights[i]);
    if (weights[i] > 0) last = static_cast<int>(i);
  }
  POMPC_CHECK(last >= 0);
  std::vector<int> shards(count);
  for (int& shard : shards) {
    const auto end = std::upper_bound(ends.begin(), ends.end(), rng.Uniform() * ends.back());
    shard = std::min(static_cast<int>(end - ends.begin()), last);  // Rounding may reach the end.
  }
  return shards;
}

v1::TableConfig TableOfShard(const v1::TableConfig& table, int shard, int shards) {
  v1::TableConfig part = table;
  part.set_shard(shard);
  part.set_shards(shards);
  part.set_capacity_rows(table.capacity_rows() / shards);
  part.set_capacity_bytes(table.capacity_bytes() / shards);
  return part;
}

absl::StatusOr<v1::InfoResponse> MergeInfos(absl::Span<const v1::InfoResponse> infos) {
  const auto most = std::max_element(infos.begin(), infos.end(), [](const auto& a, const auto& b) {
    return a.inserted_rows() < b.inserted_rows();
  });
  v1::InfoResponse all;
  bool all_have_tables = true;
  for (size_t i = 0; i < infos.size(); ++i) {
    const v1::InfoResponse& info = infos[i];
    all_have_tables = all_have_tables && info.has_table();
    if (most->inserted_rows() > 0 && info.table().run_id() != most->table().run_id()) {
      return absl::DataLossError(absl::StrCat(
          "replay server ", i + 1, " of ", infos.size(), " has ",
          info.has_table() ? absl::StrCat("the table of run \"", info.table().run_id(), "\"")
                           : "no table",
          ", another one has ", most->inserted_rows(), " rows of run \"", most->table().run_id(),
          "\": start all of them anew, empty, and resume the run"));
    }
    // Names the tables together; of one server it is that server's. (FNV's prime.)
    all.set_table_id(all.table_id() * 0x100000001b3 + info.table_id());
    all.set_rows(all.rows() + info.rows());
    all.set_bytes(all.bytes() + info.bytes());
    all.set_windows(all.windows() + info.windows());
    all.set_capacity_rows(all.capacity_rows() + info.capacity_rows());
    all.set_inserted_rows(all.inserted_rows() + info.inserted_rows());
    all.set_inserted_decisions(all.inserted_decisions() + info.inserted_decisions());
    all.set_inserted_segments(all.inserted_segments() + info.inserted_segments());
    all.set_duplicate_segments(all.duplicate_segments() + info.duplicate_segments());
    all.set_finished_episodes(all.finished_episodes() + info.finished_episodes());
    all.set_updated_rows(all.updated_rows() + info.updated_rows());
    all.set_stale_rows(all.stale_rows() + info.stale_rows());
    // Each counts the run's batches, and waits on its own.
    all.set_sampled_batches(std::max(all.sampled_batches(), info.sampled_batches()));
    all.set_insert_blocked_seconds(
        std::max(all.insert_blocked_seconds(), info.insert_blocked_seconds()));
    all.set_sample_blocked_seconds(
        std::max(all.sample_blocked_seconds(), info.sample_blocked_seconds()));
  }
  if (all_have_tables) {
    v1::TableConfig& table = *all.mutable_table();
    table = most->table();
    const int64_t shards = std::max(1, table.shards());
    table.set_capacity_rows(table.capacity_rows() * shards);
    table.set_capacity_bytes(table.capacity_bytes() * shards);
    table.clear_shard();
    table.clear_shards();
  }
  return all;
}

}  // namespace pompc
