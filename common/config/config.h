// RunConfig: put together from defaults, preset, file and command line, and checked.
//
//   POMPC_ASSIGN_OR_RETURN(v1::RunConfig config,
//                          LoadRunConfig("bmpc", "my_run.textproto", {"learning.batch_size=128"}));
//
// What every field means, its default and its range: proto/pompc/v1/config.proto, which is also
// what Validate() reads the ranges from. A loaded config has every default written out and is never
// changed afterwards.
//
// Thread-safety: functions without state. Errors: INVALID_ARGUMENT, or NOT_FOUND and its like when
// the user's file cannot be read. The message has one line for each mistake.
#ifndef POMPC_COMMON_CONFIG_CONFIG_H_
#define POMPC_COMMON_CONFIG_CONFIG_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "proto/pompc/v1/config.pb.h"

namespace pompc {

// Names of the presets of configs/, sorted. They are part of the program.
std::vector<std::string> PresetNames();

// The defaults of config.proto, all written out. Valid.
v1::RunConfig DefaultRunConfig();

// Defaults, overlaid by the preset, by the textproto in `file` (empty: none) and by `sets`, each
// "path=value": a number, true, false, the name of an enum value or a string, quoted or not. Later
// ones win. Mistakes in any of them and in the result are all reported: unknown fields with place
// and the nearest name, then what Validate() says.
absl::StatusOr<v1::RunConfig> LoadRunConfig(const std::string& preset, const std::string& file,
                                            const std::vector<std::string>& sets);

// Whether every field is in its range, every number finite and no two fields contradict each other.
// Each line of the message: path, value, what is allowed.
absl::Status Validate(const v1::RunConfig& config);

// Textproto of all set fields; LoadRunConfig() reads it back to the same config.
std::string ConfigToText(const v1::RunConfig& config);

// 16 hex digits that name the config: equal for equal fields, on any machine.
std::string ConfigHash(const v1::RunConfig& config);

}  // namespace pompc

#endif  // POMPC_COMMON_CONFIG_CONFIG_H_
