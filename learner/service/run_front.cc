#include "learner/service/run_front.h"

#include <optional>
#include <string>
#include <utility>

#include "common/base/status_macros.h"

namespace pompc {

absl::StatusOr<std::unique_ptr<RunFront>> RunFront::Create(const RunFrontOptions& options,
                                                           Clock* clock, MetricsRegistry* metrics) {
  const v1::RunConfig& config = options.identity.config();
  const v1::RunBooks& books = options.books;
  const int32_t action_repeat = config.environment().action_repeat();
  POMPC_ASSIGN_OR_RETURN(
      std::unique_ptr<RunRecords> records,
      RunRecords::Open({.folder = options.run_dir,
                        .action_repeat = action_repeat,
                        .stat_names = options.stat_names,
                        .kept_bytes = {books.record_bytes().begin(), books.record_bytes().end()},
                        .kept_decisions = books.decisions(),
                        .now = clock->Now()}));
  RunRecords* const written = records.get();
  const auto sizes = books.has_sizes() ? std::make_optional(books.sizes()) : std::nullopt;
  const int64_t first_version = books.has_sizes() ? books.parameter_version() + 1 : 0;
  return std::unique_ptr<RunFront>(new RunFront{
      options.identity, std::move(records), Roster(config, sizes, options.replay_addresses, clock),
      EpisodeLog(config, books, written, clock, metrics),
      RunProgress(config.total_decisions(), action_repeat, books.seconds(), clock),
      Publisher(first_version, clock,
                {.version = metrics->GetGauge("pompc_learner_params_version"),
                 .lag_updates = metrics->GetGauge("pompc_learner_params_lag_updates"),
                 .subscribers = metrics->GetGauge("pompc_learner_subscribers"),
                 .sent_bytes = metrics->GetCounter("pompc_learner_sent_bytes_total")})});
}

}  // namespace pompc
