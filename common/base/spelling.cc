#include "common/base/spelling.h"

#include <algorithm>
#include <numeric>
#include <utility>

namespace pompc {

size_t EditDistance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), 0);
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = std::exchange(row[0], i);
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t replaced = diagonal + (a[i - 1] != b[j - 1] ? 1 : 0);
      diagonal = row[j];
      row[j] = std::min({replaced, row[j] + 1, row[j - 1] + 1});
    }
  }
  return row.back();
}

std::vector<std::string> NearestNames(std::string_view wanted, std::vector<std::string> names,
                                      size_t count) {
  std::vector<std::pair<size_t, size_t>> order;  // Distance and place: ties keep their order.
  for (size_t i = 0; i < names.size(); ++i) {
    order.emplace_back(EditDistance(wanted, names[i]), i);
  }
  std::sort(order.begin(), order.end());
  order.resize(std::min(order.size(), count));
  std::vector<std::string> nearest;
  for (const auto& [distance, place] : order) nearest.push_back(std::move(names[place]));
  return nearest;
}

}  // namespace pompc
