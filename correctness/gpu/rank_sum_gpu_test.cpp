// Sums over ranks: added in the order of the ranks in float, to the bit, in fours and one by one.
#include <random>

#include "correctness/expect_error.h"
#include "correctness/gpu/gpu_testing.h"
#include "optimized/rank_sum.h"

namespace qshard::test {
namespace {

using optimized::RankArrays;

class RankSumGpu : public GpuTest {};

std::vector<float> random_floats(std::int64_t count, std::mt19937_64& generator) {
  std::normal_distribution<float> normal;
  std::vector<float> values(static_cast<std::size_t>(count));
  for (float& value : values) value = normal(generator) * 1e3F;
  return values;
}

/// count elements of each of `ranks` arrays, which begin `shift` elements behind a multiple of 16 bytes.
void check(int ranks, std::int64_t count, std::int64_t shift, bool adds) {
  SCOPED_TRACE(fmt::format("{} ranks, {} elements, {} behind, adds {}", ranks, count, shift, adds));
  std::mt19937_64 generator(static_cast<std::uint64_t>(ranks * 1000 + count + shift));
  const std::vector<float> before = random_floats(count, generator);
  std::vector<DeviceBuffer> arrays;
  std::vector<float> expected(static_cast<std::size_t>(count), 0.0F);
  RankArrays of_ranks;
  of_ranks.ranks = ranks;
  for (int rank = 0; rank < ranks; ++rank) {
    std::vector<float> values = random_floats(shift + count, generator);
    for (std::int64_t i = 0; i < count; ++i)
      expected[static_cast<std::size_t>(i)] += values[static_cast<std::size_t>(shift + i)];
    arrays.emplace_back(values);
    of_ranks.of_rank[rank] = arrays.back().as<float>() + shift;
  }
  DeviceBuffer out(static_cast<std::size_t>(count + 4) * sizeof(float));
  if (adds) {
    QSHARD_CUDA_CHECK(cudaMemcpy(out.as<void>(), before.data(), before.size() * sizeof(float), cudaMemcpyHostToDevice));
    for (std::size_t i = 0; i < expected.size(); ++i) expected[i] = before[i] + expected[i];
    optimized::add_sum_in_rank_order(of_ranks, count, out.as<float>(), nullptr);
  } else {
    optimized::sum_in_rank_order(of_ranks, count, out.as<float>(), nullptr);
  }
  const auto found = out.download<std::byte>();
  EXPECT_EQ(std::memcmp(found.data(), expected.data(), expected.size() * sizeof(float)), 0);
  for (std::size_t i = expected.size() * sizeof(float); i < found.size(); ++i) {
    ASSERT_EQ(found[i], std::byte{DeviceBuffer::kPoison}) << "written behind the end";
  }
}

TEST_F(RankSumGpu, HasTheBitsOfRankOrder) {
  for (const int ranks : {1, 2, 3, 8}) {
    for (const std::int64_t count : {1, 4, 255, 1024, 10001}) {
      for (const std::int64_t shift : {0, 1}) {
        for (const bool adds : {false, true}) check(ranks, count, shift, adds);
      }
    }
  }
}

TEST_F(RankSumGpu, RefusesBadInput) {
  const DeviceBuffer memory(64);
  RankArrays arrays;
  expect_bad_input({"ranks", "0"}, [&] { optimized::sum_in_rank_order(arrays, 4, memory.as<float>(), nullptr); });
  arrays.ranks = 1;
  expect_bad_input({"operand", "null"}, [&] { optimized::sum_in_rank_order(arrays, 4, memory.as<float>(), nullptr); });
  arrays.of_rank[0] = memory.as<float>();
  expect_bad_input({"elements", "-1"}, [&] { optimized::sum_in_rank_order(arrays, -1, memory.as<float>(), nullptr); });
}

}  // namespace
}  // namespace qshard::test
