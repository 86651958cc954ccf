// SumTree: items with weights, drawn in proportion to them, in time that grows with the logarithm
// of their number.
//
// A binary tree whose leaves hold the weights and whose inner nodes hold the sum of their two
// children, in doubles. A write recomputes the nodes above it from their children and adds no
// differences, so rounding does not accumulate: after any number of writes every node is what
// summing up the leaves anew would give, within a relative error of its height times 2^-53 (below
// 4e-15). A leaf of weight 0 is never found: a step down goes to a child of sum 0 only if both
// are.
//
// Memory: 16 bytes for each leaf, mapped but not touched in advance (mapped_memory.h).
// Thread-safety: as plain memory. Determinism: equal weights => equal draws, whatever was written
// before.
#ifndef POMPC_REPLAY_SERVER_SUM_TREE_H_
#define POMPC_REPLAY_SERVER_SUM_TREE_H_

#include <cstddef>
#include <utility>

#include "absl/status/statusor.h"
#include "replay/server/mapped_memory.h"

namespace pompc {

class SumTree {
 public:
  // `leaves` >= 1, all of weight 0. RESOURCE_EXHAUSTED: MappedMemory::Allocate()'s.
  static absl::StatusOr<SumTree> Create(size_t leaves);

  // weight: finite, >= 0; all together below the largest double.
  void Set(size_t leaf, double weight);
  double Get(size_t leaf) const { return node(leaves_ + leaf); }
  double total() const { return node(1); }

  // The leaf that `point` falls on when the weights are laid side by side in a fixed order. point
  // in [0, total()); total() > 0.
  size_t Find(double point) const;

  static constexpr size_t kLeafBytes = 2 * sizeof(double);  // Of memory for each leaf.

 private:
  SumTree(size_t leaves, MappedMemory nodes) : leaves_(leaves), nodes_(std::move(nodes)) {}

  double& node(size_t i) const { return reinterpret_cast<double*>(nodes_.data())[i]; }

  const size_t leaves_;
  // [2 * leaves]: the children of node i are 2i and 2i + 1, the root is 1, leaf l is leaves + l.
  MappedMemory nodes_;
};

}  // namespace pompc

#endif  // POMPC_REPLAY_SERVER_SUM_TREE_H_
