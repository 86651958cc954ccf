#include "common/model/device.h"

#include "absl/strings/str_cat.h"

namespace pompc {

absl::StatusOr<at::Device> FindDevice(const std::string& field, const std::string& name) {
  try {
    const at::Device device(name);
    at::empty({1}, device);  // Fails where the device is missing.
    return device;
  } catch (const std::exception& e) {
    const std::string what = e.what();
    return absl::InvalidArgumentError(
        absl::StrCat(field, ": cannot use \"", name, "\": ", what.substr(0, what.find('\n'))));
  }
}

}  // namespace pompc
