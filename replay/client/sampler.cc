#include "replay/client/sampler.h"

namespace pompc {

v1::UpdateRequest MakeUpdateRequest(absl::Span<const uint64_t> keys,
                                    absl::Span<const NamedRows> columns) {
  v1::UpdateRequest request;
  request.mutable_keys()->Add(keys.begin(), keys.end());
  for (const auto& [name, rows] : columns) {
    request.add_column_names(name);
    request.add_columns(rows.data(), rows.size());
  }
  return request;
}

v1::UpdateRequest MakePriorityRequest(absl::Span<const uint64_t> keys,
                                      absl::Span<const float> priorities) {
  v1::UpdateRequest request;
  request.mutable_keys()->Add(keys.begin(), keys.end());
  request.mutable_priorities()->Add(priorities.begin(), priorities.end());
  return request;
}

}  // namespace pompc
