#include "replay/server/sample_stream.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/rpc/status.h"
#include "grpcpp/impl/codegen/proto_utils.h"

namespace pompc {
namespace {

// Credits cost nothing here, but a client that wants more cannot be in its right mind.
constexpr int64_t kMaxCredits = 1 << 20;

}  // namespace

SampleStream* SampleStream::Start(Replay* replay) {
  auto* const stream = new SampleStream(replay);
  stream->self_.reset(stream);
  stream->StartRead(&stream->request_);
  return stream;
}

absl::Status SampleStream::Accept() {
  v1::SampleRequest request;
  if (!grpc::SerializationTraits<v1::SampleRequest>::Deserialize(&request_, &request).ok()) {
    return absl::InvalidArgumentError("request: not a SampleRequest");
  }
  if (!layout_.has_value()) {
    POMPC_ASSIGN_OR_RETURN(layout_, replay_->layout());
    if (request.window_rows() != layout_->window_rows) {
      return absl::FailedPreconditionError(absl::StrCat("window_rows: ", request.window_rows(),
                                                        "; the table has windows of ",
                                                        layout_->window_rows));
    }
    batch_size_ = request.batch_size();
    POMPC_RETURN_IF_ERROR(BatchEncoding::Create(*layout_, batch_size_).status());
  } else if (request.batch_size() != 0 || request.window_rows() != 0) {
    return absl::InvalidArgumentError(
        "batch_size, window_rows: set again; they hold for the whole stream");
  }
  if (request.credits() < 1 || request.credits() > kMaxCredits - credits_) {
    return absl::InvalidArgumentError(absl::StrCat("credits: ", request.credits(),
                                                   "; must be at least 1, and at most ",
                                                   kMaxCredits, " may be open"));
  }
  credits_ += request.credits();
  return absl::OkStatus();
}

void SampleStream::OnReadDone(bool ok) {
  {
    absl::MutexLock lock(&mu_);
    const absl::Status status = ok ? Accept() : absl::OkStatus();
    if (!ok || !status.ok()) return End(status);
    if (end_.has_value()) return;
    StartRead(&request_);
  }
  DrawNext();
}

void SampleStream::DrawNext() {
  Replay::Ticket ticket;
  Replay::Layout layout;
  int32_t batch_size;
  WindowBuffers buffers;
  {
    absl::MutexLock lock(&mu_);
    if (end_.has_value() || credits_ == 0 || ticket_ != 0 || writing_) return;
    auto batch = BatchEncoding::Create(*layout_, batch_size_);
    if (!batch.ok()) return End(batch.status());
    batch_ = *std::move(batch);
    ticket = ticket_ = replay_->NewTicket();
    layout = *layout_;
    batch_size = batch_size_;
    buffers = batch_->buffers();
  }
  replay_->Sample(
      ticket, layout, batch_size, std::move(buffers),
      [self = self_](const absl::StatusOr<Replay::Drawn>& drawn) { self->OnDrawn(drawn); });
  // The stream may have been ended before Replay knew the ticket.
  absl::MutexLock lock(&mu_);
  EndIfIdle();
}

void SampleStream::OnDrawn(const absl::StatusOr<Replay::Drawn>& drawn) {
  absl::MutexLock lock(&mu_);
  ticket_ = 0;
  if (!drawn.ok()) return End(drawn.status());
  if (end_.has_value()) return EndIfIdle();
  response_ = batch_->Finish(*drawn);
  writing_ = true;
  StartWrite(&response_);
}

void SampleStream::OnWriteDone(bool ok) {
  {
    absl::MutexLock lock(&mu_);
    writing_ = false;
    response_.Clear();
    --credits_;
    if (!ok) return End(absl::CancelledError("the sampler is gone"));
    EndIfIdle();
  }
  DrawNext();
}

void SampleStream::OnCancel() {
  absl::MutexLock lock(&mu_);
  End(absl::CancelledError("the sampler is gone"));
}

void SampleStream::End(absl::Status status) {
  if (!end_.has_value()) end_ = std::move(status);
  EndIfIdle();
}

void SampleStream::EndIfIdle() {
  if (!end_.has_value() || ended_ || writing_) return;
  if (ticket_ != 0 && !replay_->Cancel(ticket_))
    return;  // OnDrawn() comes, or DrawNext() is not through.
  ticket_ = 0;
  ended_ = true;
  Finish(ToGrpc(*end_));
}

void SampleStream::OnDone() { const std::shared_ptr<SampleStream> last = std::move(self_); }

}  // namespace pompc
