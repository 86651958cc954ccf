#include "learner/service/run_schedule.h"

#include <algorithm>
#include <cmath>

#include "common/base/check.h"
#include "learner/client/row.h"

namespace pompc {

RunSchedule RunSchedule::ForNewTable(const v1::RunConfig& config, const v1::TaskSizes& sizes,
                                     int64_t decisions, int64_t updates) {
  const v1::LearningConfig& learning = config.learning();
  v1::RateLimits limits;
  limits.set_seed_decisions(
      std::max(learning.seed_decisions(), learning.seed_episodes() * sizes.episode_decisions()));
  const int64_t pretrain_updates =
      learning.has_pretrain_updates() ? learning.pretrain_updates() : limits.seed_decisions();
  limits.set_pretrain_updates(std::max<int64_t>(0, pretrain_updates - updates));
  limits.set_updates_per_decision(learning.updates_per_decision());
  // A tolerance of 1 is lock-step: ahead 0, behind 1.
  limits.set_max_updates_ahead(config.replay().rate_tolerance_updates() - 1);
  limits.set_max_updates_behind(config.replay().rate_tolerance_updates());
  return RunSchedule(limits, config.total_decisions(), decisions, updates);
}

RunSchedule RunSchedule::ForOldTable(const v1::RunConfig& config, const v1::InfoResponse& replay,
                                     int64_t replay_servers, const v1::RunBooks& books,
                                     int64_t updates) {
  const v1::RateLimits& limits = replay.table().limits();
  const auto known = books.known_tables().find(replay.table_id());
  const bool is_known = known != books.known_tables().end();
  // The books of a learner that died soon after it had created the table do not name it yet.
  const v1::RunBooks::TableOffsets& offsets = is_known ? known->second : books.table_offsets();
  // One that is not named while the one in use is, with its offsets, was declared anew by a learner
  // whose replay had lost that: no decision of the books is in it. Of several servers, which have
  // one id together, some may have kept theirs.
  const bool anew =
      !is_known && replay_servers == 1 &&
      std::any_of(books.known_tables().begin(), books.known_tables().end(), [&](const auto& named) {
        return named.second.decisions() == offsets.decisions() &&
               named.second.updates() == offsets.updates();
      });
  const int64_t in_table = anew ? 0 : replay.inserted_decisions();
  const int64_t lost_decisions =
      std::max<int64_t>(0, books.decisions() - offsets.decisions() - in_table);
  const auto lost_updates =
      static_cast<int64_t>(limits.updates_per_decision() * static_cast<double>(lost_decisions));
  // However much is lost, the part of pretraining that was made is not made again.
  const int64_t pretrained =
      std::clamp<int64_t>(updates - offsets.updates(), 0, limits.pretrain_updates());
  return RunSchedule(limits, config.total_decisions(), offsets.decisions() + lost_decisions,
                     std::min(offsets.updates() + lost_updates, updates - pretrained));
}

bool RunSchedule::Seeded(int64_t decisions) const {
  return decisions - decisions_offset_ >= limits_.seed_decisions();
}

bool RunSchedule::Pretraining(int64_t updates) const {
  return updates - updates_offset_ < limits_.pretrain_updates();
}

int64_t RunSchedule::final_updates() const {
  const int64_t after_seed = total_decisions_ - decisions_offset_ - limits_.seed_decisions();
  if (after_seed < 0) return updates_offset_;
  return updates_offset_ + limits_.pretrain_updates() +
         static_cast<int64_t>(std::floor(limits_.updates_per_decision() * after_seed));
}

int64_t RunSchedule::DecisionsFor(int64_t updates) const {
  const double wanted = static_cast<double>(updates - updates_offset_ - limits_.pretrain_updates());
  int64_t decisions = std::max<int64_t>(
      0, static_cast<int64_t>(std::ceil(wanted / limits_.updates_per_decision())));
  // The quotient is rounded; what counts is the product, as in the rate limiter.
  const auto enough = [&](int64_t d) {
    return limits_.updates_per_decision() * static_cast<double>(d) >= wanted;
  };
  while (decisions > 0 && enough(decisions - 1)) --decisions;
  while (!enough(decisions)) ++decisions;
  return decisions_offset_ + limits_.seed_decisions() + decisions;
}

double RunSchedule::UpdatesPerDecision(int64_t decisions, int64_t updates) const {
  const int64_t after_seed = decisions - decisions_offset_ - limits_.seed_decisions();
  const int64_t after_pretraining = updates - updates_offset_ - limits_.pretrain_updates();
  if (after_seed <= 0 || after_pretraining <= 0) return 0;
  return static_cast<double>(after_pretraining) / static_cast<double>(after_seed);
}

v1::TableConfig MakeTableConfig(const v1::RunConfig& config, const v1::TaskSizes& sizes,
                                const std::string& run_id, const v1::RateLimits& limits) {
  v1::TableConfig table;
  *table.mutable_schema() = RowSchema(sizes);
  table.set_capacity_rows(config.replay().capacity_rows());
  table.set_capacity_bytes(config.replay().capacity_bytes());
  table.set_window_rows(config.learning().window() + 1);
  *table.mutable_limits() = limits;
  table.set_run_id(run_id);
  table.set_seed(config.seed());
  table.set_priority_exponent(config.replay().priority_exponent());
  // One segment of each environment: further ahead of the rate limiter an actor need not run.
  table.set_writer_credits(int64_t{config.actor().segment_rows()} *
                           config.actor().environments_per_actor());
  v1::TableConfig::Journal journal;
  POMPC_CHECK(v1::TableConfig::Journal_Parse(
      v1::ReplayConfig::Journal_Name(config.replay().journal()), &journal));  // Of equal names.
  table.set_journal(journal);
  return table;
}

}  // namespace pompc
