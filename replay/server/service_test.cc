// What the service answers to requests that are wrong, and to peers that vanish; through raw stubs,
// because our own clients do neither.
#include "replay/server/service.h"

#include <cmath>
#include <limits>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/rpc/channel.h"
#include "common/rpc/server.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "replay/server/testing.h"

namespace pompc {
namespace {

using ::pompc::testing::TestSegment;
using ::pompc::testing::TestTable;
using ::testing::HasSubstr;

class ServiceTest : public ::testing::Test {
 protected:
  ServiceTest() {
    auto server = RpcServer::Start(
        absl::StrCat("unix:", ::testing::TempDir(), "/service-", getpid()), {&service_}, &metrics_);
    POMPC_CHECK_OK(server.status());
    server_ = *std::move(server);
    stub_ = v1::Replay::NewStub(CreateChannel(server_->address()));
  }

  grpc::Status Configure(const v1::TableConfig& table) {
    grpc::ClientContext context;
    v1::ConfigureRequest request;
    *request.mutable_table() = table;
    v1::ConfigureResponse response;
    return stub_->Configure(&context, request, &response);
  }

  // The status with which a stream ends that sends `segments`.
  grpc::Status Append(const std::vector<v1::Segment>& segments) {
    grpc::ClientContext context;
    const auto stream = stub_->Append(&context);
    v1::AppendRequest request;
    for (const v1::Segment& segment : segments) {
      *request.mutable_segment() = segment;
      stream->Write(request);
    }
    stream->WritesDone();
    for (v1::AppendResponse response; stream->Read(&response);) acknowledged_ = response;
    return stream->Finish();
  }

  grpc::Status Sample(const std::vector<v1::SampleRequest>& requests) {
    grpc::ClientContext context;
    const auto stream = stub_->Sample(&context);
    for (const v1::SampleRequest& request : requests) stream->Write(request);
    for (v1::SampleResponse response; stream->Read(&response);) {
    }
    return stream->Finish();
  }

  static v1::SampleRequest Request(int32_t batch_size, int32_t window_rows, int32_t credits) {
    v1::SampleRequest request;
    request.set_batch_size(batch_size);
    request.set_window_rows(window_rows);
    request.set_credits(credits);
    return request;
  }

  // Leaves the answer in drawn_.
  grpc::Status Draw(int64_t batch, int32_t windows, int64_t max_decisions) {
    grpc::ClientContext context;
    v1::DrawRequest request;
    request.set_batch(batch);
    request.set_windows(windows);
    request.set_max_decisions(max_decisions);
    return stub_->Draw(&context, request, &drawn_);
  }

  grpc::Status Update(const v1::UpdateRequest& request) {
    grpc::ClientContext context;
    v1::UpdateResponse response;
    return stub_->Update(&context, request, &response);
  }

  MetricsRegistry metrics_;
  Replay replay_{RealClock(), &metrics_};
  ReplayTables tables_{&replay_};
  ReplayService service_{&tables_, &metrics_};
  std::unique_ptr<RpcServer> server_;
  std::unique_ptr<v1::Replay::Stub> stub_;
  v1::AppendResponse acknowledged_;  // The last answer of Append().
  v1::SampleResponse drawn_;
};

void ExpectRefused(const grpc::Status& status, grpc::StatusCode code, const std::string& message) {
  EXPECT_EQ(status.error_code(), code) << status.error_message();
  EXPECT_THAT(status.error_message(), HasSubstr(message));
}

TEST_F(ServiceTest, AnswersUnavailableUntilConfigured) {
  ExpectRefused(Append({TestSegment(1, 1, 1, 0, 2)}), grpc::UNAVAILABLE, "not configured yet");
  ExpectRefused(Sample({Request(2, 2, 1)}), grpc::UNAVAILABLE, "not configured yet");
  ExpectRefused(Update({}), grpc::UNAVAILABLE, "not configured yet");
  ASSERT_TRUE(Configure(TestTable(2, 100)).ok());
  EXPECT_TRUE(Append({TestSegment(1, 1, 1, 0, 2)}).ok());
}

TEST_F(ServiceTest, RefusesTablesThatCannotBe) {
  const auto refused = [&](auto change, const std::string& message) {
    v1::TableConfig table = TestTable(4, 100);
    change(table);
    ExpectRefused(Configure(table), grpc::INVALID_ARGUMENT, message);
  };
  refused([](auto& t) { t.set_window_rows(0); }, "window_rows: 0; must be at least 1");
  refused([](auto& t) { t.set_capacity_rows(3); }, "capacity_rows: 3");
  refused([](auto& t) { t.set_capacity_bytes(10); }, "capacity_bytes: 10");
  refused([](auto& t) { t.clear_schema(); }, "schema.columns: 0 columns");
  refused([](auto& t) { t.set_writer_credits(0); }, "writer_credits: 0; must be at least 1");
  refused([](auto& t) { t.clear_limits(); }, "limits.updates_per_decision: 0");
}

TEST_F(ServiceTest, RefusesMalformedSegmentsAndStoresNothing) {
  ASSERT_TRUE(Configure(TestTable(2, 100)).ok());
  const auto refused = [&](auto change, grpc::StatusCode code, const std::string& message) {
    v1::Segment segment = TestSegment(1, 1, 1, 0, 3);
    change(segment);
    ExpectRefused(Append({segment}), code, message);
  };
  refused([](auto& s) { s.Clear(); }, grpc::INVALID_ARGUMENT, "segment.writer_id: 0");
  refused([](auto& s) { s.set_num_rows(-1); }, grpc::INVALID_ARGUMENT, "segment.num_rows: -1");
  refused([](auto& s) { s.set_num_rows(std::numeric_limits<int64_t>::max()); },
          grpc::INVALID_ARGUMENT, "1 to the capacity of 100 rows");
  refused([](auto& s) { s.mutable_columns()->RemoveLast(); }, grpc::INVALID_ARGUMENT,
          "segment.columns: 1 columns; the schema has 2");
  refused([](auto& s) { s.set_columns(0, "short"); }, grpc::INVALID_ARGUMENT,
          "segment column \"id\": 5 bytes; 3 rows of 24 bytes are 72");
  refused(
      [](auto& s) {
        const float nan = std::nanf("");
        s.mutable_columns(1)->replace(12, 4, reinterpret_cast<const char*>(&nan), 4);
      },
      grpc::INVALID_ARGUMENT, "segment column \"prior\": element 1 of row 1 is not finite");
  refused([](auto& s) { s.set_sequence(2); }, grpc::FAILED_PRECONDITION,
          "segment.sequence: 2 of writer 1; must be 1");
  refused([](auto& s) { s.set_first_row(9); }, grpc::FAILED_PRECONDITION,
          "segment.first_row: 9 of episode 1 of writer 1; must be 0");
  EXPECT_EQ(replay_.Info().inserted_rows(), 0);
  ExpectRefused(Append({TestSegment(1, 1, 1, 0, 3), TestSegment(2, 1, 1, 0, 3)}),
                grpc::INVALID_ARGUMENT, "segment.writer_id: 2 on a stream of writer 1");
  EXPECT_EQ(replay_.Info().inserted_rows(), 3);
}

TEST_F(ServiceTest, AcknowledgesDuplicatesWithoutStoringThem) {
  ASSERT_TRUE(Configure(TestTable(2, 100)).ok());
  const v1::Segment first = TestSegment(1, 1, 1, 0, 3), second = TestSegment(1, 2, 1, 3, 3);
  ASSERT_TRUE(Append({first, second, first}).ok());
  EXPECT_EQ(acknowledged_.acknowledged_sequence(), 2u);
  EXPECT_EQ(acknowledged_.credits(), 100);
  EXPECT_EQ(replay_.Info().inserted_rows(), 6);
  EXPECT_EQ(replay_.Info().duplicate_segments(), 1);
}

TEST_F(ServiceTest, RefusesMalformedSampleRequests) {
  ASSERT_TRUE(Configure(TestTable(2, 100)).ok());
  ASSERT_TRUE(Append({TestSegment(1, 1, 1, 0, 3)}).ok());
  ExpectRefused(Sample({Request(0, 2, 1)}), grpc::INVALID_ARGUMENT, "batch_size: 0; must be 1 to");
  ExpectRefused(Sample({Request(1 << 30, 2, 1)}), grpc::INVALID_ARGUMENT, "batch_size: 1073741824");
  ExpectRefused(Sample({Request(2, 4, 1)}), grpc::FAILED_PRECONDITION,
                "window_rows: 4; the table has windows of 2");
  ExpectRefused(Sample({Request(2, 2, 0)}), grpc::INVALID_ARGUMENT, "credits: 0");
  ExpectRefused(Sample({Request(2, 2, std::numeric_limits<int32_t>::max())}),
                grpc::INVALID_ARGUMENT, "credits: 2147483647");
  ExpectRefused(Sample({Request(2, 2, 1), Request(3, 2, 1)}), grpc::INVALID_ARGUMENT,
                "batch_size, window_rows: set again");
}

v1::TableConfig Shard(int32_t shard, int32_t shards) {
  v1::TableConfig table = TestTable(2, 100);
  table.set_shard(shard);
  table.set_shards(shards);
  return table;
}

TEST_F(ServiceTest, AShardStoresWhatItIsGrantedAndDrawsWhatItIsAsked) {
  ASSERT_TRUE(Configure(Shard(1, 3)).ok());
  // Nothing is granted yet: the segment waits until the first Draw.
  grpc::ClientContext context;
  const auto stream = stub_->Append(&context);
  v1::AppendResponse response;
  ASSERT_TRUE(stream->Read(&response));
  for (int i = 0; i < 2; ++i) {
    v1::AppendRequest request;
    *request.mutable_segment() = TestSegment(1, i + 1, 1, 5 * i, 5);
    ASSERT_TRUE(stream->Write(request));
  }
  while (replay_.Info().inserted_rows() == 0) ASSERT_TRUE(Draw(7, 0, 5).ok());
  ASSERT_TRUE(stream->Read(&response));
  EXPECT_EQ(response.acknowledged_sequence(), 1u);
  ASSERT_TRUE(Draw(7, 3, 5).ok());
  EXPECT_EQ(drawn_.keys_size(), 2 * 3);
  EXPECT_EQ(drawn_.columns_size(), 2);
  EXPECT_EQ(drawn_.inserted_decisions(), 5) << "granted no more than the first segment";
  EXPECT_EQ(drawn_.stored_windows(), 4);
  EXPECT_EQ(drawn_.sampled_batches(), 8);
  const v1::SampleResponse first = drawn_;
  ASSERT_TRUE(Draw(7, 3, 5).ok());
  EXPECT_EQ(drawn_.SerializeAsString(), first.SerializeAsString()) << "of batch 7 once more";
  context.TryCancel();
  stream->Finish();
}

TEST_F(ServiceTest, RefusesMalformedDraws) {
  ExpectRefused(Draw(0, 1, 0), grpc::UNAVAILABLE, "not configured yet");
  ExpectRefused(Configure(Shard(3, 3)), grpc::INVALID_ARGUMENT, "shard, shards: 3 of 3");
  ExpectRefused(Configure(Shard(0, 257)), grpc::INVALID_ARGUMENT, "shard, shards: 0 of 257");
  ASSERT_TRUE(Configure(TestTable(2, 100)).ok());
  ExpectRefused(Draw(0, 1, 0), grpc::FAILED_PRECONDITION, "this table is no shard");
  ASSERT_TRUE(Configure(Shard(0, 1)).ok());
  ExpectRefused(Draw(0, 1, 0), grpc::UNAVAILABLE, "no window is stored");
  ExpectRefused(Draw(-1, 0, 0), grpc::INVALID_ARGUMENT, "max_decisions: -1, 0, 0");
  ExpectRefused(Draw(0, 0, -1), grpc::INVALID_ARGUMENT, "max_decisions: 0, 0, -1");
  ExpectRefused(Draw(0, -1, 0), grpc::INVALID_ARGUMENT, "batch_size: -1");
  ExpectRefused(Sample({Request(1, 2, 1)}), grpc::FAILED_PRECONDITION, "one of 1 shards");
}

TEST_F(ServiceTest, RefusesPrioritiesThatCannotBe) {
  ASSERT_TRUE(Configure(TestTable(2, 100)).ok());
  v1::UpdateRequest request;
  request.add_keys(1);
  request.add_priorities(1);
  ExpectRefused(Update(request), grpc::FAILED_PRECONDITION, "priorities: this table has none");
  v1::TableConfig table = TestTable(2, 100);
  table.set_priority_exponent(5);
  ExpectRefused(Configure(table), grpc::INVALID_ARGUMENT, "priority_exponent: 5; must be 0 to 4");
  table.set_priority_exponent(1);
  ASSERT_TRUE(Configure(table).ok());
  EXPECT_TRUE(Update(request).ok());
  request.set_priorities(0, -1);
  ExpectRefused(Update(request), grpc::INVALID_ARGUMENT, "priorities[0]: -1; must be finite");
  request.set_priorities(0, std::numeric_limits<float>::quiet_NaN());
  ExpectRefused(Update(request), grpc::INVALID_ARGUMENT, "priorities[0]: nan");
  request.add_priorities(1);
  ExpectRefused(Update(request), grpc::INVALID_ARGUMENT, "priorities: 2 for 1 keys");
}

TEST_F(ServiceTest, RefusesMalformedUpdates) {
  ASSERT_TRUE(Configure(TestTable(2, 100)).ok());
  v1::UpdateRequest request;
  request.add_keys(1);
  ExpectRefused(Update(request), grpc::INVALID_ARGUMENT, "columns: 0 for 0 column_names");
  request.add_column_names("prior");
  ExpectRefused(Update(request), grpc::INVALID_ARGUMENT, "columns: 0 for 1 column_names");
  request.add_columns("abc");
  ExpectRefused(Update(request), grpc::INVALID_ARGUMENT, "column \"prior\": 3 bytes");
  request.set_column_names(0, "proir");
  ExpectRefused(Update(request), grpc::INVALID_ARGUMENT, "no column \"proir\"");
}

// A peer that dies leaves nothing behind, in whichever state its stream is.
TEST_F(ServiceTest, ForgetsPeersThatVanish) {
  v1::TableConfig table = TestTable(2, 100'000);
  table.mutable_limits()->set_seed_decisions(1000);
  table.mutable_limits()->set_pretrain_updates(1'000'000);
  ASSERT_TRUE(Configure(table).ok());
  ASSERT_TRUE(Append({TestSegment(1, 1, 1, 0, 999)}).ok());

  grpc::ClientContext idle_context, sampler_context, reader_context, writer_context;
  // (1) Has said nothing.
  const auto idle = stub_->Append(&idle_context);
  // (2) Waits for its batch; (3) is sent more than it ever reads.
  const auto sampler = stub_->Sample(&sampler_context);
  ASSERT_TRUE(sampler->Write(Request(2, 2, 1)));
  ASSERT_TRUE(Append({TestSegment(2, 1, 1, 0, 1)}).ok());  // The seed phase is over.
  v1::SampleResponse response;
  ASSERT_TRUE(sampler->Read(&response));
  const auto reader = stub_->Sample(&reader_context);
  ASSERT_TRUE(reader->Write(Request(20'000, 2, 1000)));
  ASSERT_TRUE(reader->Read(&response));
  // (4) Waits for its segment to be stored, which pretraining forbids.
  const auto writer = stub_->Append(&writer_context);
  v1::AppendRequest request;
  *request.mutable_segment() = TestSegment(3, 1, 1, 0, 5);
  ASSERT_TRUE(writer->Write(request));
  while (replay_.Info().insert_blocked_seconds() == 0) {
  }
  for (grpc::ClientContext* context :
       {&idle_context, &sampler_context, &reader_context, &writer_context}) {
    context->TryCancel();
  }
  for (v1::AppendResponse r; idle->Read(&r) || writer->Read(&r);) {
  }
  for (v1::SampleResponse r; sampler->Read(&r) || reader->Read(&r);) {
  }
  EXPECT_EQ(idle->Finish().error_code(), grpc::CANCELLED);
  EXPECT_EQ(sampler->Finish().error_code(), grpc::CANCELLED);
  EXPECT_EQ(reader->Finish().error_code(), grpc::CANCELLED);
  EXPECT_EQ(writer->Finish().error_code(), grpc::CANCELLED);

  // Returns when every stream has ended by itself, long before its minute is over.
  server_->Shutdown(absl::Minutes(1));
  EXPECT_THAT(metrics_.Text(), HasSubstr("pompc_replay_writers 0"));
  EXPECT_LT(replay_.Info().sampled_batches(), 1000);
  EXPECT_EQ(replay_.Info().inserted_rows(), 1000) << "a dead writer's segment was stored";
}

TEST_F(ServiceTest, ShutsDownWhileStreamsAreOpen) {
  v1::TableConfig table = TestTable(2, 1000);
  table.mutable_limits()->set_seed_decisions(1000);
  ASSERT_TRUE(Configure(table).ok());
  grpc::ClientContext idle_context, sampler_context;
  const auto idle = stub_->Append(&idle_context);
  const auto sampler = stub_->Sample(&sampler_context);
  ASSERT_TRUE(sampler->Write(Request(2, 2, 1)));
  while (replay_.Info().sample_blocked_seconds() == 0) {
  }
  replay_.Close();
  server_->Shutdown(absl::Milliseconds(10));
  v1::SampleResponse response;
  EXPECT_FALSE(sampler->Read(&response));
  ExpectRefused(sampler->Finish(), grpc::UNAVAILABLE, "shutting down");
  for (v1::AppendResponse r; idle->Read(&r);) {
  }
  EXPECT_FALSE(idle->Finish().ok());
}

}  // namespace
}  // namespace pompc
