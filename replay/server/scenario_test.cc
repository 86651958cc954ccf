// Runs the scenarios of testdata/: what peers ask of a Replay, and what comes of it.
//
// A scenario is a list of blocks "command, ----, expected output", separated by empty lines:
//   configure seed=S pretrain=P updates_per_decision=U ahead=A behind=B [window=W] [credits=C]
//   updates done=N                      the learner says how many updates it has made
//   insert writer=I rows=N [end=1]      the writer's next segment
//   resend writer=I                     its last segment once more
//   vanish request=N                    the peer behind request N dies
//   sample batches=N
//   tick seconds=N
//   state
// Requests are numbered in the order they are made; their outcome is shown when it comes.
#include <fstream>
#include <map>
#include <sstream>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/base/clock.h"
#include "gtest/gtest.h"
#include "replay/server/replay.h"
#include "replay/server/testing.h"

namespace pompc {
namespace {

class Scenario {
 public:
  // What a command line leads to.
  std::string Run(const std::string& line) {
    output_.clear();
    const std::vector<std::string> words = absl::StrSplit(line, ' ', absl::SkipEmpty());
    args_.clear();
    for (size_t i = 1; i < words.size(); ++i) {
      const std::vector<std::string> pair = absl::StrSplit(words[i], '=');
      EXPECT_TRUE(pair.size() == 2 && absl::SimpleAtod(pair[1], &args_[pair[0]])) << line;
    }
    if (words[0] == "configure") {
      Configure();
    } else if (words[0] == "updates") {
      request_.set_updates_done(args_["done"]);
      Print(replay_.Configure(request_).ToString());
    } else if (words[0] == "insert") {
      Insert();
    } else if (words[0] == "resend") {
      Send(writers_[args_["writer"]].last);
    } else if (words[0] == "vanish") {
      Print(replay_.Cancel(tickets_[args_["request"]]) ? "forgotten" : "not waiting");
    } else if (words[0] == "sample") {
      for (int i = 0; i < args_["batches"]; ++i) Sample();
    } else if (words[0] == "tick") {
      clock_.Advance(absl::Seconds(args_["seconds"]));
    } else if (words[0] == "state") {
      State();
    } else {
      ADD_FAILURE() << "unknown command: " << line;
    }
    return output_;
  }

 private:
  struct Writer {
    uint64_t episode = 1, rows = 0;
    v1::Segment last;
  };
  struct Buffers {
    std::string ids, priors, keys;
  };
  static constexpr int kBatch = 2;

  void Print(const std::string& line) { absl::StrAppend(&output_, line, "\n"); }

  void Configure() {
    v1::TableConfig& table = *request_.mutable_table();
    table = testing::TestTable(args_.count("window") ? args_["window"] : 2, 10'000);
    if (args_.count("credits")) table.set_writer_credits(args_["credits"]);
    v1::RateLimits& limits = *table.mutable_limits();
    limits.set_seed_decisions(args_["seed"]);
    limits.set_pretrain_updates(args_["pretrain"]);
    limits.set_updates_per_decision(args_["updates_per_decision"]);
    limits.set_max_updates_ahead(args_["ahead"]);
    limits.set_max_updates_behind(args_["behind"]);
    Print(replay_.Configure(request_).ToString());
  }

  void Insert() {
    Writer& writer = writers_[args_["writer"]];
    const bool ends = args_["end"] == 1;
    writer.last = testing::TestSegment(args_["writer"], writer.last.sequence() + 1, writer.episode,
                                       writer.rows, args_["rows"], ends);
    writer.rows = ends ? 0 : writer.rows + writer.last.num_rows();
    writer.episode += ends;
    Send(writer.last);
  }

  void Send(const v1::Segment& segment) {
    const size_t number = tickets_.size();
    tickets_.push_back(replay_.NewTicket());
    Print(absl::StrCat("request ", number, ": segment ", segment.sequence(), " of writer ",
                       segment.writer_id()));
    replay_.Append(tickets_.back(), segment, [this, number](absl::StatusOr<Replay::Appended> r) {
      Print(absl::StrCat("  ", number, " ",
                         r.ok() ? absl::StrCat("acknowledged up to ", r->acknowledged_sequence,
                                               ", credits ", r->credits)
                                : r.status().ToString()));
    });
  }

  void Sample() {
    const size_t number = tickets_.size();
    tickets_.push_back(replay_.NewTicket());
    Print(absl::StrCat("request ", number, ": batch"));
    const auto layout = replay_.layout();
    if (!layout.ok()) return Print(layout.status().ToString());
    const size_t rows = layout->window_rows * kBatch;
    auto memory = std::make_shared<Buffers>(Buffers{
        std::string(rows * 24, '\0'), std::string(rows * 8, '\0'), std::string(rows * 8, '\0')});
    replay_.Sample(
        tickets_.back(), *layout, kBatch,
        {.columns = {memory->ids.data(), memory->priors.data()}, .keys = memory->keys.data()},
        [this, memory, number](absl::StatusOr<Replay::Drawn> r) {
          Print(absl::StrCat("  ", number, " ",
                             r.ok() ? absl::StrCat("drawn as batch ", r->sampled_batches, " of ",
                                                   r->inserted_decisions, " decisions")
                                    : r.status().ToString()));
        });
  }

  void State() {
    const v1::InfoResponse info = replay_.Info();
    Print(absl::StrCat("rows=", info.rows(), " decisions=", info.inserted_decisions(),
                       " updates=", info.sampled_batches(), " windows=", info.windows(),
                       " duplicates=", info.duplicate_segments(),
                       " insert_blocked=", info.insert_blocked_seconds(),
                       "s sample_blocked=", info.sample_blocked_seconds(), "s"));
  }

  FakeClock clock_;
  MetricsRegistry metrics_;
  v1::ConfigureRequest request_;
  std::map<uint64_t, Writer> writers_;
  std::map<std::string, double> args_;
  std::string output_;
  Replay replay_{&clock_, &metrics_};  // Goes before the output that its last callbacks write to.
  std::vector<Replay::Ticket> tickets_;
};

class ScenarioTest : public ::testing::TestWithParam<const char*> {};

TEST_P(ScenarioTest, GivesTheExpectedOutput) {
  const std::string path = absl::StrCat("replay/server/testdata/", GetParam());
  std::ifstream file(path);
  ASSERT_TRUE(file.is_open()) << path;
  auto scenario = std::make_unique<Scenario>();
  std::string line, command, expected;
  int line_number = 0, commands = 0;
  const auto finish = [&] {
    if (command.empty()) return;
    EXPECT_EQ(scenario->Run(command), expected) << path << ":" << line_number << ": " << command;
    command.clear();
    expected.clear();
    ++commands;
  };
  bool in_expected = false;
  while (std::getline(file, line)) {
    ++line_number;
    if (line.empty()) {
      finish();
      in_expected = false;
    } else if (in_expected) {
      expected += line + "\n";
    } else if (line == "----") {
      in_expected = true;
    } else if (line[0] != '#') {
      command = line;
    }
  }
  finish();
  EXPECT_GT(commands, 3);
}

INSTANTIATE_TEST_SUITE_P(All, ScenarioTest,
                         ::testing::Values("phases.txt", "lock_step.txt", "band.txt", "resend.txt",
                                           "not_configured.txt"),
                         [](const auto& info) {
                           const std::string name = info.param;
                           return name.substr(0, name.find('.'));
                         });

}  // namespace
}  // namespace pompc
