#include "common/metrics/metrics.h"

#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <regex>
#include <set>

#include "absl/strings/str_split.h"
#include "common/base/file.h"
#include "common/base/log.h"
#include "common/metrics/reference.h"
#include "common/metrics/server.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace pompc {
namespace {

using testing::HasSubstr;
using testing::Not;

TEST(MetricTableTest, NamesFollowTheRules) {
  const std::set<std::string_view> rooms = {"actor", "replay", "learner", "relay",
                                            "rpc",   "run",    "log"};
  const std::set<std::string_view> units = {"",     "seconds",  "bytes",  "rows",
                                            "nats", "versions", "updates"};
  const std::regex form("(pompc_([a-z]+)|process)_[a-z]+(_[a-z]+)*");
  std::set<std::string_view> seen;
  for (const MetricSpec& spec : kMetricTable) {
    const std::string name(spec.name);
    SCOPED_TRACE(name);
    EXPECT_TRUE(seen.insert(spec.name).second) << "twice";
    std::smatch match;
    ASSERT_TRUE(std::regex_match(name, match, form));
    if (match[1] != "process") {
      EXPECT_TRUE(rooms.contains(match[2].str())) << match[2];
    }
    EXPECT_EQ(name.ends_with("_total"), spec.type == MetricType::kCounter);
    EXPECT_TRUE(units.contains(spec.unit));
    const std::string stem = name.ends_with("_total") ? name.substr(0, name.size() - 6) : name;
    for (std::string_view unit : units) {
      if (!unit.empty()) {
        EXPECT_EQ(stem.ends_with("_" + std::string(unit)), spec.unit == unit) << unit;
      }
    }
    EXPECT_TRUE(spec.help.ends_with('.')) << spec.help;
    EXPECT_EQ(spec.buckets.empty(), spec.type != MetricType::kHistogram);
    EXPECT_TRUE(std::is_sorted(spec.buckets.begin(), spec.buckets.end()));
  }
}

TEST(MetricTableTest, EveryMetricIsSetBySomeProgram) {
  std::string code;
  for (const char* room : {"actor", "cli", "common", "learner", "replay"}) {
    for (const auto& file : std::filesystem::recursive_directory_iterator(room)) {
      const std::string name = file.path().string();
      const bool source = name.ends_with(".cc") || name.ends_with(".h");
      if (!source || name.ends_with("_test.cc") || name == "common/metrics/table.h") continue;
      code += ReadFile(name).value();
    }
  }
  for (const MetricSpec& spec : kMetricTable) {
    EXPECT_NE(code.find("\"" + std::string(spec.name) + "\""), std::string::npos)
        << spec.name << " is in the table, but no code uses it";
  }
}

TEST(MetricTableTest, TheReferenceInDocsIsCurrentAndComplete) {
  const std::string reference = MetricsReference();
  EXPECT_EQ(ReadFile("docs/metrics.md").value(), reference)
      << "pompc inspect metrics > docs/metrics.md";
  for (const MetricSpec& spec : kMetricTable) {
    EXPECT_THAT(reference, HasSubstr("| `" + std::string(spec.name) + "` |"));
  }
}

TEST(MetricTableTest, LabelsAreClosedSetsOfAtMostTen) {
  const std::set<std::string_view> labels = {"side",     "loss",     "code", "rpc",
                                             "severity", "activity", "step", "state"};
  for (const MetricSpec& spec : kMetricTable) {
    if (spec.label.empty()) {
      EXPECT_EQ(spec.label_values, "") << spec.name;
      continue;
    }
    EXPECT_TRUE(labels.contains(spec.label)) << spec.name;
    const std::vector<std::string> values = absl::StrSplit(std::string(spec.label_values), ',');
    EXPECT_LE(values.size(), 10u) << spec.name;
    for (const std::string& value : values) {
      EXPECT_TRUE(std::regex_match(value, std::regex("[a-z_]+|[1-9]")))
          << spec.name << " " << value;
    }
  }
}

TEST(MetricsRegistryTest, AMetricStartsAtZeroForEveryLabelValue) {
  MetricsRegistry metrics;
  EXPECT_THAT(metrics.Text(), Not(HasSubstr("pompc_replay_blocked_seconds_total")));
  metrics.GetCounter("pompc_replay_blocked_seconds_total", "sample");
  metrics.GetHistogram("pompc_actor_plan_duration_seconds");
  const std::string text = metrics.Text();
  EXPECT_THAT(text, HasSubstr("pompc_replay_blocked_seconds_total{side=\"insert\"} 0\n"));
  EXPECT_THAT(text, HasSubstr("pompc_replay_blocked_seconds_total{side=\"sample\"} 0\n"));
  EXPECT_THAT(text, HasSubstr("pompc_actor_plan_duration_seconds_count 0\n"));
}

TEST(MetricsRegistryTest, GettingAMetricAgainGivesTheSameOne) {
  MetricsRegistry metrics;
  metrics.GetCounter("pompc_replay_inserts_total")->Increment(3);
  metrics.GetCounter("pompc_replay_inserts_total")->Increment(4);
  metrics.GetGauge("pompc_learner_loss", "value")->Set(0.5);
  EXPECT_EQ(metrics.GetGauge("pompc_learner_loss", "value")->Value(), 0.5);
  EXPECT_THAT(metrics.Text(), HasSubstr("\npompc_replay_inserts_total 7\n"));
}

TEST(MetricsRegistryDeathTest, UnknownLabelValuesAreABug) {
  MetricsRegistry metrics;
  EXPECT_DEATH(metrics.GetGauge("pompc_learner_loss", "sideways"), "no label value");
  EXPECT_DEATH(metrics.GetGauge("pompc_replay_items", "value"), "has no label");
}

TEST(MetricsRegistryTest, ExposesTheProcessAndTheRun) {
  MetricsRegistry metrics;
  RunInfo info;
  info.role = "learner";
  info.seed = 7;
  metrics.SetRunInfo(info);
  POMPC_LOG(WARNING) << "counted";
  const std::string text = metrics.Text();
  EXPECT_THAT(text, HasSubstr("role=\"learner\""));
  EXPECT_THAT(text, HasSubstr("seed=\"7\""));
  for (const char* name : {"process_cpu_seconds_total ", "process_open_fds ", "process_threads ",
                           "process_resident_memory_bytes ", "process_start_time_seconds "}) {
    const size_t at = text.find(std::string("\n") + name);
    ASSERT_NE(at, std::string::npos) << name;
    EXPECT_GT(std::stod(text.substr(at + 1 + std::string(name).size())), 0) << name;
  }
  EXPECT_THAT(text, Not(HasSubstr("severity=\"warning\"} 0\n")));
}

int Connect(int port) {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  EXPECT_EQ(connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  return fd;
}

// The answer to one request, headers included.
std::string Exchange(int port, const std::string& request) {
  const int fd = Connect(port);
  EXPECT_EQ(write(fd, request.data(), request.size()), static_cast<ssize_t>(request.size()));
  std::string answer;
  char buffer[4096];
  for (ssize_t n; (n = read(fd, buffer, sizeof(buffer))) > 0;) answer.append(buffer, n);
  close(fd);
  return answer;
}

std::string Get(int port, const std::string& path) {
  return Exchange(port, "GET " + path + " HTTP/1.0\r\n\r\n");
}

TEST(MetricsServerTest, ServesMetricsAndHealthOnAFreePort) {
  MetricsRegistry metrics;
  metrics.GetGauge("pompc_replay_items")->Set(12);
  std::atomic<bool> healthy = false;
  auto server = MetricsServer::Start("127.0.0.1:0", &metrics, [&] {
    return healthy ? absl::OkStatus() : absl::UnavailableError("no parameters for 60 s");
  });
  ASSERT_TRUE(server.ok()) << server.status();
  const int port = (*server)->port();
  EXPECT_GT(port, 0);
  EXPECT_THAT(Get(port, "/metrics"), HasSubstr("pompc_replay_items 12"));
  EXPECT_THAT(Get(port, "/healthz"), HasSubstr("503"));
  EXPECT_THAT(Get(port, "/healthz"), HasSubstr("UNAVAILABLE: no parameters for 60 s"));
  healthy = true;
  EXPECT_THAT(Get(port, "/healthz"), HasSubstr("HTTP/1.1 200 OK"));
  EXPECT_THAT(Get(port, "/elsewhere"), HasSubstr("404"));
}

TEST(MetricsServerTest, RefusesOtherMethodsAndAnswersTheNextClientAfterOneThatHungUp) {
  MetricsRegistry metrics;
  auto server = MetricsServer::Start(":0", &metrics, [] { return absl::OkStatus(); });
  ASSERT_TRUE(server.ok()) << server.status();
  const int silent = Connect((*server)->port());
  EXPECT_EQ(write(silent, "GET /met", 8), 8);
  close(silent);
  EXPECT_THAT(Get((*server)->port(), "/healthz?verbose"), HasSubstr("HTTP/1.1 200 OK"));
  EXPECT_THAT(Exchange((*server)->port(), "POST /metrics HTTP/1.1\r\n\r\n"), HasSubstr("405"));
}

TEST(MetricsServerTest, TakenAddressIsUnavailableAndNamed) {
  MetricsRegistry metrics;
  const auto health = [] { return absl::OkStatus(); };
  auto first = MetricsServer::Start(":0", &metrics, health);
  ASSERT_TRUE(first.ok()) << first.status();
  const std::string address = "127.0.0.1:" + std::to_string((*first)->port());
  const absl::Status second = MetricsServer::Start(address, &metrics, health).status();
  EXPECT_EQ(second.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(second.message()), HasSubstr(address));
}

TEST(MetricsServerTest, RefusesWhatIsNoAddressOfANetwork) {
  MetricsRegistry metrics;
  for (const char* address : {"localhost", "localhost:99999", "unix:/tmp/metrics"}) {
    const absl::Status refused =
        MetricsServer::Start(address, &metrics, [] { return absl::OkStatus(); }).status();
    EXPECT_EQ(refused.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(refused.message()), HasSubstr(address));
  }
}

}  // namespace
}  // namespace pompc
