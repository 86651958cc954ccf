#include "replay/server/sum_tree.h"

#include "common/base/status_macros.h"

namespace pompc {

absl::StatusOr<SumTree> SumTree::Create(size_t leaves) {
  POMPC_ASSIGN_OR_RETURN(MappedMemory nodes, MappedMemory::Allocate(leaves * kLeafBytes));
  return SumTree(leaves, std::move(nodes));
}

void SumTree::Set(size_t leaf, double weight) {
  size_t i = leaves_ + leaf;
  node(i) = weight;
  for (i /= 2; i >= 1; i /= 2) node(i) = node(2 * i) + node(2 * i + 1);
}

size_t SumTree::Find(double point) const {
  size_t i = 1;
  while (i < leaves_) {
    const double left = node(2 * i);
    // Rounding may carry the point beyond the last weight.
    if (point < left || node(2 * i + 1) == 0) {
      i = 2 * i;
    } else {
      point -= left;
      i = 2 * i + 1;
    }
  }
  return i - leaves_;
}

}  // namespace pompc
