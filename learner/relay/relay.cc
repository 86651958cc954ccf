#include "learner/relay/relay.h"

#include <chrono>
#include <functional>
#include <utility>

#include "common/base/status_macros.h"
#include "grpcpp/client_context.h"
#include "learner/client/learner_watch.h"

namespace pompc {
namespace {

constexpr absl::Duration kTick = absl::Milliseconds(200);  // Between looks at all but parameters.
// Without subscribers for so long, once the run is finished, all have left: one whose connection
// broke comes back sooner.
constexpr absl::Duration kReturnWait = absl::Seconds(3);
constexpr std::chrono::seconds kCallTimeout(10);

// Starts a call upstream that shares the deadline and the end of the call that it is for.
// start(context, done) starts it; finish() runs before a good answer is passed on.
template <typename Start>
grpc::ServerUnaryReactor* Forward(
    grpc::CallbackServerContext* server_context, const Start& start,
    std::function<void()> finish = [] {}) {
  grpc::ServerUnaryReactor* const reactor = server_context->DefaultReactor();
  const std::shared_ptr<grpc::ClientContext> context =
      grpc::ClientContext::FromCallbackServerContext(*server_context);
  context->set_deadline(std::chrono::system_clock::now() + kCallTimeout);
  start(context.get(), [context, reactor, finish = std::move(finish)](grpc::Status status) {
    if (status.ok()) finish();
    reactor->Finish(std::move(status));
  });
  return reactor;
}

}  // namespace

Relay::Relay(const std::string& upstream, const std::shared_ptr<grpc::Channel>& channel,
             uint64_t backoff_seed, Clock* clock, MetricsRegistry* metrics)
    : upstream_(upstream),
      clock_(clock),
      received_bytes_(metrics->GetCounter("pompc_relay_received_bytes_total")),
      stub_(v1::Learner::NewStub(channel)),
      client_(channel, backoff_seed, clock, metrics),
      publisher_(/*first_version=*/0, clock,
                 {.version = metrics->GetGauge("pompc_relay_params_version"),
                  .lag_updates = metrics->GetGauge("pompc_relay_params_lag_updates"),
                  .subscribers = metrics->GetGauge("pompc_relay_subscribers"),
                  .sent_bytes = metrics->GetCounter("pompc_relay_sent_bytes_total")}),
      reader_(channel, backoff_seed, clock, metrics,
              [this](const v1::ParameterSnapshot& snapshot, const grpc::ByteBuffer& bytes) {
                received_bytes_->Increment(static_cast<double>(bytes.Length()));
                updates_ = snapshot.updates();
                run_finished_ = snapshot.run_finished();
                publisher_.PassOn(snapshot, bytes);
              }) {}

absl::Status Relay::Run(const Event& stop) {
  LearnerWatch watch(&client_, clock_);
  absl::Time last_connected = clock_->Now();
  while (!stop.WaitUntil(clock_, clock_->Now() + kTick)) {
    publisher_.GreatestLag(updates_);
    if (run_finished_) {  // The learner leaves after us, and we after those who report through us.
      const absl::Time now = clock_->Now();
      if (!publisher_.AwaitLeft(now)) last_connected = now;
      if (now - last_connected >= kReturnWait) break;
    } else {
      last_connected = clock_->Now();
      const std::optional<v1::JoinRequest> join = last_join();
      POMPC_RETURN_IF_ERROR(watch.Check(reader_.status(), join.has_value() ? &*join : nullptr));
    }
  }
  return absl::OkStatus();
}

void Relay::Close() {
  client_.Close();
  publisher_.Close();
}

std::optional<v1::JoinRequest> Relay::last_join() const {
  absl::MutexLock lock(&mu_);
  return last_join_;
}

grpc::ServerUnaryReactor* Relay::GetConfig(grpc::CallbackServerContext* context,
                                           const v1::GetConfigRequest* request,
                                           v1::GetConfigResponse* response) {
  return Forward(context, [&](grpc::ClientContext* call, auto done) {
    stub_->async()->GetConfig(call, request, response, std::move(done));
  });
}

grpc::ServerUnaryReactor* Relay::Join(grpc::CallbackServerContext* context,
                                      const v1::JoinRequest* request, v1::JoinResponse* response) {
  return Forward(
      context,
      [&](grpc::ClientContext* call, auto done) {
        stub_->async()->Join(call, request, response, std::move(done));
      },
      [this, request, response] {
        if (response->replay_addresses().empty()) response->add_replay_addresses(upstream_);
        absl::MutexLock lock(&mu_);
        last_join_ = *request;
        last_join_->set_index(response->index());
      });
}

Publisher::Reactor* Relay::Subscribe(grpc::CallbackServerContext* /*context*/) {
  return publisher_.Subscribe();
}

grpc::ServerUnaryReactor* Relay::ReportEpisodes(grpc::CallbackServerContext* context,
                                                const v1::ReportEpisodesRequest* request,
                                                v1::ReportEpisodesResponse* response) {
  return Forward(context, [&](grpc::ClientContext* call, auto done) {
    stub_->async()->ReportEpisodes(call, request, response, std::move(done));
  });
}

grpc::ServerUnaryReactor* Relay::GetStatus(grpc::CallbackServerContext* context,
                                           const v1::GetStatusRequest* request,
                                           v1::RunStatus* response) {
  return Forward(context, [&](grpc::ClientContext* call, auto done) {
    stub_->async()->GetStatus(call, request, response, std::move(done));
  });
}

}  // namespace pompc
