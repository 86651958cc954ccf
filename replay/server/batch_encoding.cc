#include "replay/server/batch_encoding.h"

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/rpc/channel.h"
#include "google/protobuf/io/coded_stream.h"
#include "google/protobuf/wire_format_lite.h"

namespace pompc {
namespace {

using google::protobuf::internal::WireFormatLite;
using google::protobuf::io::CodedOutputStream;

uint32_t BytesTag(int field) {
  return WireFormatLite::MakeTag(field, WireFormatLite::WIRETYPE_LENGTH_DELIMITED);
}

size_t FieldBytes(int field, size_t content) {
  return CodedOutputStream::VarintSize32(BytesTag(field)) +
         CodedOutputStream::VarintSize32(static_cast<uint32_t>(content)) + content;
}

}  // namespace

absl::StatusOr<BatchEncoding> BatchEncoding::Create(const Replay::Layout& layout,
                                                    int32_t batch_size) {
  const int64_t row_bytes =
      layout.schema->row_bytes() + sizeof(uint64_t) + (layout.has_priorities ? sizeof(double) : 0);
  // Leaves room for the tags and the fields beside rows and keys.
  const int64_t max_batch = (kMaxMessageBytes - (64 << 10)) / (row_bytes * layout.window_rows);
  if (batch_size < 1 || batch_size > max_batch) {
    return absl::InvalidArgumentError(absl::StrCat("batch_size: ", batch_size, "; must be 1 to ",
                                                   max_batch, ", or the batch exceeds ",
                                                   kMaxMessageBytes, " bytes"));
  }
  const size_t rows = static_cast<size_t>(layout.window_rows) * batch_size;
  size_t bytes = FieldBytes(v1::SampleResponse::kKeysFieldNumber, rows * sizeof(uint64_t));
  const size_t weights = layout.has_priorities ? batch_size * sizeof(double) : 0;
  if (weights > 0) bytes += FieldBytes(v1::SampleResponse::kWeightsFieldNumber, weights);
  for (const Schema::Column& column : layout.schema->columns()) {
    bytes += FieldBytes(v1::SampleResponse::kColumnsFieldNumber, rows * column.row_bytes);
  }

  grpc::Slice body(bytes);
  uint8_t* at = const_cast<uint8_t*>(body.begin());  // Nobody else has the slice yet.
  const auto add_field = [&at](int field, size_t content) {
    at = CodedOutputStream::WriteVarint32ToArray(BytesTag(field), at);
    at = CodedOutputStream::WriteVarint32ToArray(static_cast<uint32_t>(content), at);
    char* const begin = reinterpret_cast<char*>(at);
    at += content;
    return begin;
  };
  WindowBuffers buffers;
  for (const Schema::Column& column : layout.schema->columns()) {
    buffers.columns.push_back(
        add_field(v1::SampleResponse::kColumnsFieldNumber, rows * column.row_bytes));
  }
  buffers.keys = add_field(v1::SampleResponse::kKeysFieldNumber, rows * sizeof(uint64_t));
  if (weights > 0) buffers.weights = add_field(v1::SampleResponse::kWeightsFieldNumber, weights);
  POMPC_CHECK(at == body.end());
  return BatchEncoding(std::move(body), std::move(buffers));
}

v1::SampleResponse CountsOf(const Replay::Drawn& drawn) {
  v1::SampleResponse counts;
  counts.set_newest_key(drawn.newest_key);
  counts.set_inserted_decisions(drawn.inserted_decisions);
  counts.set_sampled_batches(drawn.sampled_batches);
  counts.set_stored_windows(drawn.stored_windows);
  counts.set_total_weight(drawn.total_weight);
  return counts;
}

grpc::ByteBuffer BatchEncoding::Finish(const Replay::Drawn& drawn) const {
  // Messages concatenate in wire format.
  const grpc::Slice slices[] = {body_, grpc::Slice(CountsOf(drawn).SerializeAsString())};
  return grpc::ByteBuffer(slices, 2);
}

}  // namespace pompc
