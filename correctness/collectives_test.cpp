#include "reference/collectives.h"

#include <cstdint>
#include <random>
#include <vector>

#include <gtest/gtest.h>

#include "correctness/ranks_as_threads.h"

namespace qshard::reference {
namespace {

// Byte `i` of rank r: any pattern will do as long as ranks and places differ.
std::vector<std::byte> pattern(std::size_t rank, std::size_t size) {
  std::vector<std::byte> bytes(size);
  for (std::size_t i = 0; i < size; ++i) bytes[i] = static_cast<std::byte>(i * 7 + rank * 31 + 1);
  return bytes;
}

ProcessGroup one_process(std::size_t world_size) {
  return make_process_group(static_cast<int>(world_size), nullptr);
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
    all_gather(one_process(world), RankBuffers<const std::byte>(shards.begin(), shards.end()),
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
    reduce_scatter(one_process(world), RankBuffers<const float>(full.begin(), full.end()),
                   RankBuffers<float>(shards.begin(), shards.end()));
    const auto ranks_sum = static_cast<float>(world * (world + 1) / 2);
    for (std::size_t rank = 0; rank < world; ++rank) {
      for (std::size_t i = 0; i < count; ++i) {
        EXPECT_EQ(shards[rank][i], ranks_sum * static_cast<float>(rank * count + i + 3)) << rank << " " << i;
      }
    }
  }
}

// Two groups of two: gathers stay within a group, sums run over all ranks.
TEST(Groups, GatherWithinAndReduceOverAll) {
  const std::vector<std::vector<std::byte>> bytes{pattern(0, 16), pattern(1, 16), pattern(2, 16), pattern(3, 16)};
  std::vector<std::vector<std::byte>> gathered(4, std::vector<std::byte>(32, std::byte{0xAA}));
  all_gather(one_process(4), RankBuffers<const std::byte>(bytes.begin(), bytes.end()),
             RankBuffers<std::byte>(gathered.begin(), gathered.end()));
  for (std::size_t rank = 0; rank < 4; ++rank) {
    std::vector<std::byte> expected = bytes[rank / 2 * 2];
    expected.insert(expected.end(), bytes[rank / 2 * 2 + 1].begin(), bytes[rank / 2 * 2 + 1].end());
    EXPECT_EQ(gathered[rank], expected) << rank;
  }
  const std::vector<std::vector<float>> full{{1, 2, 3, 4}, {10, 20, 30, 40}, {100, 200, 300, 400}, {5, 6, 7, 8}};
  std::vector<std::vector<float>> shards(4, std::vector<float>(2, -1e30F));
  reduce_scatter(one_process(4), RankBuffers<const float>(full.begin(), full.end()),
                 RankBuffers<float>(shards.begin(), shards.end()));
  for (const std::size_t rank : {0U, 2U}) EXPECT_EQ(shards[rank], (std::vector<float>{116, 228})) << rank;
  for (const std::size_t rank : {1U, 3U}) EXPECT_EQ(shards[rank], (std::vector<float>{340, 452})) << rank;
}

TEST(AllReduce, EveryRankGetsTheSum) {
  std::vector<std::vector<float>> buffers{{1, 2, 3}, {10, 20, 30}, {100, 200, 300}};
  all_reduce(one_process(3), RankBuffers<float>(buffers.begin(), buffers.end()));
  for (const auto& buffer : buffers) EXPECT_EQ(buffer, (std::vector<float>{111, 222, 333}));
}

/// What the collectives make of random numbers, rank by rank. Sums of random numbers depend on their order.
struct Results {
  std::vector<std::byte> gathered;
  std::vector<float> scattered;
  std::vector<std::byte> gathered_in_group;  // of two
  std::vector<float> scattered_in_group;
  std::vector<float> sum;
  std::vector<double> sum_of_doubles;

  bool operator==(const Results&) const = default;
};

Results run_collectives(const ProcessGroup& group, std::size_t local_rank_of_result) {
  constexpr std::size_t kCount = 1001;
  const std::size_t world = group.world_size();
  std::vector<std::vector<float>> full;
  std::vector<std::vector<double>> doubles;
  for (std::size_t i = 0; i < group.local_ranks; ++i) {
    std::mt19937 generator(static_cast<unsigned>(group.first_rank() + i));
    std::uniform_real_distribution<float> number(-1, 1);
    for (auto& value : full.emplace_back(kCount * world)) value = number(generator);
    doubles.emplace_back(full.back().begin(), full.back().begin() + 5);
  }
  std::vector<std::vector<float>> shards(group.local_ranks, std::vector<float>(kCount, -1e30F));
  std::vector<std::vector<std::byte>> gathered(group.local_ranks, std::vector<std::byte>(kCount * world * 4 * world));
  RankBuffers<const std::byte> bytes;
  for (const auto& one : full) bytes.push_back(std::as_bytes(std::span(one)));
  all_gather(group, bytes, RankBuffers<std::byte>(gathered.begin(), gathered.end()));
  reduce_scatter(group, RankBuffers<const float>(full.begin(), full.end()),
                 RankBuffers<float>(shards.begin(), shards.end()));
  std::vector<std::vector<float>> group_shards(group.local_ranks, std::vector<float>(kCount, -1e30F));
  std::vector<std::vector<std::byte>> group_gathered(group.local_ranks);
  if (world % 2 == 0) {
    for (auto& one : group_gathered) one.resize(2 * bytes.front().size());
    all_gather(group, bytes, RankBuffers<std::byte>(group_gathered.begin(), group_gathered.end()));
    RankBuffers<const float> two_parts;
    for (const auto& one : full) two_parts.push_back(std::span(one).first(2 * kCount));
    reduce_scatter(group, two_parts, RankBuffers<float>(group_shards.begin(), group_shards.end()));
  }
  all_reduce(group, RankBuffers<float>(full.begin(), full.end()));
  all_reduce(group, RankBuffers<double>(doubles.begin(), doubles.end()));
  const std::size_t i = local_rank_of_result;
  return {gathered[i], shards[i], group_gathered[i], group_shards[i], full[i], doubles[i]};
}

class Processes : public testing::TestWithParam<std::pair<int, int>> {};

TEST_P(Processes, ChangeNoBit) {
  const auto [processes, local_ranks] = GetParam();
  const auto world = static_cast<std::size_t>(processes * local_ranks);
  std::vector<Results> got(world);
  const auto errors =
      run_ranks_as_threads(processes, [&, local = static_cast<std::size_t>(local_ranks)](RankLink& link) {
        const ProcessGroup group = make_process_group(static_cast<int>(world), &link);
        for (std::size_t i = 0; i < local; ++i) got[group.first_rank() + i] = run_collectives(group, i);
      });
  for (const std::string& error : errors) EXPECT_EQ(error, "");
  for (std::size_t rank = 0; rank < world; ++rank) {
    EXPECT_TRUE(got[rank] == run_collectives(one_process(world), rank)) << "rank " << rank;
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, Processes,
                         testing::Values(std::pair{2, 1}, std::pair{3, 1}, std::pair{2, 3}, std::pair{5, 1},
                                         std::pair{4, 1}, std::pair{2, 2}));

TEST(Broadcast, TheFirstProcessDecides) {
  const auto errors = run_ranks_as_threads(3, [](RankLink& link) {
    std::vector<float> values{-1};
    if (link.is_first()) values = {1, 2, 3};
    broadcast(make_process_group(3, &link), values);
    if (values != std::vector<float>{1, 2, 3}) throw std::runtime_error("other values");
  });
  for (const std::string& error : errors) EXPECT_EQ(error, "");
}

TEST(ProcessGroup, RanksThatCannotBeDealtEvenlyAreRefused) {
  const auto errors = run_ranks_as_threads(2, [](RankLink& link) { make_process_group(3, &link); });
  EXPECT_NE(errors[0].find("3 ranks cannot be dealt evenly to 2 processes"), std::string::npos) << errors[0];
}

}  // namespace
}  // namespace qshard::reference
