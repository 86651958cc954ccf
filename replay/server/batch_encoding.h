// A SampleResponse in wire format, whose columns are drawn in place: rows are copied once, from the
// table into the message.
//
// Thread-safety: none.
#ifndef POMPC_REPLAY_SERVER_BATCH_ENCODING_H_
#define POMPC_REPLAY_SERVER_BATCH_ENCODING_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "grpcpp/support/byte_buffer.h"
#include "grpcpp/support/slice.h"
#include "replay/server/replay.h"
#include "replay/server/table.h"

namespace pompc {

class BatchEncoding {
 public:
  // Lays out the message. INVALID_ARGUMENT: batch_size out of range, or a message above
  // kMaxMessageBytes of common/rpc/channel.h.
  static absl::StatusOr<BatchEncoding> Create(const Replay::Layout& layout, int32_t batch_size);

  // Where the windows go. Valid as long as this object or a message of it.
  const WindowBuffers& buffers() const { return buffers_; }

  // The message, once the windows are in. It shares the memory: call once.
  grpc::ByteBuffer Finish(const Replay::Drawn& drawn) const;

 private:
  BatchEncoding(grpc::Slice body, WindowBuffers buffers)
      : body_(std::move(body)), buffers_(std::move(buffers)) {}

  grpc::Slice body_;  // All repeated fields.
  WindowBuffers buffers_;
};

// The fields beside the windows.
v1::SampleResponse CountsOf(const Replay::Drawn& drawn);

}  // namespace pompc

#endif  // POMPC_REPLAY_SERVER_BATCH_ENCODING_H_
