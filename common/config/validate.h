// The two halves of Validate(), apart because rules between fields would mislead about a config
// that was not read completely.
#ifndef POMPC_COMMON_CONFIG_VALIDATE_H_
#define POMPC_COMMON_CONFIG_VALIDATE_H_

#include <string>
#include <vector>

#include "proto/pompc/v1/config.pb.h"

namespace pompc {

// Fields out of the range that config.proto gives them, or not finite.
std::vector<std::string> RangeMistakes(const v1::RunConfig& config);

// Fields that contradict each other.
std::vector<std::string> RuleMistakes(const v1::RunConfig& config);

}  // namespace pompc

#endif  // POMPC_COMMON_CONFIG_VALIDATE_H_
