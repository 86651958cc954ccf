#include "learner/service/courier.h"

#include "learner/service/divergence.h"

namespace pompc {

Courier::Courier(Publisher* publisher, Clock* clock, Histogram* duration)
    : publisher_(publisher),
      clock_(clock),
      duration_(duration),
      thread_("courier", [this] { Run(); }) {}

Courier::~Courier() {
  {
    absl::MutexLock lock(&mu_);
    closed_ = true;
  }
  thread_.Join();
}

bool Courier::Idle() {
  absl::MutexLock lock(&mu_);
  return Empty();
}

absl::Status Courier::Await() {
  absl::MutexLock lock(&mu_);
  mu_.Await(absl::Condition(this, &Courier::Empty));
  return diverged_;
}

absl::Status Courier::Publish(v1::ParameterSnapshot snapshot, PendingSnapshot data) {
  absl::MutexLock lock(&mu_);
  mu_.Await(absl::Condition(this, &Courier::Empty));
  if (diverged_.ok()) parcel_.emplace(Parcel{std::move(snapshot), std::move(data)});
  return diverged_;
}

void Courier::Run() {
  while (true) {
    Parcel* parcel = nullptr;
    {
      absl::MutexLock lock(&mu_);
      mu_.Await(absl::Condition(this, &Courier::HasWork));
      if (!parcel_.has_value()) return;
      parcel = &*parcel_;  // Stays as it is until this thread lets go of it.
    }
    const absl::Time start = clock_->Now();
    absl::Status diverged;
    if (parcel->data.Finite()) {
      parcel->snapshot.set_data(parcel->data.Bytes());
      publisher_->Publish(std::move(parcel->snapshot));
      duration_->Observe(absl::ToDoubleSeconds(clock_->Now() - start));
    } else {
      diverged = DivergedError("a parameter is not finite", parcel->snapshot.updates());
    }
    absl::MutexLock lock(&mu_);
    diverged_ = std::move(diverged);
    parcel_.reset();
  }
}

}  // namespace pompc
