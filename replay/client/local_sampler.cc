#include "replay/client/local_sampler.h"

#include <memory>
#include <utility>

#include "common/base/status_macros.h"

namespace pompc {

absl::Status LocalSampler::Next(absl::Time deadline, ColumnBatch* batch) {
  POMPC_ASSIGN_OR_RETURN(const Replay::Layout layout, replay_->layout());
  const size_t rows = static_cast<size_t>(layout.window_rows) * batch_size_;
  WindowBuffers out;
  batch->columns.resize(layout.schema->columns().size());
  for (size_t i = 0; i < batch->columns.size(); ++i) {
    batch->columns[i].resize(rows * layout.schema->columns()[i].row_bytes);
    out.columns.push_back(batch->columns[i].data());
  }
  batch->keys.resize(rows);
  out.keys = reinterpret_cast<char*>(batch->keys.data());
  batch->probabilities.resize(layout.has_priorities ? batch_size_ : 0);
  out.weights = reinterpret_cast<char*>(batch->probabilities.data());

  struct Answer {
    Event done;
    absl::StatusOr<Replay::Drawn> drawn = absl::UnknownError("pending");
  };
  auto answer = std::make_shared<Answer>();
  const Replay::Ticket ticket = replay_->NewTicket();
  replay_->Sample(ticket, layout, batch_size_, std::move(out),
                  [answer](absl::StatusOr<Replay::Drawn> drawn) {
                    answer->drawn = std::move(drawn);
                    answer->done.Notify();
                  });
  if (!answer->done.WaitUntil(clock_, deadline)) {
    if (replay_->Cancel(ticket)) return absl::DeadlineExceededError("no batch in time");
    answer->done.Wait();  // It is being drawn right now.
  }
  POMPC_RETURN_IF_ERROR(answer->drawn.status());
  batch->newest_key = answer->drawn->newest_key;
  batch->inserted_decisions = answer->drawn->inserted_decisions;
  batch->sampled_batches = answer->drawn->sampled_batches;
  batch->stored_windows = answer->drawn->stored_windows;
  for (double& weight : batch->probabilities) weight /= answer->drawn->total_weight;
  return absl::OkStatus();
}

absl::StatusOr<v1::UpdateResponse> LocalSampler::Update(absl::Span<const uint64_t> keys,
                                                        absl::Span<const NamedRows> columns) {
  return replay_->Update(MakeUpdateRequest(keys, columns));
}

absl::StatusOr<v1::UpdateResponse> LocalSampler::UpdatePriorities(
    absl::Span<const uint64_t> keys, absl::Span<const float> priorities) {
  return replay_->Update(MakePriorityRequest(keys, priorities));
}

}  // namespace pompc
