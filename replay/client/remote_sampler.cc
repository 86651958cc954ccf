#include "replay/client/remote_sampler.h"

#include <algorithm>
#include <utility>

#include "common/base/check.h"
#include "common/base/log.h"
#include "common/base/rng.h"
#include "common/base/status_macros.h"
#include "common/rpc/status.h"

namespace pompc {

RemoteSampler::RemoteSampler(const RemoteSamplerOptions& options,
                             std::shared_ptr<grpc::Channel> channel, Clock* clock,
                             MetricsRegistry* metrics)
    : options_(options),
      stub_(v1::Replay::NewStub(std::move(channel))),
      clock_(clock),
      metrics_(metrics),
      reconnects_metric_(metrics->GetCounter("pompc_rpc_reconnects_total")),
      batches_(1, clock),
      received_batches_(options.updates_done) {
  POMPC_CHECK(options.batch_size >= 1 && options.prefetch >= 1 && options.updates_done >= 0);
  thread_.emplace("replay-sample", [this] { Run(); });
}

RemoteSampler::~RemoteSampler() {
  Close();
  thread_->Join();
}

void RemoteSampler::Close() {
  stop_.Notify();
  batches_.Close();
  absl::MutexLock lock(&mu_);
  if (context_ != nullptr) context_->TryCancel();
}

bool RemoteSampler::Hold(grpc::ClientContext* context) {
  absl::MutexLock lock(&mu_);
  if (stop_.HasBeenNotified()) return false;
  context_ = context;
  return true;
}

void RemoteSampler::Release() {
  absl::MutexLock lock(&mu_);
  context_ = nullptr;
}

absl::Status RemoteSampler::Receive(Backoff* backoff) {
  v1::ConfigureRequest configure;
  *configure.mutable_table() = options_.table;
  {
    absl::MutexLock lock(&mu_);
    configure.set_updates_done(received_batches_);
  }
  POMPC_LOG(INFO) << "declaring the table to replay run_id=" << options_.table.run_id()
                  << " updates_done=" << configure.updates_done();
  v1::ConfigureResponse configured;
  POMPC_RETURN_IF_ERROR(Call(absl::InfiniteDuration(), [&](grpc::ClientContext* context) {
    return stub_->Configure(context, configure, &configured);
  }));

  grpc::ClientContext context;
  if (!Hold(&context)) return absl::CancelledError("the sampler is closed");
  const auto stream = stub_->Sample(&context);
  v1::SampleRequest request;
  request.set_batch_size(options_.batch_size);
  request.set_window_rows(options_.table.window_rows());
  request.set_credits(options_.prefetch);
  stream->Write(request);
  request.Clear();
  request.set_credits(1);
  v1::SampleResponse response;
  // A write that fails is no reason to stop: what has arrived is still to be read, and the status
  // comes only after it.
  while (stream->Read(&response)) {
    backoff->Reset();
    if (!batches_.Push(std::move(response)).ok()) context.TryCancel();  // Closed.
    {
      absl::MutexLock lock(&mu_);
      ++received_batches_;
    }
    response = v1::SampleResponse();
    stream->Write(request);
  }
  const grpc::Status end = stream->Finish();
  Release();
  return FromGrpc(end);
}

void RemoteSampler::Run() {
  Backoff backoff(options_.retry, Rng(options_.table.seed(), RngRole::kBackoff, 0, 0));
  while (true) {
    const absl::Status status = Receive(&backoff);
    if (stop_.HasBeenNotified()) return;
    if (IsRefusal(status)) {
      POMPC_LOG(ERROR) << "replay refused to sample status=" << status;
      {
        absl::MutexLock lock(&mu_);
        refused_ = status;
      }
      return batches_.Drain();
    }
    reconnects_metric_->Increment();
    POMPC_LOG(WARNING) << "lost replay, connecting again status=" << status;
    stop_.WaitUntil(clock_, clock_->Now() + backoff.Next());
  }
}

absl::Status RemoteSampler::Next(absl::Time deadline, ColumnBatch* batch) {
  absl::StatusOr<v1::SampleResponse> response = batches_.Pop(deadline);
  if (absl::IsCancelled(response.status())) {
    absl::MutexLock lock(&mu_);
    POMPC_RETURN_IF_ERROR(refused_);
  }
  POMPC_RETURN_IF_ERROR(response.status());
  batch->columns.resize(response->columns_size());
  for (int i = 0; i < response->columns_size(); ++i) {
    batch->columns[i].swap(*response->mutable_columns(i));
  }
  batch->keys.assign(response->keys().begin(), response->keys().end());
  batch->newest_key = response->newest_key();
  batch->inserted_decisions = response->inserted_decisions();
  batch->sampled_batches = response->sampled_batches();
  batch->stored_windows = response->stored_windows();
  batch->probabilities.assign(response->weights().begin(), response->weights().end());
  for (double& weight : batch->probabilities) weight /= response->total_weight();
  return absl::OkStatus();
}

absl::Status RemoteSampler::Call(absl::Duration give_up_after,
                                 const std::function<grpc::Status(grpc::ClientContext*)>& attempt) {
  uint64_t call;
  {
    absl::MutexLock lock(&mu_);
    call = ++calls_;
  }
  RetryPolicy retry = options_.retry;
  retry.attempt_timeout = std::min(retry.attempt_timeout, give_up_after);
  retry.give_up_after = give_up_after;
  absl::Status status = UnaryCaller(retry, Rng(options_.table.seed(), RngRole::kBackoff, 0, call),
                                    clock_, &stop_, metrics_)
                            .Call(attempt);
  if (absl::IsDeadlineExceeded(status)) status = absl::UnavailableError(status.message());
  return status;
}

absl::StatusOr<v1::UpdateResponse> RemoteSampler::Update(absl::Span<const uint64_t> keys,
                                                         absl::Span<const NamedRows> columns) {
  return CallUpdate(MakeUpdateRequest(keys, columns));
}

absl::StatusOr<v1::UpdateResponse> RemoteSampler::UpdatePriorities(
    absl::Span<const uint64_t> keys, absl::Span<const float> priorities) {
  return CallUpdate(MakePriorityRequest(keys, priorities));
}

absl::StatusOr<v1::UpdateResponse> RemoteSampler::CallUpdate(const v1::UpdateRequest& request) {
  v1::UpdateResponse response;
  POMPC_RETURN_IF_ERROR(Call(options_.patience, [&](grpc::ClientContext* context) {
    return stub_->Update(context, request, &response);
  }));
  return response;
}

absl::StatusOr<v1::InfoResponse> RemoteSampler::Info() {
  v1::InfoResponse response;
  POMPC_RETURN_IF_ERROR(Call(options_.patience, [&](grpc::ClientContext* context) {
    return stub_->Info(context, v1::InfoRequest(), &response);
  }));
  return response;
}

}  // namespace pompc
