// Mean of what a container holds.
//
//   Mean(returns)
//   Mean(episodes, &v1::Episode::return_)
//
// Thread-safety: pure function.
#ifndef POMPC_COMMON_BASE_MEAN_H_
#define POMPC_COMMON_BASE_MEAN_H_

#include <functional>

namespace pompc {

// values: at least one. of: the number that each stands for.
template <typename Values, typename Of = std::identity>
double Mean(const Values& values, Of of = {}) {
  double sum = 0;
  for (const auto& value : values) sum += std::invoke(of, value);
  return sum / static_cast<double>(values.size());
}

}  // namespace pompc

#endif  // POMPC_COMMON_BASE_MEAN_H_
