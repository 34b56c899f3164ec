#include "phases.hpp"

#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <thread>
#include <vector>

#include "sample.hpp"

namespace moedge::test {
namespace {

TEST(Phases, EveryTaskRunsOnceAndAfterAllOfThePhaseBefore) {
  for (const uint32_t threads : {1, 2, 5}) {
    ThreadPool pool(threads);
    if (threads == 2) pool.linger();
    Phases phases(pool);
    const std::array<uint32_t, 5> counts{3, 0, 40, 1, 7};
    for (int turn = 0; turn < (kFewerCases ? 200 : 3000); ++turn) {
      std::array<std::vector<std::atomic<uint32_t>>, 5> runs;
      for (size_t phase = 0; phase < counts.size(); ++phase)
        runs[phase] = std::vector<std::atomic<uint32_t>>(counts[phase]);
      std::array<std::atomic<uint32_t>, 5> done{};
      phases.run(counts, [&](uint32_t phase, uint32_t task, uint32_t thread) {
        EXPECT_LT(thread, threads);
        for (uint32_t before = 0; before < phase; ++before) EXPECT_EQ(done[before], counts[before]);
        ++runs[phase][task];
        ++done[phase];
      });
      for (const auto& phase : runs) {
        for (const auto& count : phase) ASSERT_EQ(count, 1U);
      }
    }
  }
}

TEST(Phases, NoTasksAtAllEnd) {
  ThreadPool pool(2);
  Phases phases(pool);
  const std::array<uint32_t, 2> counts{};
  phases.run(counts, [](uint32_t, uint32_t, uint32_t) { ADD_FAILURE(); });
}

TEST(Phases, ThreadsThatLingerSleepAfterAWhileAndWakeAgain) {
  ThreadPool pool(3);
  pool.linger();
  Phases phases(pool);
  const std::array<uint32_t, 1> counts{50};
  std::atomic<uint32_t> done{0};
  for (int turn = 0; turn < 20; ++turn) {
    phases.run(counts, [&](uint32_t, uint32_t, uint32_t) { ++done; });
    std::this_thread::sleep_for(std::chrono::milliseconds(turn % 3));
  }
  EXPECT_EQ(done, 1000U);
}

TEST(Phases, CallersOnSeveralThreadsTakeTurns) {
  ThreadPool pool(2);
  pool.linger();
  std::atomic<uint32_t> done{0};
  std::vector<std::thread> callers;
  for (int caller = 0; caller < 3; ++caller) {
    callers.emplace_back([&] {
      Phases phases(pool);
      const std::array<uint32_t, 2> counts{4, 4};
      for (int turn = 0; turn < 100; ++turn) phases.run(counts, [&](uint32_t, uint32_t, uint32_t) { ++done; });
    });
  }
  for (std::thread& caller : callers) caller.join();
  EXPECT_EQ(done, 2400U);
}

}  // namespace
}  // namespace moedge::test
