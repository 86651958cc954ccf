// One snapshot of 20 MB to 64 subscribers over loopback, straight from the learner, in the clear
// and with TLS, and through 4 relays: time until all have it, bytes that the learner sends, CPU
// time of each role.
//
// Every role has processes of its own: the learner, each relay, and 4 with 16 subscribers each.
// Subscribers are those of the actors, checksums included. Prints one table.
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "bench/certificates.h"
#include "bench/role.h"
#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/metrics/metrics.h"
#include "common/rpc/channel.h"
#include "common/rpc/server.h"
#include "learner/client/remote_parameter_subscriber.h"
#include "learner/relay/relay.h"
#include "learner/service/learner_service.h"
#include "learner/service/publisher.h"

namespace pompc {
namespace {

constexpr size_t kBytes = 20'000'000;
constexpr int kSubscriberProcesses = 4, kSubscribersEach = 16;
constexpr int kRelays = 4;
constexpr int kWarmUps = 2, kSnapshots = 15;

// What a role answers its parent after each command.
struct Answer {
  int port = 0;
  double cpu_seconds = 0;  // Since it started.
  double sent_bytes = 0;
};

std::string Loopback(int port) { return "127.0.0.1:" + std::to_string(port); }

// Serves parameters alone.
class ParameterService final : public LearnerServiceBase {
 public:
  explicit ParameterService(Publisher* publisher) : publisher_(publisher) {}

 private:
  Publisher::Reactor* Subscribe(grpc::CallbackServerContext*) override {
    return publisher_->Subscribe();
  }
  Publisher* const publisher_;
};

// Publishes the next version at 'g'.
Role<Answer>::Obey MakeLearner(const RpcSecurity& security) {
  struct State {
    MetricsRegistry metrics;
    Publisher publisher{0,
                        RealClock(),
                        {.version = metrics.GetGauge("pompc_learner_params_version"),
                         .lag_updates = metrics.GetGauge("pompc_learner_params_lag_updates"),
                         .subscribers = metrics.GetGauge("pompc_learner_subscribers"),
                         .sent_bytes = metrics.GetCounter("pompc_learner_sent_bytes_total")}};
    ParameterService service{&publisher};
    std::unique_ptr<RpcServer> server;
  };
  auto* const state = new State;  // Ends with the process.
  auto server = RpcServer::Start(Loopback(0), {&state->service}, &state->metrics, security);
  POMPC_CHECK_OK(server.status());
  state->server = *std::move(server);
  return [state](char command, Answer* answer) {
    if (command == 'g') {
      v1::ParameterSnapshot snapshot;
      snapshot.set_data(std::string(kBytes, 'p'));
      state->publisher.Publish(std::move(snapshot));
    }
    answer->port = state->server->port();
    answer->sent_bytes = state->metrics.GetCounter("pompc_learner_sent_bytes_total")->Value();
  };
}

Role<Answer>::Obey MakeRelay(int upstream_port) {
  auto* const metrics = new MetricsRegistry;
  const std::string upstream = Loopback(upstream_port);
  auto* const relay = new Relay(upstream, CreateChannel(upstream), getpid(), RealClock(), metrics);
  auto server = RpcServer::Start(Loopback(0), {relay}, metrics);
  POMPC_CHECK_OK(server.status());
  const int port = (*server)->port();
  [[maybe_unused]] const RpcServer* const kept = server->release();
  return [port](char, Answer* answer) { answer->port = port; };
}

// Waits at 'g' until all its subscribers hold the next version.
Role<Answer>::Obey MakeSubscribers(int port, const RpcSecurity& security) {
  auto* const metrics = new MetricsRegistry;
  auto* const subscribers = new std::vector<std::unique_ptr<RemoteParameterSubscriber>>;
  for (int i = 0; i < kSubscribersEach; ++i) {
    subscribers->push_back(std::make_unique<RemoteParameterSubscriber>(
        CreateChannel(Loopback(port), security), getpid() + i, RealClock(), metrics));
  }
  return [subscribers, next = int64_t{0}](char command, Answer*) mutable {
    if (command != 'g') return;
    for (auto& subscriber : *subscribers) {
      const SnapshotPtr held = subscriber->Newest();
      if (held != nullptr && held->version() >= next) continue;
      POMPC_CHECK_OK(subscriber
                         ->WaitForNewer(held == nullptr ? -1 : held->version(),
                                        RealClock()->Now() + absl::Minutes(1))
                         .status());
    }
    ++next;
  };
}

double SumOfCpu(const std::vector<std::unique_ptr<Role<Answer>>>& roles) {
  double seconds = 0;
  for (const auto& role : roles) seconds += role->Ask('s').cpu_seconds;
  return seconds;
}

void Measure(const char* name, const Guard& guard, int num_relays) {
  Role<Answer> learner([&] { return MakeLearner(guard.server); });
  const int learner_port = learner.Ask('s').port;
  std::vector<std::unique_ptr<Role<Answer>>> relays, subscribers;
  for (int i = 0; i < num_relays; ++i) {
    relays.push_back(std::make_unique<Role<Answer>>([&] { return MakeRelay(learner_port); }));
  }
  for (int i = 0; i < kSubscriberProcesses; ++i) {
    const int port = num_relays == 0 ? learner_port : relays[i % num_relays]->Ask('s').port;
    subscribers.push_back(
        std::make_unique<Role<Answer>>([&] { return MakeSubscribers(port, guard.client); }));
  }
  std::vector<double> seconds;
  Answer before;
  double relays_before = 0, subscribers_before = 0;
  for (int i = 0; i < kWarmUps + kSnapshots; ++i) {
    if (i == kWarmUps) {
      before = learner.Ask('s');
      relays_before = SumOfCpu(relays);
      subscribers_before = SumOfCpu(subscribers);
    }
    const absl::Time start = RealClock()->Now();
    for (auto& role : subscribers) role->Tell('g');
    learner.Tell('g');
    learner.Await();
    for (auto& role : subscribers) role->Await();
    if (i >= kWarmUps) seconds.push_back(absl::ToDoubleSeconds(RealClock()->Now() - start));
  }
  std::sort(seconds.begin(), seconds.end());
  const Answer after = learner.Ask('s');
  const auto each = [](double total) { return total / kSnapshots; };
  std::printf("%-20s %8.0f %8.0f %12.1f %12.0f %12.0f %12.0f\n", name,
              1e3 * seconds[kSnapshots / 2], 1e3 * seconds.back(),
              1e-6 * each(after.sent_bytes - before.sent_bytes),
              1e3 * each(after.cpu_seconds - before.cpu_seconds),
              1e3 * each(SumOfCpu(relays) - relays_before),
              1e3 * each(SumOfCpu(subscribers) - subscribers_before));
  std::fflush(stdout);
}

}  // namespace
}  // namespace pompc

int main() {
  std::printf("%d subscribers, %.0f MB a snapshot, %d snapshots; figures per snapshot\n",
              pompc::kSubscriberProcesses * pompc::kSubscribersEach, 1e-6 * pompc::kBytes,
              pompc::kSnapshots);
  std::printf("%-20s %8s %8s %12s %12s %12s %12s\n", "", "ms", "worst", "learner MB", "learner CPU",
              "relays CPU", "subs. CPU ms");
  const pompc::Certificates certificates;
  pompc::Measure("direct", certificates.Plain(), 0);
  pompc::Measure("direct, TLS", certificates.Tls(), 0);
  pompc::Measure("direct, mutual TLS", certificates.MutualTls(), 0);
  pompc::Measure("4 relays", certificates.Plain(), pompc::kRelays);
  return 0;
}
