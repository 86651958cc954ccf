// Early return on a failed absl::Status.
//
//   POMPC_RETURN_IF_ERROR(options.Validate());
//   POMPC_ASSIGN_OR_RETURN(auto model, Load(path));
#ifndef POMPC_COMMON_BASE_STATUS_MACROS_H_
#define POMPC_COMMON_BASE_STATUS_MACROS_H_

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#define POMPC_CONCAT_INNER_(a, b) a##b
#define POMPC_CONCAT_(a, b) POMPC_CONCAT_INNER_(a, b)

#define POMPC_RETURN_IF_ERROR(expr)                                                     \
  do {                                                                                  \
    if (absl::Status pompc_status_ = (expr); !pompc_status_.ok()) return pompc_status_; \
  } while (false)

#define POMPC_ASSIGN_OR_RETURN(lhs, expr) \
  POMPC_ASSIGN_OR_RETURN_IMPL_(POMPC_CONCAT_(pompc_statusor_, __LINE__), lhs, expr)
#define POMPC_ASSIGN_OR_RETURN_IMPL_(tmp, lhs, expr) \
  auto tmp = (expr);                                 \
  if (!tmp.ok()) return std::move(tmp).status();     \
  lhs = *std::move(tmp)

#endif  // POMPC_COMMON_BASE_STATUS_MACROS_H_
