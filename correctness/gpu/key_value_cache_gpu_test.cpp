#include <limits>

#include "correctness/expect_error.h"
#include "correctness/gpu/matrix_gpu_testing.h"
#include "optimized/key_value_cache.h"
#include "reference/rope.h"

namespace qshard::test {
namespace {

class KeyValueCacheGpu : public GpuTest {};

/// Of two caches, all of whose elements are NaN until they are stored. A row here is a token of a row of the caches.
struct Caches {
  explicit Caches(const optimized::KeyValueCacheShape& shape)
      : keys(Matrix<float>::Constant(shape.rows * shape.capacity, shape.token_elements(), NAN)),
        values(keys),
        device_keys(shape.rows * shape.capacity, shape.token_elements(), shape.dtype, shape.token_elements()),
        device_values(shape.rows * shape.capacity, shape.token_elements(), shape.dtype, shape.token_elements()) {}

  void expect_equal(const char* what) const {
    expect_bits(keys, device_keys.values(), what);
    expect_bits(values, device_values.values(), what);
  }

  Matrix<float> keys, values;  // expected
  DeviceMatrix device_keys, device_values;
};

TEST_F(KeyValueCacheGpu, StoresWholeRowsWhereTheyBelong) {
  std::uint64_t seed = 1;
  for (const DType dtype : kFloatingDTypes) {
    for (const std::int64_t head_dim : {2, 6, 64, 128}) {
      SCOPED_TRACE(fmt::format("{} head_dim {}", torch_name(dtype), head_dim));
      const optimized::KeyValueCacheShape shape{4, 9, 3, head_dim, dtype};
      const TokenBatch batch = random_batch({9, 1, 5}, 10, ++seed);
      const Matrix<float> keys = random_rounded(batch.tokens(), shape.token_elements(), dtype, ++seed);
      const Matrix<float> values = random_rounded(batch.tokens(), shape.token_elements(), dtype, ++seed);
      const std::int64_t stride = 2 * shape.token_elements() + 8;
      const DeviceMatrix device_keys(keys, dtype, stride);
      const DeviceMatrix device_values(values, dtype, stride);
      const DeviceRows rows(batch);
      Caches caches(shape);
      constexpr std::int64_t kFirstRow = 2;  // the last of the three rows lies outside the caches
      optimized::store_keys_values(shape, rows.view(), kFirstRow, device_keys.data(), device_values.data(), stride,
                                   caches.device_keys.data(), caches.device_values.data(), nullptr);
      for (std::int64_t row = 0; kFirstRow + row < shape.rows; ++row) {
        const std::int64_t begin = batch.offsets[row];
        const std::int64_t length = batch.offsets[row + 1] - begin;
        const std::int64_t to = (kFirstRow + row) * shape.capacity;
        caches.keys.middleRows(to, length) = keys.middleRows(begin, length);
        caches.values.middleRows(to, length) = values.middleRows(begin, length);
      }
      caches.expect_equal("stored");
    }
  }
}

TEST_F(KeyValueCacheGpu, RotatesNewTokensLikeTheReference) {
  std::uint64_t seed = 100;
  for (const DType dtype : kFloatingDTypes) {
    for (const std::int64_t head_dim : {2, 10, 64, 128}) {
      SCOPED_TRACE(fmt::format("{} head_dim {}", torch_name(dtype), head_dim));
      constexpr std::int64_t kHeads = 6;
      const optimized::KeyValueCacheShape shape{3, 7, 2, head_dim, dtype};
      const std::vector<std::int32_t> positions{6, 0, 7};  // the last lies outside the caches
      reference::RopeTable<float> table;
      table.cos = random_rounded(8, head_dim / 2, dtype, ++seed);
      table.sin = random_rounded(8, head_dim / 2, dtype, ++seed);
      const DeviceBuffer cos(std::span<const float>(table.cos.data(), table.cos.size()));
      const DeviceBuffer sin(std::span<const float>(table.sin.data(), table.sin.size()));
      const DeviceBuffer device_positions(positions);
      const std::int64_t width = (kHeads + 2 * shape.kv_heads) * head_dim;
      const Matrix<float> qkv = random_rounded(shape.rows, width, dtype, ++seed);
      const DeviceMatrix device_qkv(qkv, dtype, width + 4);
      Caches caches(shape);
      optimized::rotate_and_store(shape, kHeads, device_positions.as<std::int32_t>(), cos.as<float>(), sin.as<float>(),
                                  device_qkv.data(), device_qkv.stride(), caches.device_keys.data(),
                                  caches.device_values.data(), nullptr);
      Matrix<float> expected = qkv;
      for (std::int64_t row = 0; row < shape.rows; ++row) {
        TokenBatch token = random_batch({1}, 10, 1);
        const std::vector<std::int64_t> first{positions[row]};
        Matrix<float> turned = qkv.row(row).leftCols((kHeads + shape.kv_heads) * head_dim);
        reference::rope_forward(token, table, dtype, turned, first);
        expected.row(row).leftCols(kHeads * head_dim) = turned.leftCols(kHeads * head_dim);
        if (positions[row] >= shape.capacity) continue;
        const std::int64_t to = row * shape.capacity + positions[row];
        caches.keys.row(to) = turned.rightCols(shape.token_elements());
        caches.values.row(to) = qkv.row(row).rightCols(shape.token_elements());
      }
      expect_bits(expected, device_qkv.values(), "queries");
      caches.expect_equal("rotated");
    }
  }
}

TEST_F(KeyValueCacheGpu, RefusesBadInput) {
  const DeviceBuffer memory(4096);
  auto* data = memory.as<float>();
  const auto* positions = memory.as<std::int32_t>();
  const auto rotate = [&](const optimized::KeyValueCacheShape& shape, std::int64_t heads, std::int64_t stride,
                          void* qkv) {
    optimized::rotate_and_store(shape, heads, positions, memory.as<float>(), memory.as<float>(), qkv, stride, data,
                                data, nullptr);
  };
  const optimized::KeyValueCacheShape good{1, 2, 1, 8, DType::bf16};
  expect_bad_input({"head_dim", "7"}, [&] { rotate({1, 2, 1, 7, DType::bf16}, 1, 24, data); });
  expect_bad_input({"int64"}, [&] { rotate({1, 2, 1, 8, DType::i64}, 1, 24, data); });
  expect_bad_input({"stride"}, [&] { rotate(good, 1, 23, data); });
  expect_bad_input({"null"}, [&] { rotate(good, 1, 24, nullptr); });
}

}  // namespace
}  // namespace qshard::test
