#include "learner/core/collective.h"

#include <c10/util/Exception.h>

#include <functional>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "common/base/clock.h"

namespace pompc {
namespace {

// Where the ranks on the CPU meet.
class Meeting {
 public:
  explicit Meeting(size_t size) : inputs_(size) {}

  // Blocks until each rank has come with a tensor; one of them combines all. Returns what it got.
  at::Tensor Combine(size_t rank, const at::Tensor& input,
                     const std::function<at::Tensor(const std::vector<at::Tensor>&)>& combine) {
    absl::MutexLock lock(&mu_);
    inputs_[rank] = input;
    if (++arrived_ == inputs_.size()) {
      result_ = combine(inputs_);
      arrived_ = 0;
      ++round_;
    } else {
      const auto decided = [this, round = round_]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
        return aborted_ || round_ != round;
      };
      RealClock()->AwaitUntil(&mu_, absl::Condition(&decided), absl::InfiniteFuture());
    }
    TORCH_CHECK(!aborted_, "another rank of the update has failed");
    return result_;  // The next round needs this rank, so it is still of this one.
  }

  void Abort() {
    absl::MutexLock lock(&mu_);
    aborted_ = true;
  }

 private:
  absl::Mutex mu_;
  std::vector<at::Tensor> inputs_ ABSL_GUARDED_BY(mu_);
  size_t arrived_ ABSL_GUARDED_BY(mu_) = 0;
  uint64_t round_ ABSL_GUARDED_BY(mu_) = 0;
  at::Tensor result_ ABSL_GUARDED_BY(mu_);
  bool aborted_ ABSL_GUARDED_BY(mu_) = false;
};

class CpuCollective final : public Collective {
 public:
  CpuCollective(int64_t rank, int64_t size, std::shared_ptr<Meeting> meeting)
      : Collective(rank, size), meeting_(std::move(meeting)) {}

  void Mean(const at::Tensor& t) override {
    const at::NoGradGuard no_grad;
    t.copy_(meeting_->Combine(static_cast<size_t>(rank()), t, [](const auto& inputs) {
      at::Tensor sum = inputs[0].clone();
      for (size_t i = 1; i < inputs.size(); ++i) sum.add_(inputs[i]);
      return sum.div_(static_cast<double>(inputs.size()));
    }));
  }

  at::Tensor Gather(const at::Tensor& t) override {
    return meeting_->Combine(static_cast<size_t>(rank()), t,
                             [](const auto& inputs) { return at::cat(inputs); });
  }

  void Abort(const absl::Status& /*reason*/) override { meeting_->Abort(); }

 private:
  const std::shared_ptr<Meeting> meeting_;
};

}  // namespace

absl::StatusOr<std::vector<std::unique_ptr<Collective>>> MakeCollectives(
    const std::vector<at::Device>& devices) {
  if (!devices.front().is_cpu()) return MakeGpuCollectives(devices);
  const auto meeting = std::make_shared<Meeting>(devices.size());
  std::vector<std::unique_ptr<Collective>> collectives;
  for (size_t rank = 0; rank < devices.size(); ++rank) {
    collectives.push_back(std::make_unique<CpuCollective>(
        static_cast<int64_t>(rank), static_cast<int64_t>(devices.size()), meeting));
  }
  return collectives;
}

}  // namespace pompc
