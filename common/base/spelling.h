// What somebody who misspelled a name may have meant.
//
// Thread-safety: functions without state.
#ifndef POMPC_COMMON_BASE_SPELLING_H_
#define POMPC_COMMON_BASE_SPELLING_H_

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace pompc {

// Levenshtein distance: insertions, deletions and replacements that turn `a` into `b`.
size_t EditDistance(std::string_view a, std::string_view b);

// The `count` of `names` that are spelled most like `wanted`, best first.
std::vector<std::string> NearestNames(std::string_view wanted, std::vector<std::string> names,
                                      size_t count);

}  // namespace pompc

#endif  // POMPC_COMMON_BASE_SPELLING_H_
