#include "thread_pool.hpp"

#include <gtest/gtest.h>
#include <sched.h>

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <set>
#include <thread>

#include "sample.hpp"

namespace moedge::test {
namespace {

TEST(ThreadPool, OfOneRunsOnTheCallersThread) {
  ThreadPool pool(1);
  std::thread::id ran;
  pool.run([&] { ran = std::this_thread::get_id(); });
  EXPECT_EQ(ran, std::this_thread::get_id());
}

TEST(ThreadPool, AllThreadsWorkAtOnce) {
  ThreadPool pool(4);
  std::mutex mutex;
  std::condition_variable changed;
  std::set<std::thread::id> threads;
  pool.run([&] {
    std::unique_lock lock(mutex);
    threads.insert(std::this_thread::get_id());
    changed.notify_all();
    EXPECT_TRUE(changed.wait_for(lock, kDeadline, [&] { return threads.size() == 4; }));
  });
  EXPECT_EQ(threads.size(), 4U);
}

TEST(ThreadPool, NobodyWorksAfterRunHasReturned) {
  ThreadPool pool(4);
  for (int turn = 0; turn < (kFewerCases ? 300 : 5000); ++turn) {
    std::atomic<int> inside{0};
    std::atomic<int> begun{0};
    pool.run([&] {
      ++inside;
      ++begun;
      --inside;
    });
    ASSERT_EQ(inside, 0);
    ASSERT_GE(begun, 1);
    ASSERT_LE(begun, 4);
  }
}

TEST(ThreadPool, WorksOnOneProcessor) {
  cpu_set_t all;
  ASSERT_EQ(sched_getaffinity(0, sizeof all, &all), 0);
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(sched_getcpu(), &one);
  if (sched_setaffinity(0, sizeof one, &one) != 0) GTEST_SKIP() << "the processor cannot be chosen";
  {
    ThreadPool pool(3);
    std::atomic<int> begun{0};
    for (int turn = 0; turn < 100; ++turn) pool.run([&] { ++begun; });
    EXPECT_GE(begun, 100);
  }
  sched_setaffinity(0, sizeof all, &all);
}

TEST(ThreadPool, ANeverUsedPoolEnds) { ThreadPool pool(8); }

}  // namespace
}  // namespace moedge::test
