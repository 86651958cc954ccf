// Branch: work that a GPU may do beside the rest, on a stream of its own.
//
// An update is a chain of small kernels, few of which fill a GPU; what does not need what comes
// before it need not wait for that:
//
//   const Branch target(BranchStream::kTarget);
//   const at::Tensor y = target.Run([&] { return Encode(x); });
//   ...             // Given to the current stream: may run at the same time.
//   target.Join();  // What follows sees y.
//
// Only inside BranchStreams::Run(); elsewhere, so on a CPU, Run() is a call and Join() does
// nothing. Where a CUDA graph is recorded, the streams' waits become its edges. Autograd runs a
// backward on the stream of its forward and makes streams wait where gradients cross.
//
// Memory: freed memory is reused in the order of the stream that the tensor was made on, so a
// tensor that crosses streams has to live until they meet again (Join), or be announced by Uses().
// Thread-safety: none; one thread gives all work.
#ifndef POMPC_COMMON_MODEL_BRANCH_H_
#define POMPC_COMMON_MODEL_BRANCH_H_

#include <c10/core/Stream.h>
#include <c10/core/StreamGuard.h>

#include <functional>
#include <optional>
#include <utility>
#include <vector>

#include "common/model/tensor.h"

namespace pompc {

// Work in the same stream keeps its order.
enum class BranchStream {
  kTarget,   // What losses compare with.
  kLosses,   // Losses besides the one that takes longest.
  kPolicy,   // Policy and prior, beside the model's backward.
  kWeights,  // Copies of weights. Waits once: what the current stream writes later is not seen.
  // Gradients of parameters, which no other gradient needs; they give way to what is beside them.
  kProducts,          // Of weights.
  kEnsembleProducts,  // Of weights of ensembles, which fill a GPU: begun by RunLater() alone.
  kSums,              // Of biases and LayerNorms.
  kCount,
};

// The streams behind the branches of one computation.
class BranchStreams {
 public:
  // On a CPU: none.
  explicit BranchStreams(at::Device device);

  // work() with branches; the current stream then waits for all of them. Its backward passes run in
  // this thread. Returns what work() does.
  template <typename Work>
  auto Run(const Work& work) {
    const Use use(this);
    auto result = work();
    JoinAll();
    return result;
  }

 private:
  friend class Branch;
  // While it lives, the branches of this thread are those of `streams`.
  class Use {
   public:
    explicit Use(BranchStreams* streams);
    ~Use();

   private:
    BranchStreams* const outer_;
    const bool outer_multithreading_;
  };
  struct Entry {
    c10::Stream stream;
    bool used;  // In this Run().
  };
  // The work of RunLater(), behind what the stream it came from has been given by now.
  void RunDeferred();
  void JoinAll();

  static thread_local BranchStreams* in_use_;
  std::vector<Entry> entries_;  // Of each BranchStream.
  std::vector<std::function<void()>> deferred_;
  std::optional<c10::Stream> deferred_from_;
};

class Branch {
 public:
  explicit Branch(BranchStream stream);

  // work() behind all that the current stream has been given (kWeights: when it was first used in
  // this BranchStreams::Run()). Returns what it does.
  template <typename Work>
  auto Run(const Work& work) const {
    if (entry_ == nullptr) return work();
    Fork();
    const c10::StreamGuard guard(entry_->stream);
    return work();
  }
  // As Run(), but not before something is given to kProducts or a Join() waits for it: what fills
  // a GPU would only hold up the chain that it came from.
  void RunLater(std::function<void()> work) const;
  // The current stream waits for all that the branch's stream has been given.
  void Join() const;
  // Join() to use t, made in the branch and kept beyond the next work given to it.
  void JoinFor(const at::Tensor& t) const;
  // The memory of t, if freed, is reused only behind all that the branch has been given.
  void Uses(const at::Tensor& t) const;

 private:
  void Fork() const;

  const BranchStream stream_;
  BranchStreams::Entry* entry_ = nullptr;  // Null: work stays where it is.
};

}  // namespace pompc

#endif  // POMPC_COMMON_MODEL_BRANCH_H_
