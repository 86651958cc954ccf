// RunSchedule: how many updates go with how many decisions, as pure arithmetic.
//
// The replay table counts decisions and updates from its creation; the run counts them over all its
// tables. A run has a new table when it resumes and the old one is gone. Then the seed phase is
// repeated, with the trained planner instead of random actions, before updates go on; what is left
// of pretraining follows.
#ifndef POMPC_LEARNER_SERVICE_RUN_SCHEDULE_H_
#define POMPC_LEARNER_SERVICE_RUN_SCHEDULE_H_

#include <cstdint>
#include <string>

#include "proto/pompc/v1/config.pb.h"
#include "proto/pompc/v1/learner.pb.h"
#include "proto/pompc/v1/replay.pb.h"

namespace pompc {

class RunSchedule {
 public:
  // For a new table, after `decisions` and `updates` of the run without it.
  static RunSchedule ForNewTable(const v1::RunConfig& config, const v1::TaskSizes& sizes,
                                 int64_t decisions, int64_t updates);
  // For a table that is still there, or there again, or that a learner declared anew when replay
  // had lost it: what replay tells of it, the number of its servers, the books of the checkpoint
  // that the run resumes from, and the updates made by then. Decisions that it lacks (a machine was
  // reset, and its journal need not survive that; another table was used meanwhile) count as made
  // before it, with the updates that they called for, pretraining apart: that is never repeated.
  static RunSchedule ForOldTable(const v1::RunConfig& config, const v1::InfoResponse& replay,
                                 int64_t replay_servers, const v1::RunBooks& books,
                                 int64_t updates);

  const v1::RateLimits& limits() const { return limits_; }  // Of the table.
  // Made before the table was created.
  int64_t decisions_offset() const { return decisions_offset_; }
  int64_t updates_offset() const { return updates_offset_; }

  // The arguments below count the whole run.

  // Whether enough rows are stored to start updates.
  bool Seeded(int64_t decisions) const;
  bool Pretraining(int64_t updates) const;
  // Updates of the complete run.
  int64_t final_updates() const;
  bool Complete(int64_t decisions, int64_t updates) const {
    return decisions >= total_decisions_ && updates >= final_updates();
  }
  // Fewest decisions that call for `updates`; for those of pretraining all of the seed phase.
  int64_t DecisionsFor(int64_t updates) const;
  // UTD since the seed phase; 0 before.
  double UpdatesPerDecision(int64_t decisions, int64_t updates) const;

 private:
  RunSchedule(const v1::RateLimits& limits, int64_t total_decisions, int64_t decisions_offset,
              int64_t updates_offset)
      : limits_(limits),
        total_decisions_(total_decisions),
        decisions_offset_(decisions_offset),
        updates_offset_(updates_offset) {}

  v1::RateLimits limits_;
  int64_t total_decisions_;
  int64_t decisions_offset_;
  int64_t updates_offset_;
};

// The replay table of a run.
v1::TableConfig MakeTableConfig(const v1::RunConfig& config, const v1::TaskSizes& sizes,
                                const std::string& run_id, const v1::RateLimits& limits);

}  // namespace pompc

#endif  // POMPC_LEARNER_SERVICE_RUN_SCHEDULE_H_
