// How the tables of several servers look as one: keys, configs and counts.
//
// A run's rows may be spread over N servers ("shards"), each with an equal part of the capacity.
// The key of a row, outside its server, has the shard in its 8 highest bits; rows are counted below
// 2^56, which no run reaches. There are at most kMaxShards (server/replay.h).
#ifndef POMPC_REPLAY_CLIENT_SHARDS_H_
#define POMPC_REPLAY_CLIENT_SHARDS_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/base/rng.h"
#include "proto/pompc/v1/replay.pb.h"

namespace pompc {

inline constexpr uint64_t ShardedKey(int shard, uint64_t key) {
  return static_cast<uint64_t>(shard) << 56 | key;
}
inline constexpr int ShardOf(uint64_t sharded_key) { return static_cast<int>(sharded_key >> 56); }
inline constexpr uint64_t KeyInShard(uint64_t sharded_key) {
  return sharded_key & ((uint64_t{1} << 56) - 1);
}

// `count` shards, each drawn on its own in proportion to the weights, which are at least 0 and not
// all 0.
std::vector<int> DrawShards(absl::Span<const double> weights, int count, Rng& rng);

// The part of `table` that one server holds.
v1::TableConfig TableOfShard(const v1::TableConfig& table, int shard, int shards);

// What the servers hold together; without a table if one has none. infos: one per shard, at least
// one. DATA_LOSS: some hold rows, and one does not have the same table.
absl::StatusOr<v1::InfoResponse> MergeInfos(absl::Span<const v1::InfoResponse> infos);

}  // namespace pompc

#endif  // POMPC_REPLAY_CLIENT_SHARDS_H_
