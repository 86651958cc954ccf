// The devices that models compute on.
#ifndef POMPC_COMMON_MODEL_DEVICE_H_
#define POMPC_COMMON_MODEL_DEVICE_H_

#include <string>

#include "absl/status/statusor.h"
#include "common/model/tensor.h"

namespace pompc {

// name: "cpu", "cuda" or "cuda:1". INVALID_ARGUMENT, naming the config `field`: no such name, or
// this build or machine does not have the device. Thread-safe.
absl::StatusOr<at::Device> FindDevice(const std::string& field, const std::string& name);

}  // namespace pompc

#endif  // POMPC_COMMON_MODEL_DEVICE_H_
