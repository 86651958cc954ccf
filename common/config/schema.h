// The fields of RunConfig by path, e.g. "learning.batch_size": shared by loading and validation.
#ifndef POMPC_COMMON_CONFIG_SCHEMA_H_
#define POMPC_COMMON_CONFIG_SCHEMA_H_

#include <functional>
#include <string>

#include "google/protobuf/message.h"

namespace pompc {

// Calls `visit` for every scalar field below `message`, set or not, with the message that holds it
// (for an unset section: that section's default instance) and its path from `message`.
void ForEachField(
    const google::protobuf::Message& message,
    const std::function<void(const std::string& path, const google::protobuf::Message& holder,
                             const google::protobuf::FieldDescriptor& field)>& visit);

// Writes the default of every unset field that declares one, and creates every section.
void MaterializeDefaults(google::protobuf::Message* message);

// ", did you mean PATH?" with the path below `message` that is spelled most like `path`, or that
// has its last part in another section; empty when nothing is close.
std::string SuggestPath(const google::protobuf::Message& message, const std::string& path);

// "FORWARD, REVERSE, CROSS_ENTROPY".
std::string EnumNames(const google::protobuf::EnumDescriptor& type);

}  // namespace pompc

#endif  // POMPC_COMMON_CONFIG_SCHEMA_H_
