// Host memory that the ranks of a host share.
#include "core/launch/shared_memory.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <span>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>

#include "core/base/error.h"
#include "correctness/expect_error.h"
#include "correctness/forked_ranks.h"
#include "correctness/ranks_as_threads.h"

namespace qshard {
namespace {

constexpr std::int64_t kBytes = 3 * 4096 + 100;

// Every rank writes into every part; every rank sees what all have written.
void write_and_read(RankLink& link) {
  const SharedMemory memory(kBytes, link);
  const auto own = static_cast<std::size_t>(link.rank());
  ASSERT_EQ(memory.ranks(), static_cast<std::size_t>(link.world_size()));
  for (std::size_t rank = 0; rank < memory.ranks(); ++rank) {
    ASSERT_EQ(memory.part(rank).size(), static_cast<std::size_t>(kBytes));
    EXPECT_EQ(memory.part(rank)[own], std::byte{0});
    EXPECT_EQ(memory.part(rank).back(), std::byte{0});
  }
  link.barrier();
  for (std::size_t rank = 0; rank < memory.ranks(); ++rank) {
    memory.part(rank)[own] = std::byte(10 * rank + own + 1);
    memory.part(rank)[memory.part(rank).size() - 1 - own] = std::byte(100 + 10 * rank + own);
  }
  link.barrier();
  for (std::size_t rank = 0; rank < memory.ranks(); ++rank) {
    for (std::size_t writer = 0; writer < memory.ranks(); ++writer) {
      EXPECT_EQ(memory.part(rank)[writer], std::byte(10 * rank + writer + 1));
      EXPECT_EQ(memory.part(rank)[memory.part(rank).size() - 1 - writer], std::byte(100 + 10 * rank + writer));
    }
  }
}

TEST(SharedMemory, RanksAsThreadsSeeWhatAllHaveWritten) {
  for (const int world : {1, 2, 4}) {
    for (const std::string& error : run_ranks_as_threads(world, write_and_read)) EXPECT_EQ(error, "");
  }
}

TEST(SharedMemory, ProcessesSeeWhatAllHaveWritten) {
  ForkedRanks ranks(2, thread_options(), write_and_read);
  for (const int rank : {0, 1}) EXPECT_EQ(ranks.wait(rank), 0) << ranks.error(rank);
}

// More than one thread's share, so that the pages come from all of them; the last page is not a whole one.
TEST(SharedMemory, EveryPageIsThereFromTheStart) {
  constexpr std::int64_t kLarge = (std::int64_t{130} << 20) + 100;
  for (const std::string& error : run_ranks_as_threads(1, [](RankLink& link) {
         const SharedMemory memory(kLarge, link);
         const std::span<std::byte> part = memory.part(0);
         std::vector<unsigned char> resident((part.size() + 4095) / 4096);
         ASSERT_EQ(::mincore(part.data(), part.size(), resident.data()), 0);
         EXPECT_EQ(std::ranges::count(resident, 1), std::ssize(resident));
         EXPECT_THAT(part.last(4096), testing::Each(std::byte{0}));
       })) {
    EXPECT_EQ(error, "");
  }
}

TEST(SharedMemory, MoreThanTheHostHasIsRefused) {
  for (const std::string& error :
       run_ranks_as_threads(2, [](RankLink& link) { const SharedMemory memory(std::int64_t{1} << 50, link); })) {
    EXPECT_THAT(error, testing::HasSubstr("of host memory"));
  }
}

}  // namespace
}  // namespace qshard
