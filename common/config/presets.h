// The files of configs/, as the build put them into the program.
#ifndef POMPC_COMMON_CONFIG_PRESETS_H_
#define POMPC_COMMON_CONFIG_PRESETS_H_

#include <string_view>

#include "absl/types/span.h"

namespace pompc {

struct Preset {
  std::string_view name;  // Of the file, without ".textproto".
  std::string_view text;
};

// Sorted by name.
absl::Span<const Preset> Presets();

}  // namespace pompc

#endif  // POMPC_COMMON_CONFIG_PRESETS_H_
