#include "learner/service/courier.h"

#include <limits>
#include <string>

#include "common/base/check.h"
#include "common/config/config.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "learner/client/remote_parameter_subscriber.h"
#include "learner/service/testing.h"

namespace pompc {
namespace {

using ::testing::HasSubstr;

std::shared_ptr<Parameters> SmallParameters() {
  v1::RunConfig config = DefaultRunConfig();
  config.mutable_model()->set_latent_dim(16);
  config.mutable_model()->set_encoder_dim(8);
  config.mutable_model()->set_mlp_dim(8);
  auto parameters = Parameters::Create(ModelSpec::FromConfig(config, 4, 2), ParameterUse::kActing);
  POMPC_CHECK_OK(parameters.status());
  return *parameters;
}

TEST(CourierTest, PublishesParametersAsTheyWereWhenItWasTold) {
  testing::TestFront front;
  Histogram* const duration =
      front.metrics()->GetHistogram("pompc_learner_publish_duration_seconds");
  const std::shared_ptr<Parameters> parameters = SmallParameters();
  {
    Courier courier(&front->publisher, RealClock(), duration);
    EXPECT_TRUE(courier.Idle());
    for (int64_t updates = 0; updates < 5; ++updates) {
      parameters->flat().fill_(static_cast<double>(updates));
      v1::ParameterSnapshot snapshot;
      snapshot.set_updates(updates);
      EXPECT_TRUE(
          courier
              .Publish(std::move(snapshot), parameters->StartSnapshot(v1::LearnerConfig::FLOAT32))
              .ok());
      parameters->flat().fill_(-1);
    }
    EXPECT_TRUE(courier.Await().ok());
    EXPECT_TRUE(courier.Idle());
    EXPECT_EQ(front->publisher.version(), 4);
    parameters->flat().fill_(5);
    EXPECT_TRUE(courier.Publish({}, parameters->StartSnapshot(v1::LearnerConfig::FLOAT32)).ok());
    parameters->flat().fill_(-1);
  }
  // What was under way when it went is published too.
  EXPECT_EQ(front->publisher.version(), 5);
  RemoteParameterSubscriber subscriber(front.channel(), 1, RealClock(), front.metrics());
  const auto newest = subscriber.WaitForNewer(-1, RealClock()->Now() + absl::Seconds(60));
  ASSERT_TRUE(newest.ok()) << newest.status();
  EXPECT_EQ((*newest)->version(), 5);
  parameters->flat().fill_(5);
  EXPECT_EQ((*newest)->data(), parameters->Snapshot());
}

TEST(CourierTest, ParametersThatAreNotFiniteAreNotPublishedNorAnyAfterThem) {
  for (const auto dtype : {v1::LearnerConfig::FLOAT32, v1::LearnerConfig::BFLOAT16}) {
    testing::TestFront front;
    Histogram* const duration =
        front.metrics()->GetHistogram("pompc_learner_publish_duration_seconds");
    const std::shared_ptr<Parameters> parameters = SmallParameters();
    Courier courier(&front->publisher, RealClock(), duration);
    EXPECT_TRUE(courier.Publish({}, parameters->StartSnapshot(dtype)).ok());
    EXPECT_TRUE(courier.Await().ok());
    parameters->flat()[7].fill_(std::numeric_limits<float>::quiet_NaN());
    v1::ParameterSnapshot snapshot;
    snapshot.set_updates(1001);
    EXPECT_TRUE(courier.Publish(snapshot, parameters->StartSnapshot(dtype)).ok());
    const absl::Status diverged = courier.Await();
    EXPECT_TRUE(absl::IsInternal(diverged)) << diverged;
    EXPECT_THAT(std::string(diverged.message()), HasSubstr("at update 1001"));
    parameters->flat().zero_();
    EXPECT_EQ(courier.Publish({}, parameters->StartSnapshot(dtype)), diverged);
    EXPECT_TRUE(courier.Idle());
    EXPECT_EQ(front->publisher.version(), 0);
  }
}

}  // namespace
}  // namespace pompc
