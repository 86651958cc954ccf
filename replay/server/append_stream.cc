#include "replay/server/append_stream.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/rpc/status.h"

namespace pompc {

AppendStream* AppendStream::Start(Replay* replay, Gauge* writers) {
  auto* const stream = new AppendStream(replay, writers);
  stream->self_.reset(stream);
  stream->Greet();
  return stream;
}

AppendStream::AppendStream(Replay* replay, Gauge* writers) : replay_(replay), writers_(writers) {
  writers_->Increment();
}

void AppendStream::Greet() {
  const absl::StatusOr<Replay::Appended> greeting = replay_->Greeting();
  absl::MutexLock lock(&mu_);
  AnswerAndRead(greeting);
}

void AppendStream::OnReadDone(bool ok) {
  if (!ok) {
    absl::MutexLock lock(&mu_);
    return End(absl::OkStatus());  // The client has sent everything, or is gone.
  }
  v1::Segment segment = std::move(*request_.mutable_segment());
  if (writer_id_ == 0) writer_id_ = segment.writer_id();
  if (segment.writer_id() != writer_id_) {
    absl::MutexLock lock(&mu_);
    return End(absl::InvalidArgumentError(
        absl::StrCat("segment.writer_id: ", segment.writer_id(), " on a stream of writer ",
                     writer_id_, "; every writer needs a stream of its own")));
  }
  const Replay::Ticket ticket = replay_->NewTicket();
  {
    absl::MutexLock lock(&mu_);
    ticket_ = ticket;
  }
  replay_->Append(ticket, std::move(segment),
                  [self = self_](const absl::StatusOr<Replay::Appended>& r) { self->OnStored(r); });
  // The peer may have gone before Replay knew the ticket.
  absl::MutexLock lock(&mu_);
  EndIfCancelled();
}

void AppendStream::OnStored(const absl::StatusOr<Replay::Appended>& result) {
  absl::MutexLock lock(&mu_);
  ticket_ = 0;
  AnswerAndRead(result);
}

void AppendStream::AnswerAndRead(const absl::StatusOr<Replay::Appended>& result) {
  if (!result.ok()) return End(result.status());
  next_.emplace();
  next_->set_acknowledged_sequence(result->acknowledged_sequence);
  next_->set_credits(result->credits);
  next_->set_table_id(result->table_id);
  WriteNext();
  StartRead(&request_);
}

void AppendStream::WriteNext() {
  if (writing_) return;
  if (next_.has_value()) {
    response_ = *std::move(next_);
    next_.reset();
    writing_ = true;
    StartWrite(&response_);
  } else if (end_.has_value()) {
    Finish(ToGrpc(*end_));
  }
}

void AppendStream::OnWriteDone(bool ok) {
  absl::MutexLock lock(&mu_);
  writing_ = false;
  if (!ok) next_.reset();  // The peer is gone; the turn's holder will notice.
  WriteNext();
}

void AppendStream::OnCancel() {
  absl::MutexLock lock(&mu_);
  cancelled_ = true;
  EndIfCancelled();
}

void AppendStream::EndIfCancelled() {
  if (!cancelled_ || ticket_ == 0 || !replay_->Cancel(ticket_)) return;
  ticket_ = 0;
  End(absl::CancelledError("the writer is gone"));
}

void AppendStream::End(absl::Status status) {
  end_ = std::move(status);
  WriteNext();
}

void AppendStream::OnDone() {
  writers_->Decrement();
  const std::shared_ptr<AppendStream> last = std::move(self_);
}

}  // namespace pompc
