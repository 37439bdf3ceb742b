#include <random>

#include "correctness/expect_error.h"
#include "correctness/gpu/matrix_gpu_testing.h"
#include "optimized/embedding.h"

namespace qshard::test {
namespace {

class EmbeddingGpu : public GpuTest {};

/// A string of random bytes, whole on the host and cut into shards on the device, each shard an allocation of its own.
struct CutString {
  CutString(std::int64_t shard_bytes, int count, std::uint64_t seed, std::int64_t first_byte = 0)
      : whole(shard_bytes * count) {
    std::mt19937_64 generator(seed);
    for (std::uint8_t& byte : whole) byte = static_cast<std::uint8_t>(generator());
    table.shard_bytes = shard_bytes;
    table.count = count;
    for (int i = 0; i < count; ++i) {
      std::vector<std::uint8_t> part(first_byte, 0xFF);
      part.insert(part.end(), whole.begin() + i * shard_bytes, whole.begin() + (i + 1) * shard_bytes);
      shards.push_back(std::make_unique<DeviceBuffer>(part));
      table.shards[i] = shards.back()->as<std::byte>(first_byte);
    }
  }

  std::vector<std::uint8_t> whole;
  std::vector<std::unique_ptr<DeviceBuffer>> shards;
  optimized::ShardedTable table;
};

std::vector<std::uint8_t> embedded(const CutString& string, std::int64_t offset, DType dtype, std::int64_t hidden,
                                   const std::vector<std::int32_t>& ids) {
  const DeviceBuffer out(ids.size() * hidden * size_of(dtype));
  const DeviceBuffer device_ids(ids);
  optimized::embed(string.table, offset, dtype, hidden, device_ids.as<std::int32_t>(), std::ssize(ids), out.as<void>(),
                   nullptr);
  QSHARD_CUDA_CHECK(cudaDeviceSynchronize());
  return out.download<std::uint8_t>();
}

TEST_F(EmbeddingGpu, CopiesRowsOfEveryCut) {
  std::mt19937_64 generator(1);
  struct Case {
    std::int64_t hidden, vocabulary, offset_elements;
    int shards;
  };
  for (const DType dtype : kFloatingDTypes) {
    for (const Case& c : {Case{4096, 61, 0, 1}, Case{1024, 37, 64, 5}, Case{24, 100, 8, 64}, Case{7, 50, 3, 4},
                          Case{1, 9, 1, 2}, Case{2056, 11, 16, 3}}) {
      SCOPED_TRACE(fmt::format("{} hidden {} shards {}", torch_name(dtype), c.hidden, c.shards));
      const auto itemsize = static_cast<std::int64_t>(size_of(dtype));
      const std::int64_t elements = c.offset_elements + c.vocabulary * c.hidden;
      // The cuts fall inside of rows; the string is longer than the table.
      const std::int64_t shard =
          ((elements / c.shards + 1) * itemsize + 15) / 16 * 16 + (c.hidden % 8 != 0 ? itemsize : 0);
      const CutString string(shard, c.shards, generator());
      std::vector<std::int32_t> ids{0, static_cast<std::int32_t>(c.vocabulary - 1)};
      for (int i = 0; i < 300; ++i) ids.push_back(static_cast<std::int32_t>(generator() % c.vocabulary));
      const std::int64_t offset = c.offset_elements * itemsize;
      std::vector<std::uint8_t> expected;
      for (const std::int32_t id : ids) {
        const auto row = string.whole.begin() + offset + id * c.hidden * itemsize;
        expected.insert(expected.end(), row, row + c.hidden * itemsize);
      }
      EXPECT_EQ(differing(embedded(string, offset, dtype, c.hidden, ids), expected), 0U);
    }
  }
}

TEST_F(EmbeddingGpu, ShardsThatAreNotAlignedTo16Bytes) {
  const CutString string(64 * 2 * 16, 2, 3, 2);
  const std::vector<std::int32_t> ids{0, 31, 15, 16, 3};
  std::vector<std::uint8_t> expected;
  for (const std::int32_t id : ids) {
    const auto row = string.whole.begin() + id * 128;
    expected.insert(expected.end(), row, row + 128);
  }
  EXPECT_EQ(differing(embedded(string, 0, DType::bf16, 64, ids), expected), 0U);
}

TEST_F(EmbeddingGpu, IdsOutsideOfTheStringReadNothingAndGiveNaN) {
  const CutString string(64 * 2 * 10, 1, 4);
  const std::vector<std::uint8_t> found = embedded(string, 0, DType::bf16, 64, {-1, 10, INT32_MAX, INT32_MIN});
  EXPECT_EQ(std::ranges::count(found, 0xFF), std::ssize(found));
}

TEST_F(EmbeddingGpu, RefusesBadInput) {
  const CutString string(128, 2, 5);
  const DeviceBuffer ids(std::vector<std::int32_t>{0});
  const DeviceBuffer out(128);
  const auto call = [&](const optimized::ShardedTable& table, std::int64_t offset, DType dtype, std::int64_t hidden,
                        std::int64_t tokens, std::byte* to) {
    optimized::embed(table, offset, dtype, hidden, ids.as<std::int32_t>(), tokens, to, nullptr);
  };
  auto* to = out.as<std::byte>();
  optimized::ShardedTable bad = string.table;
  bad.shards[1] = nullptr;
  expect_bad_input({"null"}, [&] { call(bad, 0, DType::bf16, 64, 1, to); });
  bad = string.table;
  bad.shard_bytes = 127;
  expect_bad_input({"127", "multiple of 2"}, [&] { call(bad, 0, DType::bf16, 64, 1, to); });
  bad.count = optimized::kMostShards + 1;
  expect_bad_input({"65", "at most 64"}, [&] { call(bad, 0, DType::bf16, 64, 1, to); });
  expect_bad_input({"offset"}, [&] { call(string.table, 1, DType::bf16, 64, 1, to); });
  expect_bad_input({"uint8"}, [&] { call(string.table, 0, DType::u8, 64, 1, to); });
  expect_bad_input({"hidden"}, [&] { call(string.table, 0, DType::bf16, 0, 1, to); });
  expect_bad_input({"aligned"}, [&] { call(string.table, 0, DType::bf16, 64, 1, to + 1); });
  call(string.table, 0, DType::bf16, 64, 0, nullptr);
}

}  // namespace
}  // namespace qshard::test
