#include "replay/server/table.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "common/base/rng.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "replay/server/testing.h"

namespace pompc {
namespace {

using ::pompc::testing::IdAt;
using ::pompc::testing::kPriorFloats;
using ::pompc::testing::RowId;
using ::pompc::testing::TestSchema;
using ::pompc::testing::TestSegment;
using ::testing::HasSubstr;

std::unique_ptr<Table> MakeTable(int32_t window_rows, int64_t capacity_rows,
                                 int64_t capacity_bytes = 1 << 30, double priority_exponent = 0) {
  auto table = Table::Create({.schema = *Schema::Create(TestSchema()),
                              .capacity_rows = capacity_rows,
                              .capacity_bytes = capacity_bytes,
                              .window_rows = window_rows,
                              .priority_exponent = priority_exponent});
  EXPECT_TRUE(table.ok()) << table.status();
  return *std::move(table);
}

struct Draw {
  std::string ids, priors;
  std::vector<uint64_t> keys;
  std::vector<double> weights;  // [B]; 0 without priorities.
};

// [W, B] windows; random words from stream `step`.
Draw DrawWindows(const Table& table, int batch, uint64_t step = 0) {
  Rng rng(1, RngRole::kTest, 0, step);
  std::vector<uint64_t> random(batch);
  for (uint64_t& word : random) word = rng.Uint64();
  const size_t rows = static_cast<size_t>(table.window_rows()) * batch;
  Draw draw{std::string(rows * sizeof(RowId), '\0'),
            std::string(rows * kPriorFloats * sizeof(float), '\0'), std::vector<uint64_t>(rows),
            std::vector<double>(batch)};
  table.SampleWindows(random, {.columns = {draw.ids.data(), draw.priors.data()},
                               .keys = reinterpret_cast<char*>(draw.keys.data()),
                               .weights = reinterpret_cast<char*>(draw.weights.data())});
  return draw;
}

TEST(TableTest, RefusesImpossibleOptionsAndNamesThem) {
  const auto refusal = [](int64_t rows, int64_t bytes, int32_t window) {
    const absl::Status status = Table::Create({.schema = *Schema::Create(TestSchema()),
                                               .capacity_rows = rows,
                                               .capacity_bytes = bytes,
                                               .window_rows = window})
                                    .status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    return std::string(status.message());
  };
  EXPECT_THAT(refusal(10, 1 << 20, 0), HasSubstr("window_rows: 0"));
  EXPECT_THAT(refusal(3, 1 << 20, 4), HasSubstr("capacity_rows: 3"));
  EXPECT_THAT(refusal(int64_t{1} << 32, 1 << 20, 4), HasSubstr("capacity_rows: 4294967296"));
  EXPECT_THAT(refusal(10, 100, 4), HasSubstr("capacity_bytes: 100"));
}

TEST(TableTest, LargeCapacityIsNotTouchedInAdvance) {
  // 240 GB of address space; would fail or be killed if it were touched.
  const auto table = MakeTable(4, 4'000'000'000, int64_t{1} << 40);
  ASSERT_TRUE(table->Append(TestSegment(1, 1, 1, 0, 10)).ok());
  EXPECT_EQ(table->num_windows(), 7);
  EXPECT_LT(table->counts().bytes, 1000);
}

TEST(TableTest, BytesBoundTheRows) {
  const auto table = MakeTable(2, 1'000'000, 5000);
  for (int i = 0; i < 100; ++i) {
    ASSERT_TRUE(table->Append(TestSegment(1, i + 1, 1, 10 * i, 10)).ok());
    EXPECT_LE(table->counts().bytes, 5000);
  }
  EXPECT_GT(table->counts().bytes, 4500);
  EXPECT_EQ(table->counts().rows, table->capacity_rows());
  EXPECT_EQ(table->counts().inserted_rows, 1000);
}

TEST(TableTest, WindowIsAvailableAsSoonAsItsLastRowIs) {
  const auto table = MakeTable(4, 100);
  ASSERT_TRUE(table->Append(TestSegment(1, 1, 1, 0, 3)).ok());
  EXPECT_EQ(table->num_windows(), 0);
  ASSERT_TRUE(table->Append(TestSegment(1, 2, 1, 3, 1)).ok());
  EXPECT_EQ(table->num_windows(), 1);
}

TEST(TableTest, CountsTheLastRowOfAnEpisodeAsNoDecision) {
  const auto table = MakeTable(2, 100);
  ASSERT_TRUE(table->Append(TestSegment(1, 1, 1, 0, 5)).ok());
  ASSERT_TRUE(table->Append(TestSegment(1, 2, 1, 5, 1, /*ends_episode=*/true)).ok());
  ASSERT_TRUE(table->Append(TestSegment(1, 3, 2, 0, 4)).ok());
  EXPECT_EQ(table->counts().inserted_rows, 10);
  EXPECT_EQ(table->counts().inserted_decisions, 9);
  EXPECT_EQ(table->counts().finished_episodes, 1);
}

// Several writers and environments interleave random segments through a small ring, many times
// round. After every step the drawable windows must be exactly those that a plain model lists.
TEST(TableTest, DrawsExactlyTheStoredWindowsOfEveryEpisode) {
  constexpr int kWindow = 4;
  const auto table = MakeTable(kWindow, 61);
  Rng rng(7, RngRole::kTest, 1, 0);
  struct Source {
    uint64_t writer, episode, rows = 0;
  };
  std::vector<Source> sources = {{1, 0}, {1, 1}, {2, 0}, {3, 0}};
  std::map<uint64_t, uint64_t> sequences;
  std::vector<RowId> stored;  // All rows ever, in order; key = index + 1.
  for (int step = 0; step < 400; ++step) {
    Source& source = sources[rng.UniformInt(sources.size())];
    const int64_t rows = 1 + rng.UniformInt(12);
    const bool ends = rng.UniformInt(4) == 0;
    ASSERT_TRUE(table
                    ->Append(TestSegment(source.writer, ++sequences[source.writer], source.episode,
                                         source.rows, rows, ends))
                    .ok());
    for (int64_t i = 0; i < rows; ++i) {
      stored.push_back({static_cast<int64_t>(source.writer), static_cast<int64_t>(source.episode),
                        static_cast<int64_t>(source.rows) + i});
    }
    source.rows += rows;
    if (ends) source = {source.writer, source.episode + 10, 0};

    std::map<std::vector<int64_t>, uint64_t> alive;  // (writer, episode, row) -> key.
    const size_t first = stored.size() > 61 ? stored.size() - 61 : 0;
    for (size_t i = first; i < stored.size(); ++i) {
      alive[{stored[i].writer, stored[i].episode, stored[i].row}] = i + 1;
    }
    std::set<uint64_t> expected;  // Keys of window starts.
    for (const auto& [id, key] : alive) {
      bool whole = true;
      for (int t = 1; t < kWindow; ++t) whole &= alive.count({id[0], id[1], id[2] + t}) > 0;
      if (whole) expected.insert(key);
    }
    ASSERT_EQ(table->num_windows(), static_cast<int64_t>(expected.size()));
    if (expected.empty()) continue;
    constexpr int kBatch = 600;  // Misses one of at most 61 windows with probability 61 exp(-9.8).
    const Draw draw = DrawWindows(*table, kBatch, step);
    std::set<uint64_t> drawn;
    for (int b = 0; b < kBatch; ++b) {
      drawn.insert(draw.keys[b]);
      for (int t = 0; t < kWindow; ++t) {
        const size_t at = t * kBatch + b;
        ASSERT_EQ(IdAt(draw.ids, at), stored[draw.keys[at] - 1]);
        RowId id = IdAt(draw.ids, b);
        id.row += t;
        ASSERT_EQ(IdAt(draw.ids, at), id) << "a window left its episode";
      }
    }
    ASSERT_TRUE(std::includes(expected.begin(), expected.end(), drawn.begin(), drawn.end()));
    if (expected.size() < 40) {
      ASSERT_EQ(drawn, expected);
    }
  }
}

// Draws all windows equally often: chi-square of the counts, with a fixed seed.
void ExpectUniformDraws(const Table& table) {
  constexpr int kDraws = 100'000;
  std::map<uint64_t, int> counts;
  const Draw draw = DrawWindows(table, kDraws);
  for (int b = 0; b < kDraws; ++b) ++counts[draw.keys[b]];
  const double expected = static_cast<double>(kDraws) / static_cast<double>(table.num_windows());
  double chi_square = 0;
  for (const auto& [key, count] : counts) {
    chi_square += (count - expected) * (count - expected) / expected;
  }
  const double freedom = static_cast<double>(table.num_windows()) - 1;
  EXPECT_EQ(counts.size(), static_cast<size_t>(table.num_windows()));
  // Mean `freedom`, standard deviation sqrt(2 freedom): within 4 of them.
  EXPECT_LT(chi_square, freedom + 4 * std::sqrt(2 * freedom));
  EXPECT_GT(chi_square, freedom - 4 * std::sqrt(2 * freedom));
}

TEST(TableTest, DrawsUniformlyAfterEvictions) {
  const auto table = MakeTable(4, 128);
  for (int i = 0; i < 30; ++i) {
    ASSERT_TRUE(table->Append(TestSegment(1 + i % 3, 1 + i / 3, i, 0, 17, true)).ok());
  }
  ExpectUniformDraws(*table);
}

// One row in 25 starts a window, so 7 draws in 100 give up trying rows and search.
TEST(TableTest, DrawsUniformlyWhereFewRowsStartAWindow) {
  const auto table = MakeTable(4, 1000);
  for (int i = 0; i < 400; ++i) {
    const int64_t rows = i % 16 == 0 ? 5 : 3;
    ASSERT_TRUE(table->Append(TestSegment(1, 1 + i, i, 0, rows, true)).ok());
  }
  ExpectUniformDraws(*table);
}

TEST(TableTest, EqualCallsGiveEqualBits) {
  std::vector<Draw> draws;
  for (int run = 0; run < 2; ++run) {
    const auto table = MakeTable(3, 50);
    for (int i = 0; i < 20; ++i) {
      ASSERT_TRUE(table->Append(TestSegment(1 + i % 2, 1 + i / 2, i / 2, 0, 9, true)).ok());
    }
    draws.push_back(DrawWindows(*table, 64));
  }
  EXPECT_EQ(draws[0].ids, draws[1].ids);
  EXPECT_EQ(draws[0].keys, draws[1].keys);
}

TEST(TableTest, KnowsDuplicatesAndRefusesGaps) {
  const auto table = MakeTable(2, 100);
  ASSERT_TRUE(table->Append(TestSegment(5, 1, 1, 0, 3)).ok());
  EXPECT_TRUE(table->IsDuplicate(TestSegment(5, 1, 1, 0, 3)));
  EXPECT_FALSE(table->IsDuplicate(TestSegment(6, 1, 1, 0, 3)));
  EXPECT_EQ(table->LastSequence(5), 1u);

  const absl::Status gap = table->Append(TestSegment(5, 3, 1, 3, 3));
  EXPECT_EQ(gap.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(gap.message(), "segment.sequence: 3 of writer 5; must be 2, the last one stored is 1");
  const absl::Status row_gap = table->Append(TestSegment(5, 2, 1, 4, 3));
  EXPECT_EQ(row_gap.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(row_gap.message(), "segment.first_row: 4 of episode 1 of writer 5; must be 3");
  EXPECT_EQ(table->Append(TestSegment(5, 2, 2, 3, 3)).message(),
            "segment.first_row: 3 of episode 2 of writer 5; must be 0");
  EXPECT_EQ(table->counts().inserted_rows, 3) << "a refused segment left a trace";
  EXPECT_TRUE(table->Append(TestSegment(5, 2, 1, 3, 3)).ok());
}

TEST(TableTest, RefusesMalformedSegmentsAndNamesTheField) {
  const auto table = MakeTable(2, 100);
  const auto refusal = [&](auto change) {
    v1::Segment segment = TestSegment(1, 1, 1, 0, 3);
    change(segment);
    const absl::Status status = table->CheckSegment(segment);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    return std::string(status.message());
  };
  EXPECT_THAT(refusal([](auto& s) { s.set_writer_id(0); }), HasSubstr("segment.writer_id: 0"));
  EXPECT_THAT(refusal([](auto& s) { s.set_sequence(0); }), HasSubstr("segment.sequence: 0"));
  EXPECT_THAT(refusal([](auto& s) { s.set_num_rows(0); }), HasSubstr("segment.num_rows: 0"));
  EXPECT_THAT(refusal([](auto& s) { s.set_num_rows(101); }), HasSubstr("1 to the capacity of 100"));
  EXPECT_THAT(refusal([](auto& s) { s.add_columns(); }), HasSubstr("3 columns; the schema has 2"));
  EXPECT_THAT(refusal([](auto& s) { s.mutable_columns(1)->pop_back(); }),
              HasSubstr("column \"prior\": 23 bytes; 3 rows of 8 bytes are 24"));
  EXPECT_THAT(refusal([](auto& s) { s.mutable_columns(1)->replace(16, 4, "\xff\xff\xff\xff"); }),
              HasSubstr("column \"prior\": element 0 of row 2 is not finite"));
}

TEST(TableTest, UpdateOverwritesStoredRowsAndSkipsStaleKeys) {
  const auto table = MakeTable(2, 10);
  ASSERT_TRUE(table->Append(TestSegment(1, 1, 1, 0, 10)).ok());
  ASSERT_TRUE(table->Append(TestSegment(1, 2, 1, 10, 4)).ok());  // Evicts keys 1 to 4.
  const std::vector<uint64_t> keys = {4, 5, 14, 15};
  const std::vector<float> priors(kPriorFloats * keys.size(), -7);
  const ColumnRows rows = {.column = 1,
                           .data = {reinterpret_cast<const char*>(priors.data()), 4 * 2 * 4}};
  EXPECT_EQ(*table->Update(keys, {rows}), 2);

  const Draw draw = DrawWindows(*table, 200);
  for (size_t i = 0; i < draw.keys.size(); ++i) {
    float prior;
    std::memcpy(&prior, draw.priors.data() + i * kPriorFloats * sizeof(float), sizeof(prior));
    const bool changed = draw.keys[i] == 5 || draw.keys[i] == 14;
    EXPECT_EQ(prior, changed ? -7 : IdAt(draw.ids, i).row) << "key " << draw.keys[i];
  }
}

TEST(TableTest, RefusedUpdateChangesNothing) {
  const auto table = MakeTable(2, 10);
  ASSERT_TRUE(table->Append(TestSegment(1, 1, 1, 0, 2)).ok());
  const std::vector<int64_t> ids = {9, 9, 9};
  const std::vector<float> bad = {1, HUGE_VALF};
  EXPECT_EQ(table
                ->Update({1}, {{0, {reinterpret_cast<const char*>(ids.data()), 24}},
                               {1, {reinterpret_cast<const char*>(bad.data()), 8}}})
                .status()
                .message(),
            "column \"prior\": element 1 of row 0 is not finite");
  EXPECT_EQ(IdAt(DrawWindows(*table, 1).ids, 0), (RowId{1, 1, 0}));
}

// Through a small ring many times round, with priorities that come late, twice or for rows that are
// gone, beside a plain list of what each stored window should weigh.
TEST(TableTest, DrawsWindowsInProportionToTheirPriorities) {
  constexpr int kWindow = 3, kCapacity = 40;
  constexpr double kExponent = 0.5;
  const auto table = MakeTable(kWindow, kCapacity, 1 << 30, kExponent);
  EXPECT_TRUE(table->has_priorities());
  Rng rng(5, RngRole::kTest, 0, 0);
  std::map<uint64_t, double> weights;  // By the key of the first row.
  double largest = 0;
  uint64_t rows = 0, sequence = 0;
  for (int step = 0; step < 300; ++step) {
    const int64_t count = 1 + rng.UniformInt(4);
    ASSERT_TRUE(table->Append(TestSegment(1, ++sequence, 1, rows, count)).ok());
    for (int64_t i = 0; i < count; ++i) {
      if (++rows >= kWindow) weights[rows - kWindow + 1] = largest > 0 ? largest : 1;
    }
    while (weights.begin()->first + kCapacity <= rows) weights.erase(weights.begin());

    std::vector<uint64_t> keys;
    std::vector<float> priorities;
    int64_t known = 0;
    for (int i = 0; i < 6; ++i) {
      keys.push_back(1 + rng.UniformInt(rows + 3));  // Too old, without a window, or to come.
      priorities.push_back(static_cast<float>(rng.UniformInt(10)));
      const auto window = weights.find(keys.back());
      if (window == weights.end()) continue;
      ++known;
      window->second = std::pow(static_cast<double>(priorities.back()), kExponent);
      largest = std::max(largest, window->second);
    }
    ASSERT_EQ(table->SetPriorities(keys, priorities), known);

    double total = 0;
    for (const auto& [key, weight] : weights) total += weight;
    ASSERT_NEAR(table->total_weight(), total, 1e-12 * total);
    if (total == 0) {
      ASSERT_EQ(table->num_windows(), 0) << "nothing may be drawn";
      continue;
    }
    const Draw draw = DrawWindows(*table, 16, step);
    for (int b = 0; b < 16; ++b) {
      ASSERT_TRUE(weights.contains(draw.keys[b]));
      ASSERT_EQ(draw.weights[b], weights[draw.keys[b]]);
      ASSERT_GT(draw.weights[b], 0);
    }
  }
  constexpr int kDraws = 200'000;
  std::map<uint64_t, int> drawn;
  const Draw draw = DrawWindows(*table, kDraws, 1'000'000);
  for (int b = 0; b < kDraws; ++b) ++drawn[draw.keys[b]];
  double chi_square = 0;
  int degrees = -1;
  for (const auto& [key, weight] : weights) {
    if (weight == 0) continue;
    const double expected = weight / table->total_weight() * kDraws;
    chi_square += (drawn[key] - expected) * (drawn[key] - expected) / expected;
    ++degrees;
  }
  EXPECT_GT(degrees, 20);
  EXPECT_LT(chi_square, degrees + 4 * std::sqrt(2.0 * degrees));
}

TEST(TableTest, RefusesPriorityExponentsOutOfRange) {
  for (const double exponent : {-0.1, 4.1, std::nan("")}) {
    const absl::Status status = Table::Create({.schema = *Schema::Create(TestSchema()),
                                               .capacity_rows = 10,
                                               .capacity_bytes = 1 << 20,
                                               .window_rows = 2,
                                               .priority_exponent = exponent})
                                    .status();
    EXPECT_THAT(status.message(), HasSubstr("priority_exponent: "));
  }
}

}  // namespace
}  // namespace pompc
