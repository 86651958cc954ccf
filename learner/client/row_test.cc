#include "learner/client/row.h"

#include <cstring>
#include <vector>

#include "gtest/gtest.h"

namespace pompc {
namespace {

v1::TaskSizes Sizes() {
  v1::TaskSizes sizes;
  sizes.set_observation_dim(5);
  sizes.set_action_dim(2);
  sizes.set_episode_decisions(10);
  return sizes;
}

TEST(RowTest, EveryColumnHasTheBytesThatTheSchemaDeclares) {
  const std::vector<float> observation(5, 1.5f), action(2, -0.5f), mean(2, 0.25f), std(2, 2.0f);
  const Row row = {observation, action, 3.0f, 1.0f, mean, std, 42};
  const auto bytes = RowBytes(row);
  const v1::TableSchema schema = RowSchema(Sizes());
  ASSERT_EQ(schema.columns_size(), static_cast<int>(kNumRowColumns));
  for (int i = 0; i < schema.columns_size(); ++i) {
    const v1::Column& column = schema.columns(i);
    size_t size = column.type() == v1::INT64 ? 8 : 4;
    for (const int64_t dim : column.shape()) size *= dim;
    EXPECT_EQ(bytes[i].size(), size) << column.name();
    EXPECT_EQ(column.name(), RowColumnName(static_cast<RowColumn>(i)));
  }
}

TEST(RowTest, BytesAreTheRowsValues) {
  const std::vector<float> observation(5, 1.5f), action = {-0.5f, 0.75f}, ones(2, 1.0f);
  const Row row = {observation, action, 3.0f, 1.0f, ones, ones, 42};
  const auto bytes = RowBytes(row);
  float second_action, reward;
  int64_t updates;
  std::memcpy(&second_action, bytes[static_cast<int>(RowColumn::kAction)].data() + 4, 4);
  std::memcpy(&reward, bytes[static_cast<int>(RowColumn::kReward)].data(), 4);
  std::memcpy(&updates, bytes[static_cast<int>(RowColumn::kUpdates)].data(), 8);
  EXPECT_EQ(second_action, 0.75f);
  EXPECT_EQ(reward, 3.0f);
  EXPECT_EQ(updates, 42);
}

TEST(RowTest, LastRowHoldsOnlyTheObservation) {
  const std::vector<float> observation(5, 1.5f), zeros(2, 0.0f);
  const Row row = LastRow(observation, zeros);
  EXPECT_EQ(row.observation[4], 1.5f);
  EXPECT_EQ(row.action.size(), 2u);
  EXPECT_EQ(row.prior_std[1], 0.0f);
  EXPECT_EQ(row.terminated, 0.0f);
  EXPECT_EQ(row.updates, 0);
}

}  // namespace
}  // namespace pompc
