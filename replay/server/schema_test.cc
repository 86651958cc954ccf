#include "replay/server/schema.h"

#include <limits>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "replay/server/testing.h"

namespace pompc {
namespace {

using ::testing::HasSubstr;

v1::TableSchema OneColumn(const std::string& name, v1::DataType type, std::vector<int64_t> shape) {
  v1::TableSchema proto;
  v1::Column* column = proto.add_columns();
  column->set_name(name);
  column->set_type(type);
  column->mutable_shape()->Add(shape.begin(), shape.end());
  return proto;
}

std::string Refusal(const v1::TableSchema& proto) {
  const absl::Status status = Schema::Create(proto).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  return std::string(status.message());
}

TEST(SchemaTest, LaysColumnsOutInOrderWithoutGaps) {
  v1::TableSchema proto = OneColumn("pixels", v1::UINT8, {2, 3, 3});
  *proto.add_columns() = OneColumn("reward", v1::FLOAT32, {}).columns(0);
  *proto.add_columns() = OneColumn("version", v1::INT64, {2}).columns(0);
  const auto schema = Schema::Create(proto);
  ASSERT_TRUE(schema.ok()) << schema.status();
  EXPECT_EQ(schema->columns()[0].row_bytes, 18);
  EXPECT_EQ(schema->columns()[1].offset, 18);
  EXPECT_EQ(schema->columns()[1].row_bytes, 4);
  EXPECT_EQ(schema->columns()[2].offset, 22);
  EXPECT_EQ(schema->row_bytes(), 38);
  EXPECT_EQ(*schema->Find("version"), 2);
}

TEST(SchemaTest, RefusesWhatCannotBeATableAndNamesIt) {
  EXPECT_THAT(Refusal({}), HasSubstr("0 columns"));
  EXPECT_THAT(Refusal(OneColumn("", v1::UINT8, {})), HasSubstr("column 0: the name is empty"));
  EXPECT_THAT(Refusal(OneColumn("a", v1::DATA_TYPE_UNSPECIFIED, {})), HasSubstr("\"a\""));
  EXPECT_THAT(Refusal(OneColumn("a", v1::UINT8, {3, 0})), HasSubstr("dimension 0 in shape [3, 0]"));
  EXPECT_THAT(Refusal(OneColumn("a", v1::INT64, {1 << 26, 1 << 26, 1 << 26})),
              HasSubstr("larger than"));
  v1::TableSchema twice = OneColumn("a", v1::UINT8, {});
  *twice.add_columns() = twice.columns(0);
  EXPECT_THAT(Refusal(twice), HasSubstr("\"a\": the name is used twice"));
}

TEST(SchemaTest, NamesColumnRowAndElementThatIsNotFinite) {
  const auto schema = Schema::Create(OneColumn("obs", v1::FLOAT32, {3}));
  ASSERT_TRUE(schema.ok());
  std::vector<float> rows(3 * 1000, std::numeric_limits<float>::max());
  const auto check = [&] {
    return schema->CheckRows(
        0, 1000, std::string_view(reinterpret_cast<const char*>(rows.data()), 4 * rows.size()));
  };
  EXPECT_TRUE(check().ok());
  for (const float bad :
       {std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity(),
        std::numeric_limits<float>::quiet_NaN()}) {
    rows[3 * 700 + 2] = bad;
    EXPECT_EQ(check().message(), "column \"obs\": element 2 of row 700 is not finite");
  }
}

TEST(SchemaTest, NamesColumnOfTheWrongSize) {
  const auto schema = Schema::Create(OneColumn("obs", v1::FLOAT32, {3}));
  ASSERT_TRUE(schema.ok());
  EXPECT_EQ(schema->CheckRows(0, 2, std::string(23, 'x')).message(),
            "column \"obs\": 23 bytes; 2 rows of 12 bytes are 24");
}

TEST(SchemaTest, UnknownNameIsAnsweredWithTheKnownOnes) {
  const auto schema = Schema::Create(testing::TestSchema());
  ASSERT_TRUE(schema.ok());
  EXPECT_EQ(schema->Find("priro").status().message(), "no column \"priro\"; there are id, prior");
}

}  // namespace
}  // namespace pompc
