// Processes that keep a journal, for tests of it: through Replay, since that is what decides what
// is written when.
#ifndef POMPC_REPLAY_SERVER_JOURNAL_TESTING_H_
#define POMPC_REPLAY_SERVER_JOURNAL_TESTING_H_

#include <stdlib.h>

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/metrics/metrics.h"
#include "gtest/gtest.h"
#include "replay/server/journal.h"
#include "replay/server/replay.h"
#include "replay/server/testing.h"

namespace pompc::testing {

inline constexpr int kBatch = 16;

// A folder of its own for a journal; removed when the program ends.
inline std::string NewFolder() {
  static struct Created {
    ~Created() {
      std::error_code ignored;
      for (const std::string& name : names) std::filesystem::remove_all(name, ignored);
    }
    std::vector<std::string> names;
  } created;
  std::string name = ::testing::TempDir() + "/journal-XXXXXX";
  POMPC_CHECK(mkdtemp(name.data()) != nullptr);
  created.names.push_back(name);
  return name + "/journal";
}

inline v1::TableConfig Journaled(v1::TableConfig table,
                                 v1::TableConfig::Journal journal = v1::TableConfig::PROCESS) {
  table.set_journal(journal);
  return table;
}

inline absl::Status Configure(Replay& replay, const v1::TableConfig& table,
                              std::optional<int64_t> updates_done = std::nullopt) {
  v1::ConfigureRequest request;
  *request.mutable_table() = table;
  if (updates_done.has_value()) request.set_updates_done(*updates_done);
  return replay.Configure(request);
}

// A replay over the journal in a folder, as one process would have it.
struct Process {
  explicit Process(const std::string& folder) {
    auto journal = Journal::Open(folder, &clock, &metrics);
    POMPC_CHECK_OK(journal.status());
    auto restored = Replay::Restore(*std::move(journal), &clock, &metrics);
    POMPC_CHECK_OK(restored.status());
    replay = *std::move(restored);
  }
  Process(const std::string& folder, const v1::TableConfig& table) : Process(folder) {
    POMPC_CHECK_OK(Configure(*replay, table));
  }

  FakeClock clock;
  MetricsRegistry metrics;
  std::unique_ptr<Replay> replay;
};

inline absl::StatusOr<Replay::Appended> Append(Replay& replay, v1::Segment segment) {
  Event done;
  absl::StatusOr<Replay::Appended> answer = absl::UnknownError("pending");
  replay.Append(replay.NewTicket(), std::move(segment),
                [&](absl::StatusOr<Replay::Appended> appended) {
                  answer = std::move(appended);
                  done.Notify();
                });
  done.Wait();
  return answer;
}

struct Batch {
  explicit Batch(const Replay::Layout& layout) {
    const size_t rows = layout.window_rows * kBatch;
    ids.resize(rows * layout.schema->columns()[0].row_bytes);
    priors.resize(rows * layout.schema->columns()[1].row_bytes);
    keys.resize(rows * sizeof(uint64_t));
    weights.resize(kBatch * sizeof(double));
  }
  WindowBuffers buffers() {
    return {.columns = {ids.data(), priors.data()}, .keys = keys.data(), .weights = weights.data()};
  }
  bool operator==(const Batch&) const = default;

  std::string ids, priors, keys, weights;
};

inline Batch Draw(Replay& replay) {
  const Replay::Layout layout = *replay.layout();
  Batch batch(layout);
  absl::Status status = absl::UnknownError("waits");
  replay.Sample(replay.NewTicket(), layout, kBatch, batch.buffers(),
                [&](const absl::StatusOr<Replay::Drawn>& drawn) { status = drawn.status(); });
  POMPC_CHECK_OK(status);
  return batch;
}

inline absl::Status Overwrite(Replay& replay, const std::vector<uint64_t>& keys, float value) {
  v1::UpdateRequest request;
  request.mutable_keys()->Add(keys.begin(), keys.end());
  request.add_column_names("prior");
  std::string& data = *request.add_columns();
  for (size_t i = 0; i < keys.size() * kPriorFloats; ++i) {
    data.append(reinterpret_cast<const char*>(&value), sizeof(value));
  }
  return replay.Update(request).status();
}

// What a restart must not change.
inline std::string Counts(Replay& replay) {
  v1::InfoResponse info = replay.Info();
  info.clear_table();
  info.clear_insert_blocked_seconds();
  info.clear_sample_blocked_seconds();
  return info.ShortDebugString();
}

}  // namespace pompc::testing

#endif  // POMPC_REPLAY_SERVER_JOURNAL_TESTING_H_
