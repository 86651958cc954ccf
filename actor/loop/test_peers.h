// The peers of an actor in the hands of a test, all on one thread and one FakeClock.
#ifndef POMPC_ACTOR_LOOP_TEST_PEERS_H_
#define POMPC_ACTOR_LOOP_TEST_PEERS_H_

#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "actor/loop/peers.h"
#include "actor/loop/test_config.h"
#include "common/base/clock.h"
#include "gtest/gtest.h"
#include "learner/client/fake_learner_client.h"
#include "learner/client/row.h"

namespace pompc {

// Each wait ends at once, with the next snapshot of the script or, when there is none or it is
// null, at its deadline, to which the clock is moved.
class ScriptedSubscriber final : public ParameterSubscriber {
 public:
  explicit ScriptedSubscriber(FakeClock* clock) : clock_(clock) {}

  // Runs whenever somebody looks for new parameters, as an actor does before each decision.
  std::function<void()> on_look = [] {};

  void Publish(v1::ParameterSnapshot snapshot) {
    newest_ = std::make_shared<const v1::ParameterSnapshot>(std::move(snapshot));
  }
  void PublishAtNextWait(v1::ParameterSnapshot snapshot) {
    script_.push_back(std::make_shared<const v1::ParameterSnapshot>(std::move(snapshot)));
  }
  void TimeOutNextWait() { script_.push_back(nullptr); }
  void SetStatus(absl::Status status) { status_ = std::move(status); }
  bool script_is_done() const { return script_.empty(); }

  SnapshotPtr Newest() const override {
    on_look();
    return newest_;
  }
  absl::StatusOr<SnapshotPtr> WaitForNewer(int64_t version, absl::Time deadline) override {
    on_look();
    SnapshotPtr next;
    if (!script_.empty()) {
      next = std::move(script_.front());
      script_.pop_front();
    }
    if (next != nullptr) newest_ = std::move(next);
    if (newest_ != nullptr && newest_->version() != version) return newest_;
    clock_->Advance(deadline - clock_->Now());
    return absl::DeadlineExceededError("no newer parameters");
  }
  int64_t dropped_snapshots() const override { return 0; }
  absl::Status status() const override { return status_; }
  void Close() override {}

 private:
  FakeClock* const clock_;
  SnapshotPtr newest_;
  std::deque<SnapshotPtr> script_;
  absl::Status status_;
};

// Keeps the segments that it takes.
class RecordingWriter final : public ReplayWriter {
 public:
  explicit RecordingWriter(FakeClock* clock) : clock_(clock) {}

  // Runs after each segment that was taken.
  std::function<void()> on_append = [] {};
  int busy_appends = 0;  // So many next calls of Append() wait in vain.
  absl::Status error;    // Of every call, if not OK.

  absl::Status Append(v1::Segment segment, absl::Time deadline) override {
    if (!error.ok()) return error;
    if (busy_appends > 0) {
      --busy_appends;
      clock_->Advance(deadline - clock_->Now());
      return absl::DeadlineExceededError("queue is full");
    }
    rows += segment.num_rows();
    segments.push_back(std::move(segment));
    on_append();
    return absl::OkStatus();
  }
  absl::Status Flush(absl::Time) override {
    ++flushes;
    return error;
  }

  std::vector<v1::Segment> segments;
  int64_t rows = 0;
  int flushes = 0;

 private:
  FakeClock* const clock_;
};

struct TestPeers {
  FakeClock clock;
  Event stop;
  MetricsRegistry metrics;
  FakeLearnerClient learner{{}};
  ScriptedSubscriber parameters{&clock};
  RecordingWriter replay{&clock};

  ActingPeers peers() {
    return {.learner = &learner,
            .parameters = &parameters,
            .replay = &replay,
            .clock = &clock,
            .stop = &stop,
            .metrics = &metrics};
  }
  // Breaks the stream of parameters until `joins` joins were made, and raises `stop` then.
  void LoseStreamFor(size_t joins) {
    parameters.SetStatus(absl::UnavailableError("connection refused"));
    parameters.on_look = [this, joins] {
      if (learner.joins().size() >= joins) stop.Notify();
    };
  }
  // That the joins are one and, with the index 0 that it was answered with, its repetitions.
  void ExpectOneJoinRepeated() const {
    const std::vector<v1::JoinRequest> joins = learner.joins();
    ASSERT_GT(joins.size(), 1u);
    v1::JoinRequest expected = joins.front();
    expected.set_index(0);
    for (size_t i = 1; i < joins.size(); ++i) {
      EXPECT_EQ(joins[i].ShortDebugString(), expected.ShortDebugString());
    }
  }
};

// What an episode left in replay.
struct RecordedEpisode {
  std::vector<float> observation, action, reward, terminated, prior_mean, prior_std;
  std::vector<int64_t> updates;
  int64_t rows = 0;
  bool ended = false;
};

// By episode id; checks that the segments of an episode follow each other.
inline std::map<uint64_t, RecordedEpisode> Assemble(const std::vector<v1::Segment>& segments) {
  const auto append = [](const v1::Segment& segment, RowColumn column, auto* out) {
    const std::string& bytes = segment.columns(static_cast<int>(column));
    using T = typename std::decay_t<decltype(*out)>::value_type;
    const size_t size = out->size();
    out->resize(size + bytes.size() / sizeof(T));
    std::memcpy(out->data() + size, bytes.data(), bytes.size());
  };
  std::map<uint64_t, RecordedEpisode> episodes;
  for (const v1::Segment& segment : segments) {
    RecordedEpisode& episode = episodes[segment.episode_id()];
    POMPC_CHECK(static_cast<int64_t>(segment.first_row()) == episode.rows && !episode.ended);
    append(segment, RowColumn::kObservation, &episode.observation);
    append(segment, RowColumn::kAction, &episode.action);
    append(segment, RowColumn::kReward, &episode.reward);
    append(segment, RowColumn::kTerminated, &episode.terminated);
    append(segment, RowColumn::kPriorMean, &episode.prior_mean);
    append(segment, RowColumn::kPriorStd, &episode.prior_std);
    append(segment, RowColumn::kUpdates, &episode.updates);
    episode.rows += segment.num_rows();
    episode.ended = segment.ends_episode();
  }
  return episodes;
}

}  // namespace pompc

#endif  // POMPC_ACTOR_LOOP_TEST_PEERS_H_
