#include "replay/client/remote_writer.h"

#include <utility>

#include "common/base/check.h"
#include "common/base/log.h"
#include "common/base/rng.h"
#include "common/base/status_macros.h"
#include "common/rpc/status.h"

namespace pompc {

RemoteWriter::RemoteWriter(const RemoteWriterOptions& options,
                           std::shared_ptr<grpc::Channel> channel, Clock* clock,
                           MetricsRegistry* metrics)
    : options_(options),
      channel_(std::move(channel)),
      clock_(clock),
      queue_rows_metric_(metrics->GetGauge("pompc_actor_upload_queue_rows")),
      wait_seconds_metric_(metrics->GetCounter("pompc_actor_upload_wait_seconds_total")),
      reconnects_metric_(metrics->GetCounter("pompc_rpc_reconnects_total")) {
  POMPC_CHECK(options.writer_id >= 1);
  thread_.emplace("replay-upload", [this] { Run(); });
}

RemoteWriter::~RemoteWriter() {
  Close();
  thread_->Join();
}

void RemoteWriter::Close() {
  absl::MutexLock lock(&mu_);
  closed_ = true;
  if (context_ != nullptr) context_->TryCancel();
}

bool RemoteWriter::CanQueue(int64_t rows) const {
  return queue_.empty() || queued_rows_ + rows <= credits_;
}

bool RemoteWriter::CanSend() const {
  // Before the greeting it is unknown whether this is still the table that the numbers are for.
  if (!greeted_ || sent_segments_ == queue_.size()) return false;
  return sent_segments_ == 0 ||
         sent_rows_ + queue_[sent_segments_].request->segment().num_rows() <= credits_;
}

absl::Status RemoteWriter::Await(const absl::Condition& decided, absl::Time deadline) {
  const absl::Time begin = clock_->Now();
  const bool in_time = clock_->AwaitUntil(&mu_, decided, deadline);
  wait_seconds_metric_->Increment(absl::ToDoubleSeconds(clock_->Now() - begin));
  if (closed_) return absl::CancelledError("the writer is closed");
  POMPC_RETURN_IF_ERROR(refused_);
  if (!in_time) return absl::DeadlineExceededError("replay does not keep up");
  return absl::OkStatus();
}

absl::Status RemoteWriter::Append(v1::Segment segment, absl::Time deadline) {
  const int64_t rows = segment.num_rows();
  auto request = std::make_shared<v1::AppendRequest>();
  *request->mutable_segment() = std::move(segment);
  request->mutable_segment()->set_writer_id(options_.writer_id);

  absl::MutexLock lock(&mu_);
  const auto decided = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    return closed_ || !refused_.ok() || CanQueue(rows);
  };
  POMPC_RETURN_IF_ERROR(Await(absl::Condition(&decided), deadline));
  queue_.push_back({request, request->segment().first_row()});
  Number(queue_.back());
  SetQueuedRows(queued_rows_ + rows);
  return absl::OkStatus();
}

absl::Status RemoteWriter::Flush(absl::Time deadline) {
  absl::MutexLock lock(&mu_);
  const auto decided = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    return closed_ || !refused_.ok() || queue_.empty();
  };
  return Await(absl::Condition(&decided), deadline);
}

void RemoteWriter::Number(Queued& queued) {
  v1::Segment& segment = *queued.request->mutable_segment();
  const uint64_t first_row =
      first_rows_.try_emplace(segment.episode_id(), started_over_ ? queued.first_row : 0)
          .first->second;
  segment.set_sequence(++last_sequence_);
  segment.set_first_row(queued.first_row - first_row);
  if (segment.ends_episode()) first_rows_.erase(segment.episode_id());
}

void RemoteWriter::StartOver() {
  POMPC_LOG(WARNING) << "replay lost its rows and begins anew writer_id=" << options_.writer_id
                     << " lost_segments=" << last_sequence_ - queue_.size()
                     << " resent_rows=" << queued_rows_;
  started_over_ = true;
  last_sequence_ = 0;
  first_rows_.clear();
  for (Queued& queued : queue_) Number(queued);
}

void RemoteWriter::Acknowledge(const v1::AppendResponse& response) {
  absl::MutexLock lock(&mu_);
  if (!greeted_ && table_id_ != 0 && response.table_id() != table_id_) StartOver();
  table_id_ = response.table_id();
  credits_ = response.credits();
  greeted_ = true;
  away_ = false;
  while (sent_segments_ > 0 &&
         queue_.front().request->segment().sequence() <= response.acknowledged_sequence()) {
    const int64_t rows = queue_.front().request->segment().num_rows();
    queue_.pop_front();
    --sent_segments_;
    sent_rows_ -= rows;
    SetQueuedRows(queued_rows_ - rows);
  }
}

void RemoteWriter::SetQueuedRows(int64_t rows) {
  queue_rows_metric_->Increment(static_cast<double>(rows - queued_rows_));  // Of several writers.
  queued_rows_ = rows;
}

bool RemoteWriter::away() const {
  absl::MutexLock lock(&mu_);
  return away_;
}

absl::Status RemoteWriter::Upload(v1::Replay::Stub* stub) {
  grpc::ClientContext context;
  {
    absl::MutexLock lock(&mu_);
    if (closed_) return absl::CancelledError("the writer is closed");
    context_ = &context;
    sent_segments_ = 0;
    sent_rows_ = 0;
    greeted_ = false;
    broken_ = false;
  }
  // (1)
  const auto stream = stub->Append(&context);
  // (3)
  Thread reader("replay-acks", [this, &stream] {
    v1::AppendResponse response;
    while (stream->Read(&response)) Acknowledge(response);
    absl::MutexLock lock(&mu_);
    broken_ = true;
  });
  // (2)
  while (true) {
    std::shared_ptr<const v1::AppendRequest> request;
    {
      absl::MutexLock lock(&mu_);
      const auto decided = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
        return closed_ || broken_ || CanSend();
      };
      mu_.Await(absl::Condition(&decided));
      if (closed_ || broken_) break;
      request = queue_[sent_segments_++].request;
      sent_rows_ += request->segment().num_rows();
    }
    if (!stream->Write(*request)) break;  // The reader learns of it too.
  }
  // (4)
  reader.Join();
  const grpc::Status status = stream->Finish();
  absl::MutexLock lock(&mu_);
  context_ = nullptr;
  return FromGrpc(status);
}

void RemoteWriter::Run() {
  const auto stub = v1::Replay::NewStub(channel_);
  Backoff backoff(options_.reconnect, Rng(options_.writer_id, RngRole::kBackoff, 0, 0));
  bool reported = false;
  while (true) {
    {
      // Connects when there is something to send; again without, since whoever sees that replay is
      // away sends nothing until it is back.
      absl::MutexLock lock(&mu_);
      const auto decided = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
        return closed_ || away_ || !queue_.empty();
      };
      mu_.Await(absl::Condition(&decided));
      if (closed_) return;
    }
    const absl::Status status = Upload(stub.get());
    absl::MutexLock lock(&mu_);
    if (closed_) return;
    if (IsRefusal(status)) {
      POMPC_LOG(ERROR) << "replay refused the upload writer_id=" << options_.writer_id
                       << " status=" << status;
      refused_ = status;
      return;
    }
    away_ = true;
    reconnects_metric_->Increment();
    if (greeted_ || !reported) {  // One line, however long it takes.
      reported = true;
      POMPC_LOG(WARNING) << "no connection to replay, trying again writer_id=" << options_.writer_id
                         << " queued_rows=" << queued_rows_ << " status=" << status;
    }
    if (greeted_) backoff.Reset();
    clock_->AwaitUntil(&mu_, absl::Condition(&closed_), clock_->Now() + backoff.Next());
  }
}

}  // namespace pompc
