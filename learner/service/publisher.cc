#include "learner/service/publisher.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "common/base/check.h"
#include "common/base/crc32c.h"
#include "grpcpp/impl/codegen/proto_utils.h"

namespace pompc {

// One call of Subscribe. It always has exactly one owner of its next step: gRPC while a read or
// write is under way, the publisher's mutex while it is idle. Only who takes it out of kIdle may
// start an operation, and does so after unlocking, since gRPC may run callbacks within the start.
class Publisher::Subscription final : public Publisher::Reactor {
 public:
  enum class State { kReading, kIdle, kWriting, kFinished };

  explicit Subscription(Publisher* publisher) : publisher_(publisher) {}

  void Start() { StartRead(&request_); }

  void OnReadDone(bool ok) override {
    if (!ok) return End(grpc::Status::OK);
    v1::SubscribeRequest request;
    if (!grpc::SerializationTraits<v1::SubscribeRequest>::Deserialize(&request_, &request).ok()) {
      return End({grpc::StatusCode::INVALID_ARGUMENT, "not a SubscribeRequest"});
    }
    const grpc::ByteBuffer* write = nullptr;
    bool closed = false;
    {
      absl::MutexLock lock(&publisher_->mu_);
      held_version_ = request.held_version();
      // Anything else is from before this stream: of another process of the run.
      held_updates_ = held_version_ == sent_version_ ? sent_updates_ : std::nullopt;
      state_ = State::kIdle;
      closed = cancelled_ || publisher_->closed_;
      if (closed) {
        state_ = State::kFinished;
      } else {
        write = TakeNewest();
      }
    }
    if (closed) Finish({grpc::StatusCode::UNAVAILABLE, "the server is leaving"});
    if (write != nullptr) StartWrite(write);
  }

  void OnWriteDone(bool ok) override {
    if (!ok) return End(grpc::Status::OK);
    {
      absl::MutexLock lock(&publisher_->mu_);
      publisher_->metrics_.sent_bytes->Increment(static_cast<double>(sending_->Length()));
      sending_.reset();
      state_ = State::kReading;
    }
    StartRead(&request_);
  }

  void OnCancel() override {
    {
      absl::MutexLock lock(&publisher_->mu_);
      cancelled_ = true;
      if (state_ != State::kIdle) return;  // The operation under way fails and ends it.
      state_ = State::kFinished;
    }
    Finish(grpc::Status::CANCELLED);
  }

  void OnDone() override {
    publisher_->Remove(this);
    delete this;
  }

  // Tells clang, where the publisher that holds its own mutex asks its subscriptions, that this
  // mutex is publisher_->mu_.
  void MutexIsHeld() const ABSL_ASSERT_EXCLUSIVE_LOCK(publisher_->mu_) {
    publisher_->mu_.AssertHeld();
  }

  // If idle and not holding the newest version, becomes kWriting: the caller then writes what this
  // returns, which stays until OnWriteDone(). Else null.
  const grpc::ByteBuffer* TakeNewest() ABSL_EXCLUSIVE_LOCKS_REQUIRED(publisher_->mu_) {
    if (state_ != State::kIdle || publisher_->newest_ == nullptr ||
        held_version_ == publisher_->version_) {
      return nullptr;
    }
    state_ = State::kWriting;
    sending_ = publisher_->newest_;
    sent_version_ = publisher_->version_;
    sent_updates_ = publisher_->updates_;
    return sending_.get();
  }

  // If idle, becomes kFinished: the caller then finishes.
  bool TakeForEnd() ABSL_EXCLUSIVE_LOCKS_REQUIRED(publisher_->mu_) {
    if (state_ != State::kIdle) return false;
    state_ = State::kFinished;
    return true;
  }

  bool HoldsNewest() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(publisher_->mu_) {
    return state_ == State::kFinished || held_version_ == publisher_->version_;
  }

  // Updates behind the parameters that the subscriber holds; unset when it has confirmed none.
  std::optional<int64_t> held_updates() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(publisher_->mu_) {
    return state_ == State::kFinished ? std::nullopt : held_updates_;
  }

 private:
  // Of the operation that just ended.
  void End(grpc::Status status) {
    {
      absl::MutexLock lock(&publisher_->mu_);
      state_ = State::kFinished;
    }
    Finish(std::move(status));
  }

  Publisher* const publisher_;
  grpc::ByteBuffer request_;
  std::shared_ptr<const grpc::ByteBuffer> sending_ ABSL_GUARDED_BY(publisher_->mu_);
  State state_ ABSL_GUARDED_BY(publisher_->mu_) = State::kReading;
  bool cancelled_ ABSL_GUARDED_BY(publisher_->mu_) = false;
  int64_t held_version_ ABSL_GUARDED_BY(publisher_->mu_) = -1;
  std::optional<int64_t> held_updates_ ABSL_GUARDED_BY(publisher_->mu_);
  // Of the last snapshot sent; -1 before the first.
  int64_t sent_version_ ABSL_GUARDED_BY(publisher_->mu_) = -1;
  std::optional<int64_t> sent_updates_ ABSL_GUARDED_BY(publisher_->mu_);
};

Publisher::Publisher(int64_t first_version, Clock* clock, const PublisherMetrics& metrics)
    : clock_(clock),
      learner_id_(static_cast<uint64_t>(absl::ToUnixMicros(clock->Now()))),
      metrics_(metrics),
      version_(first_version - 1) {}

Publisher::~Publisher() {
  absl::MutexLock lock(&mu_);
  POMPC_CHECK(subscriptions_.empty()) << "the server still serves subscribers";
}

int64_t Publisher::Publish(v1::ParameterSnapshot snapshot) {
  const int64_t version = this->version() + 1;
  snapshot.set_version(version);
  snapshot.set_learner_id(learner_id_);
  snapshot.set_crc32c(Crc32c(snapshot.data()));
  grpc::ByteBuffer bytes;
  bool own_buffer;
  const grpc::Status serialised =
      grpc::SerializationTraits<v1::ParameterSnapshot>::Serialize(snapshot, &bytes, &own_buffer);
  POMPC_CHECK(serialised.ok()) << serialised.error_message();
  PassOn(snapshot, bytes);
  return version;
}

void Publisher::PassOn(const v1::ParameterSnapshot& snapshot, const grpc::ByteBuffer& bytes) {
  auto newest = std::make_shared<const grpc::ByteBuffer>(bytes);  // Shares the memory.
  std::vector<std::pair<Subscription*, const grpc::ByteBuffer*>> ready;
  {
    absl::MutexLock lock(&mu_);
    version_ = snapshot.version();
    updates_ = snapshot.updates();
    newest_ = std::move(newest);
    metrics_.version->Set(static_cast<double>(version_));  // Before any subscriber has it.
    for (Subscription* subscription : subscriptions_) {
      subscription->MutexIsHeld();
      if (const grpc::ByteBuffer* write = subscription->TakeNewest(); write != nullptr) {
        ready.emplace_back(subscription, write);
      }
    }
  }
  for (const auto& [subscription, write] : ready) subscription->StartWrite(write);
}

int64_t Publisher::version() const {
  absl::MutexLock lock(&mu_);
  return version_;
}

Publisher::Reactor* Publisher::Subscribe() {
  auto* subscription = new Subscription(this);
  {
    absl::MutexLock lock(&mu_);
    subscriptions_.insert(subscription);
    metrics_.subscribers->Set(static_cast<double>(subscriptions_.size()));
  }
  subscription->Start();
  return subscription;
}

bool Publisher::AwaitDelivered(absl::Time deadline) {
  absl::MutexLock lock(&mu_);
  const auto delivered = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    for (const Subscription* subscription : subscriptions_) {
      subscription->MutexIsHeld();
      if (!subscription->HoldsNewest()) return false;
    }
    return true;
  };
  return clock_->AwaitUntil(&mu_, absl::Condition(&delivered), deadline);
}

int64_t Publisher::GreatestLag(int64_t updates) {
  int64_t lag = 0;
  {
    absl::MutexLock lock(&mu_);
    for (const Subscription* subscription : subscriptions_) {
      subscription->MutexIsHeld();
      lag = std::max(lag, updates - subscription->held_updates().value_or(updates));
    }
  }
  metrics_.lag_updates->Set(static_cast<double>(lag));
  return lag;
}

bool Publisher::AwaitLeft(absl::Time deadline) {
  absl::MutexLock lock(&mu_);
  const auto left = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) { return subscriptions_.empty(); };
  return clock_->AwaitUntil(&mu_, absl::Condition(&left), deadline);
}

void Publisher::Close() {
  std::vector<Subscription*> idle;
  {
    absl::MutexLock lock(&mu_);
    closed_ = true;
    for (Subscription* subscription : subscriptions_) {
      subscription->MutexIsHeld();
      if (subscription->TakeForEnd()) idle.push_back(subscription);
    }
  }
  for (Subscription* subscription : idle) {
    subscription->Finish({grpc::StatusCode::UNAVAILABLE, "the server is leaving"});
  }
}

void Publisher::Remove(Subscription* subscription) {
  absl::MutexLock lock(&mu_);
  subscriptions_.erase(subscription);
  metrics_.subscribers->Set(static_cast<double>(subscriptions_.size()));
}

}  // namespace pompc
