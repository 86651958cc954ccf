#include "learner/service/publisher.h"

#include <memory>
#include <string>
#include <vector>

#include "common/base/crc32c.h"
#include "gtest/gtest.h"
#include "learner/client/remote_parameter_subscriber.h"
#include "learner/service/testing.h"

namespace pompc {
namespace {

absl::Time Soon() { return RealClock()->Now() + absl::Seconds(20); }

v1::ParameterSnapshot Snapshot(int64_t updates, bool finished = false) {
  v1::ParameterSnapshot snapshot;
  snapshot.set_updates(updates);
  snapshot.set_data(std::string(64, static_cast<char>(updates)));
  snapshot.set_run_finished(finished);
  return snapshot;
}

// A subscriber that the test leads step by step.
class Reader {
 public:
  explicit Reader(testing::TestFront& front)
      : stub_(front.NewStub()), stream_(stub_->Subscribe(&context_)) {}

  void Ask(int64_t held_version) {
    v1::SubscribeRequest request;
    request.set_held_version(held_version);
    ASSERT_TRUE(stream_->Write(request));
  }
  v1::ParameterSnapshot Read() {
    v1::ParameterSnapshot snapshot;
    EXPECT_TRUE(stream_->Read(&snapshot));
    return snapshot;
  }
  grpc::Status Finish() { return stream_->Finish(); }
  void Cancel() { context_.TryCancel(); }

 private:
  std::unique_ptr<v1::Learner::Stub> stub_;
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReaderWriter<v1::SubscribeRequest, v1::ParameterSnapshot>> stream_;
};

TEST(PublisherTest, NumbersVersionsFromZeroAndAddsTheChecksum) {
  testing::TestFront front;
  EXPECT_EQ(front->publisher.version(), -1);
  EXPECT_EQ(front->publisher.Publish(Snapshot(7)), 0);
  EXPECT_EQ(front->publisher.Publish(Snapshot(8)), 1);
  Reader reader(front);
  reader.Ask(-1);
  const v1::ParameterSnapshot snapshot = reader.Read();
  EXPECT_EQ(snapshot.version(), 1);
  EXPECT_EQ(snapshot.updates(), 8);
  EXPECT_EQ(snapshot.crc32c(), Crc32c(snapshot.data()));
  EXPECT_NE(snapshot.learner_id(), 0u);
  reader.Cancel();
}

TEST(PublisherTest, PassesOnWhatAnotherOnePublishedAsItIs) {
  testing::TestFront front;
  v1::ParameterSnapshot snapshot = Snapshot(7);
  snapshot.set_version(12);
  snapshot.set_crc32c(99);
  grpc::ByteBuffer bytes;
  bool own_buffer;
  grpc::SerializationTraits<v1::ParameterSnapshot>::Serialize(snapshot, &bytes, &own_buffer);
  front->publisher.PassOn(snapshot, bytes);
  EXPECT_EQ(front->publisher.version(), 12);
  Reader reader(front);
  reader.Ask(-1);
  EXPECT_EQ(reader.Read().SerializeAsString(), snapshot.SerializeAsString());
  reader.Cancel();
}

TEST(PublisherTest, ASubscriberWaitsForTheFirstVersion) {
  testing::TestFront front;
  Reader reader(front);
  reader.Ask(-1);
  front->publisher.Publish(Snapshot(0));
  EXPECT_EQ(reader.Read().version(), 0);
  reader.Cancel();
}

TEST(PublisherTest, ASlowSubscriberSkipsVersions) {
  testing::TestFront front;
  front->publisher.Publish(Snapshot(0));
  Reader slow(front);
  slow.Ask(-1);
  EXPECT_EQ(slow.Read().version(), 0);
  for (int i = 1; i <= 50; ++i) front->publisher.Publish(Snapshot(i));
  slow.Ask(0);
  EXPECT_EQ(slow.Read().version(), 50);
  slow.Ask(50);
  front->publisher.Publish(Snapshot(51));
  EXPECT_EQ(slow.Read().version(), 51);
  slow.Cancel();
}

TEST(PublisherTest, ManySubscribersGetTheNewestAndItIsKnownWhenTheyHaveIt) {
  testing::TestFront front;
  std::vector<std::unique_ptr<RemoteParameterSubscriber>> subscribers;
  for (int i = 0; i < 16; ++i) {
    subscribers.push_back(std::make_unique<RemoteParameterSubscriber>(
        front.channel(), i, RealClock(), front.metrics()));
  }
  for (int i = 0; i < 20; ++i) front->publisher.Publish(Snapshot(i));
  for (auto& subscriber : subscribers) {
    int64_t version = -1;
    while (version < 19) {
      const auto snapshot = subscriber->WaitForNewer(version, Soon());
      ASSERT_TRUE(snapshot.ok()) << snapshot.status();
      EXPECT_GT((*snapshot)->version(), version);
      version = (*snapshot)->version();
    }
    EXPECT_EQ(subscriber->Newest()->data(), Snapshot(19).data());
    EXPECT_EQ(subscriber->dropped_snapshots(), 0);
  }
  front->publisher.Publish(Snapshot(20, /*finished=*/true));
  EXPECT_TRUE(front->publisher.AwaitDelivered(Soon()));
  for (auto& subscriber : subscribers) EXPECT_TRUE(subscriber->Newest()->run_finished());
}

TEST(PublisherTest, IsNotDeliveredWhileASubscriberHasNotConfirmed) {
  testing::TestFront front;
  front->publisher.Publish(Snapshot(0));
  Reader reader(front);
  reader.Ask(-1);
  EXPECT_EQ(reader.Read().version(), 0);
  EXPECT_FALSE(front->publisher.AwaitDelivered(RealClock()->Now()));
  reader.Ask(0);
  EXPECT_TRUE(front->publisher.AwaitDelivered(Soon()));
  reader.Cancel();
}

TEST(PublisherTest, LagIsThatOfTheSubscriberThatIsFarthestBehind) {
  testing::TestFront front;
  front->publisher.Publish(Snapshot(10));
  EXPECT_EQ(front->publisher.GreatestLag(15), 0) << "nobody holds anything";
  Reader slow(front), fast(front);
  for (Reader* reader : {&slow, &fast}) {
    reader->Ask(-1);
    EXPECT_EQ(reader->Read().version(), 0);
    reader->Ask(0);
  }
  ASSERT_TRUE(front->publisher.AwaitDelivered(Soon()));
  EXPECT_EQ(front->publisher.GreatestLag(15), 5);
  front->publisher.Publish(Snapshot(20));
  EXPECT_EQ(fast.Read().version(), 1);
  fast.Ask(1);
  EXPECT_EQ(slow.Read().version(), 1);  // Not confirmed: it may not be in use yet.
  EXPECT_EQ(front->publisher.GreatestLag(25), 15);
  EXPECT_EQ(front.metrics()->GetGauge("pompc_learner_params_lag_updates")->Value(), 15);
  slow.Cancel();
  fast.Cancel();
  EXPECT_TRUE(front->publisher.AwaitLeft(Soon()));
  EXPECT_EQ(front->publisher.GreatestLag(25), 0);
}

TEST(PublisherTest, CloseEndsStreamsThatWait) {
  testing::TestFront front;
  front->publisher.Publish(Snapshot(0));
  Reader reader(front);
  reader.Ask(-1);
  EXPECT_EQ(reader.Read().version(), 0);
  reader.Ask(0);
  ASSERT_TRUE(front->publisher.AwaitDelivered(Soon()));
  front->publisher.Close();
  EXPECT_EQ(reader.Finish().error_code(), grpc::StatusCode::UNAVAILABLE);
}

TEST(PublisherTest, ASubscriberThatLeavesIsForgotten) {
  testing::TestFront front;
  Gauge* const subscribers = front.metrics()->GetGauge("pompc_learner_subscribers");
  front->publisher.Publish(Snapshot(0));
  Reader reader(front);
  reader.Ask(-1);
  EXPECT_EQ(reader.Read().version(), 0);
  EXPECT_EQ(subscribers->Value(), 1);
  // It has not confirmed version 0, so delivery is complete only once it is gone.
  reader.Cancel();
  EXPECT_TRUE(front->publisher.AwaitDelivered(Soon()));
  front->publisher.Publish(Snapshot(1));
  EXPECT_TRUE(front->publisher.AwaitDelivered(Soon()));
}

}  // namespace
}  // namespace pompc
