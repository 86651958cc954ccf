#include "learner/client/snapshot_reader.h"

#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "common/base/crc32c.h"
#include "common/base/log.h"
#include "common/base/rng.h"
#include "common/rpc/retry.h"
#include "common/rpc/status.h"
#include "grpcpp/completion_queue.h"
#include "grpcpp/impl/codegen/proto_utils.h"

namespace pompc {
namespace {

// A Subscribe call whose answers stay as they come. Every operation blocks until it is done or the
// context is cancelled.
class SubscribeCall {
 public:
  SubscribeCall(grpc::GenericStub& stub, grpc::ClientContext* context)
      : call_(stub.PrepareCall(context, "/pompc.v1.Learner/Subscribe", &queue_)) {
    call_->StartCall(nullptr);
    Await();
  }
  ~SubscribeCall() { queue_.Shutdown(); }

  bool Write(const v1::SubscribeRequest& request) {
    grpc::ByteBuffer bytes;
    bool own_buffer;
    grpc::SerializationTraits<v1::SubscribeRequest>::Serialize(request, &bytes, &own_buffer);
    call_->Write(bytes, nullptr);
    return Await();
  }
  bool Read(grpc::ByteBuffer* answer) {
    call_->Read(answer, nullptr);
    return Await();
  }
  grpc::Status Finish() {
    grpc::Status status;
    call_->Finish(&status, nullptr);
    Await();
    return status;
  }

 private:
  // The end of the one operation under way; whether it succeeded.
  bool Await() {
    void* tag;
    bool ok = false;
    return queue_.Next(&tag, &ok) && ok;
  }

  grpc::CompletionQueue queue_;
  const std::unique_ptr<grpc::GenericClientAsyncReaderWriter> call_;
};

absl::StatusOr<v1::ParameterSnapshot> Parse(grpc::ByteBuffer bytes) {
  v1::ParameterSnapshot snapshot;
  if (!grpc::SerializationTraits<v1::ParameterSnapshot>::Deserialize(&bytes, &snapshot).ok()) {
    return absl::DataLossError("parameters came as no ParameterSnapshot");
  }
  const std::string& data = snapshot.data();
  constexpr size_t kElement = 2;  // Of the smaller type, bfloat16.
  if (data.empty() || data.size() % kElement != 0) {
    return absl::DataLossError(absl::StrCat("parameters of version ", snapshot.version(), " have ",
                                            data.size(), " bytes, which is no number of elements"));
  }
  if (Crc32c(data) != snapshot.crc32c()) {
    return absl::DataLossError(
        absl::StrCat("parameters of version ", snapshot.version(), " have a wrong checksum"));
  }
  return snapshot;
}

}  // namespace

SnapshotReader::SnapshotReader(std::shared_ptr<grpc::Channel> channel, uint64_t backoff_seed,
                               Clock* clock, MetricsRegistry* metrics, Take take)
    : stub_(std::move(channel)),
      clock_(clock),
      reconnects_(metrics->GetCounter("pompc_rpc_reconnects_total")),
      take_(std::move(take)),
      thread_("params", [this, backoff_seed] { ReadLoop(backoff_seed); }) {}

SnapshotReader::~SnapshotReader() { Close(); }

void SnapshotReader::Close() {
  absl::MutexLock lock(&mu_);
  closed_.Notify();
  if (context_ != nullptr) context_->TryCancel();
}

int64_t SnapshotReader::dropped_snapshots() const {
  absl::MutexLock lock(&mu_);
  return dropped_;
}

absl::Status SnapshotReader::status() const {
  absl::MutexLock lock(&mu_);
  return status_;
}

void SnapshotReader::ReadLoop(uint64_t backoff_seed) {
  Backoff backoff(RetryPolicy(), Rng(backoff_seed, RngRole::kBackoff, 1, 0));
  while (!closed_.HasBeenNotified()) {
    const absl::Status broken = ReadStream([&backoff] { backoff.Reset(); });
    if (closed_.HasBeenNotified()) return;
    if (absl::IsDataLoss(broken)) POMPC_LOG(WARNING) << broken.message();
    {
      absl::MutexLock lock(&mu_);
      status_ = broken;
    }
    if (closed_.WaitUntil(clock_, clock_->Now() + backoff.Next())) return;
    reconnects_->Increment();
  }
}

template <typename Received>
absl::Status SnapshotReader::ReadStream(Received received) {
  grpc::ClientContext context;
  {
    absl::MutexLock lock(&mu_);
    if (closed_.HasBeenNotified()) return absl::CancelledError("the reader is closed");
    context_ = &context;
  }
  SubscribeCall call(stub_, &context);
  absl::Status damaged;
  v1::SubscribeRequest request;
  // The first request of a stream takes whatever the learner has: it may have started again.
  request.set_held_version(-1);
  grpc::ByteBuffer bytes;
  while (call.Write(request) && call.Read(&bytes)) {
    absl::StatusOr<v1::ParameterSnapshot> snapshot = Parse(bytes);
    if (!snapshot.ok()) {
      damaged = snapshot.status();
      context.TryCancel();
      break;
    }
    request.set_held_version(snapshot->version());
    {
      absl::MutexLock lock(&mu_);
      status_ = absl::OkStatus();
    }
    take_(*std::move(snapshot), bytes);
    received();
  }
  const absl::Status finished = FromGrpc(call.Finish());
  absl::MutexLock lock(&mu_);
  context_ = nullptr;
  if (!damaged.ok()) {
    ++dropped_;
    return damaged;
  }
  return finished.ok() ? absl::UnavailableError("the learner ended the stream") : finished;
}

}  // namespace pompc
