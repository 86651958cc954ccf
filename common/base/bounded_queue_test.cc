#include "common/base/bounded_queue.h"

#include <atomic>
#include <memory>
#include <vector>

#include "common/base/thread.h"
#include "gtest/gtest.h"

namespace pompc {
namespace {

TEST(BoundedQueueTest, GivesItemsInOrder) {
  BoundedQueue<int> queue(3);
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(queue.Push(i).ok());
  EXPECT_EQ(queue.size(), 3u);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(queue.Pop().value(), i);
  EXPECT_EQ(queue.TryPop(), std::nullopt);
}

TEST(BoundedQueueTest, HoldsMoveOnlyItemsAndTryPushKeepsARefusedOne) {
  BoundedQueue<std::unique_ptr<int>> queue(1);
  auto first = std::make_unique<int>(1), second = std::make_unique<int>(2);
  EXPECT_TRUE(queue.TryPush(first));
  EXPECT_FALSE(queue.TryPush(second));
  ASSERT_NE(second, nullptr);
  EXPECT_EQ(*queue.Pop().value(), 1);
}

TEST(BoundedQueueTest, FullAndEmptyQueuesReportTheDeadline) {
  FakeClock clock;
  BoundedQueue<int> queue(1, &clock);
  EXPECT_EQ(queue.Pop(clock.Now()).status().code(), absl::StatusCode::kDeadlineExceeded);
  ASSERT_TRUE(queue.Push(1).ok());
  Thread writer("writer", [&] {
    EXPECT_EQ(queue.Push(2, clock.Now() + absl::Seconds(1)).code(),
              absl::StatusCode::kDeadlineExceeded);
  });
  clock.AwaitWaiters(1);
  clock.Advance(absl::Seconds(1));
}

TEST(BoundedQueueTest, DrainLetsReadersEmptyItAndRefusesWriters) {
  BoundedQueue<int> queue(2);
  ASSERT_TRUE(queue.Push(1).ok());
  queue.Drain();
  EXPECT_EQ(queue.Push(2).code(), absl::StatusCode::kCancelled);
  int item = 3;
  EXPECT_FALSE(queue.TryPush(item));
  EXPECT_EQ(queue.Pop().value(), 1);
  EXPECT_EQ(queue.Pop().status().code(), absl::StatusCode::kCancelled);
}

TEST(BoundedQueueTest, CloseDropsWhatIsLeft) {
  BoundedQueue<std::shared_ptr<int>> queue(2);
  auto item = std::make_shared<int>(1);
  ASSERT_TRUE(queue.Push(item).ok());
  queue.Drain();
  queue.Close();
  EXPECT_EQ(item.use_count(), 1);
  EXPECT_EQ(queue.size(), 0u);
  EXPECT_EQ(queue.Pop().status().code(), absl::StatusCode::kCancelled);
}

TEST(BoundedQueueTest, CloseWakesBlockedReadersAndWriters) {
  FakeClock clock;
  BoundedQueue<int> empty(1, &clock), full(1, &clock);
  ASSERT_TRUE(full.Push(1).ok());
  Thread reader("reader",
                [&] { EXPECT_EQ(empty.Pop().status().code(), absl::StatusCode::kCancelled); });
  Thread writer("writer", [&] { EXPECT_EQ(full.Push(2).code(), absl::StatusCode::kCancelled); });
  clock.AwaitWaiters(2);
  empty.Close();
  full.Close();
}

TEST(BoundedQueueTest, EveryItemArrivesOnceWithManyWritersAndReaders) {
  constexpr int kThreads = 3, kItems = 300;
  BoundedQueue<int> queue(4);
  std::vector<std::atomic<int>> seen(kThreads * kItems);
  std::vector<Thread> readers;
  for (int t = 0; t < kThreads; ++t) {
    readers.emplace_back("reader", [&] {
      for (auto item = queue.Pop(); item.ok(); item = queue.Pop()) ++seen[*item];
    });
  }
  {
    std::vector<Thread> writers;
    for (int t = 0; t < kThreads; ++t) {
      writers.emplace_back("writer", [&queue, t] {
        for (int i = 0; i < kItems; ++i) POMPC_CHECK_OK(queue.Push(t * kItems + i));
      });
    }
  }
  queue.Drain();
  readers.clear();
  for (const auto& count : seen) EXPECT_EQ(count, 1);
}

}  // namespace
}  // namespace pompc
