#include "reference/collectives.h"

#include <cstdint>
#include <vector>

#include <gtest/gtest.h>

namespace qshard::reference {
namespace {

// Byte `i` of rank r: any pattern will do as long as ranks and places differ.
std::vector<std::byte> pattern(std::size_t rank, std::size_t size) {
  std::vector<std::byte> bytes(size);
  for (std::size_t i = 0; i < size; ++i) bytes[i] = static_cast<std::byte>(i * 7 + rank * 31 + 1);
  return bytes;
}

TEST(AllGather, EveryRankGetsEveryShardInRankOrder) {
  for (std::size_t world = 1; world <= 5; ++world) {
    std::vector<std::vector<std::byte>> shards;
    std::vector<std::byte> expected;
    for (std::size_t rank = 0; rank < world; ++rank) {
      shards.push_back(pattern(rank, 48));
      expected.insert(expected.end(), shards[rank].begin(), shards[rank].end());
    }
    std::vector<std::vector<std::byte>> gathered(world, std::vector<std::byte>(48 * world, std::byte{0xAA}));
    all_gather(RankBuffers<const std::byte>(shards.begin(), shards.end()),
               RankBuffers<std::byte>(gathered.begin(), gathered.end()));
    for (const auto& buffer : gathered) EXPECT_EQ(buffer, expected) << world << " ranks";
  }
}

// Powers of two: the sum is exact in any order, so the result is known to the bit.
TEST(ReduceScatter, EachRankGetsTheSumOfItsPart) {
  for (std::size_t world = 1; world <= 5; ++world) {
    const std::size_t count = 6;
    std::vector<std::vector<float>> full(world, std::vector<float>(count * world));
    for (std::size_t rank = 0; rank < world; ++rank) {
      for (std::size_t i = 0; i < full[rank].size(); ++i) {
        full[rank][i] = static_cast<float>((rank + 1) * (i + 3));
      }
    }
    std::vector<std::vector<float>> shards(world, std::vector<float>(count, -1e30F));
    reduce_scatter(RankBuffers<const float>(full.begin(), full.end()),
                   RankBuffers<float>(shards.begin(), shards.end()));
    const auto ranks_sum = static_cast<float>(world * (world + 1) / 2);
    for (std::size_t rank = 0; rank < world; ++rank) {
      for (std::size_t i = 0; i < count; ++i) {
        EXPECT_EQ(shards[rank][i], ranks_sum * static_cast<float>(rank * count + i + 3)) << rank << " " << i;
      }
    }
  }
}

TEST(AllReduce, EveryRankGetsTheSum) {
  std::vector<std::vector<float>> buffers{{1, 2, 3}, {10, 20, 30}, {100, 200, 300}};
  all_reduce(RankBuffers<float>(buffers.begin(), buffers.end()));
  for (const auto& buffer : buffers) EXPECT_EQ(buffer, (std::vector<float>{111, 222, 333}));
}

}  // namespace
}  // namespace qshard::reference
