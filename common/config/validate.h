// What is wrong with a RunConfig, as lines.
#ifndef POMPC_COMMON_CONFIG_VALIDATE_H_
#define POMPC_COMMON_CONFIG_VALIDATE_H_

#include <string>
#include <vector>

#include "proto/pompc/v1/config.pb.h"

namespace pompc {

// First the fields out of the range that config.proto gives them, or not finite; then those that
// contradict each other. A field out of range takes part in no contradiction.
std::vector<std::string> Mistakes(const v1::RunConfig& config);

}  // namespace pompc

#endif  // POMPC_COMMON_CONFIG_VALIDATE_H_
