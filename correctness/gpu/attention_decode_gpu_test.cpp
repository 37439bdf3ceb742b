#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>

#include <fmt/format.h>

#include "core/tensor/float16.h"
#include "correctness/expect_error.h"
#include "correctness/gpu/gpu_testing.h"
#include "correctness/gpu/literal_kernels.h"
#include "optimized/attention/attention_decode.h"
#include "optimized/key_value_cache.h"

namespace qshard::test {
namespace {

using optimized::AttentionDecodeShape;

class AttentionDecodeGpu : public GpuTest {};

std::size_t bytes_of(std::size_t elements, DType dtype) {
  return elements * size_of(dtype);
}

/// Rounds the values to dtype, in place, and returns their bytes.
std::vector<std::byte> encode(std::vector<float>& values, DType dtype) {
  std::vector<std::byte> bytes(bytes_of(values.size(), dtype));
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (dtype == DType::f32) {
      std::memcpy(bytes.data() + 4 * i, &values[i], 4);
    } else if (dtype == DType::bf16) {
      const auto rounded = from_float<bfloat16>(values[i]);
      values[i] = to_float(rounded);
      std::memcpy(bytes.data() + 2 * i, &rounded, 2);
    } else {
      const auto rounded = from_float<float16>(values[i]);
      values[i] = to_float(rounded);
      std::memcpy(bytes.data() + 2 * i, &rounded, 2);
    }
  }
  return bytes;
}

double decoded(const std::vector<std::byte>& bytes, std::size_t i, DType dtype) {
  if (dtype == DType::f32) return reinterpret_cast<const float*>(bytes.data())[i];
  if (dtype == DType::bf16) return to_float(reinterpret_cast<const bfloat16*>(bytes.data())[i]);
  return to_float(reinterpret_cast<const float16*>(bytes.data())[i]);
}

/// Caches whose tokens beyond a row's length are NaN, and what a query of each row must give.
class Cache {
 public:
  Cache(const AttentionDecodeShape& shape, const std::vector<std::int32_t>& lengths, std::uint64_t seed)
      : shape_(shape), lengths_(lengths) {
    std::mt19937_64 generator(seed);
    std::normal_distribution<float> normal;
    const auto random = [&](std::size_t count) {
      std::vector<float> values(count);
      for (float& value : values) value = normal(generator);
      return values;
    };
    const std::size_t row = shape.capacity * shape.kv_heads * shape.head_dim;
    q_ = random(shape.rows * shape.q_stride);
    keys_ = random(shape.rows * row);
    values_ = random(shape.rows * row);
    for (std::int64_t r = 0; r < shape.rows; ++r) {
      for (std::size_t i = lengths[r] * shape.kv_heads * shape.head_dim; i < row; ++i) {
        keys_[r * row + i] = values_[r * row + i] = std::nanf("");
      }
    }
  }

  std::vector<std::byte> run(std::size_t shift = 0) {
    const auto shifted = [&](std::vector<float>& values) {
      std::vector<std::byte> bytes = encode(values, shape_.dtype);
      bytes.insert(bytes.begin(), shift, std::byte{0});
      return bytes;
    };
    const DeviceBuffer q(shifted(q_));
    const DeviceBuffer keys(shifted(keys_));
    const DeviceBuffer values(shifted(values_));
    const DeviceBuffer lengths(lengths_);
    const DeviceBuffer o(bytes_of(shape_.rows * shape_.o_stride, shape_.dtype));
    const DeviceBuffer workspace(optimized::attention_decode_workspace_bytes(shape_));
    QSHARD_CUDA_CHECK(cudaMemset(o.as<void>(), 0xFF, o.bytes()));
    QSHARD_CUDA_CHECK(cudaMemset(workspace.as<void>(), 0xFF, workspace.bytes()));
    optimized::attention_decode(shape_, q.as<void>(shift), keys.as<void>(shift), values.as<void>(shift),
                                lengths.as<std::int32_t>(), o.as<void>(), workspace.as<void>(), nullptr);
    return o.download<std::byte>();
  }

  /// Nothing is rounded before the result: one rounding of it; and in float a score of head_dim terms, which shifts all
  /// weights, and a sum of at most `capacity` terms.
  void check(const std::vector<std::byte>& found) const {
    const double result = shape_.dtype == DType::bf16 ? 0x1p-8 : shape_.dtype == DType::f16 ? 0x1p-11 : 0x1p-24;
    const double tiny = shape_.dtype == DType::f16 ? 0x1p-25 : 0;
    for (std::int64_t row = 0; row < shape_.rows; ++row) {
      for (std::int64_t head = 0; head < shape_.heads; ++head) {
        const auto [value, magnitude] = attend(row, head);
        for (std::int64_t c = 0; c < shape_.head_dim; ++c) {
          const double actual = decoded(found, row * shape_.o_stride + head * shape_.head_dim + c, shape_.dtype);
          const double bound = 1.01 * result * std::abs(value[c]) + tiny +
                               static_cast<double>(8 * shape_.head_dim + lengths_[row]) * 0x1p-23 * magnitude[c];
          if (!(std::abs(actual - value[c]) <= bound)) {
            FAIL() << "row " << row << " of length " << lengths_[row] << ", head " << head << ", column " << c << ": "
                   << actual << ", expected " << value[c] << " +- " << bound;
          }
        }
      }
      const std::int64_t width = shape_.heads * shape_.head_dim;
      for (std::int64_t i = row * shape_.o_stride + width; i < (row + 1) * shape_.o_stride; ++i) {
        ASSERT_TRUE(std::isnan(decoded(found, i, shape_.dtype))) << "written beyond row " << row;
      }
    }
  }

 private:
  struct Sums {
    std::vector<double> value, magnitude;
  };

  [[nodiscard]] Sums attend(std::int64_t row, std::int64_t head) const {
    const std::int64_t d = shape_.head_dim;
    const std::int64_t length = lengths_[row];
    const std::int64_t first = shape_.window == 0 ? 0 : std::max<std::int64_t>(0, length - shape_.window);
    const auto cached = [&](std::int64_t token) {
      return ((row * shape_.capacity + token) * shape_.kv_heads + head / (shape_.heads / shape_.kv_heads)) * d;
    };
    std::vector<double> weights;
    double most = -INFINITY;
    for (std::int64_t j = first; j < length; ++j) {
      double score = 0;
      for (std::int64_t c = 0; c < d; ++c) {
        score += static_cast<double>(q_[row * shape_.q_stride + head * d + c]) * keys_[cached(j) + c];
      }
      weights.push_back(score / std::sqrt(static_cast<double>(d)));
      most = std::max(most, weights.back());
    }
    double total = 0;
    for (double& weight : weights) total += weight = std::exp(weight - most);
    Sums sums{std::vector<double>(d), std::vector<double>(d)};
    for (std::int64_t j = first; j < length; ++j) {
      for (std::int64_t c = 0; c < d; ++c) {
        const double term = weights[j - first] / total * values_[cached(j) + c];
        sums.value[c] += term;
        sums.magnitude[c] += std::abs(term);
      }
    }
    return sums;
  }

  AttentionDecodeShape shape_;
  std::vector<std::int32_t> lengths_;
  std::vector<float> q_, keys_, values_;
};

AttentionDecodeShape shape_of(std::int64_t rows, std::int64_t heads, std::int64_t kv_heads, std::int64_t head_dim,
                              std::int64_t capacity, DType dtype, std::int64_t window = 0) {
  return {rows, heads, kv_heads, head_dim, window, capacity, heads * head_dim + 8, heads * head_dim + 16, dtype};
}

// One part and many, parts that end early or hold nothing, more query heads a group than one pass serves.
TEST_F(AttentionDecodeGpu, EqualsItsDefinition) {
  const std::vector<std::int32_t> lengths{1, 63, 0, 64, 65, 700, 1000};
  std::uint64_t seed = 1;
  for (const DType dtype : {DType::bf16, DType::f16, DType::f32}) {
    for (const auto& [heads, kv_heads, head_dim] :
         {std::tuple{16, 2, 128}, {12, 3, 128}, {4, 4, 64}, {12, 1, 96}, {3, 3, 33}, {8, 2, 256}}) {
      for (const std::int64_t window : {0, 1, 100}) {
        for (const std::int64_t capacity : {1000, 5000}) {
          SCOPED_TRACE(fmt::format("{}, {}/{} heads of {}, window {}, capacity {}", torch_name(dtype), heads, kv_heads,
                                   head_dim, window, capacity));
          Cache cache(shape_of(7, heads, kv_heads, head_dim, capacity, dtype, window), lengths, ++seed);
          const auto found = cache.run();
          cache.check(found);
          EXPECT_EQ(found, cache.run()) << "another run gave other bits";
          if (HasFailure()) return;
        }
      }
    }
  }
}

TEST_F(AttentionDecodeGpu, PointersThatAreNotAligned) {
  for (const DType dtype : {DType::bf16, DType::f16}) {
    Cache cache(shape_of(2, 8, 2, 128, 300, dtype), {300, 77}, 50);
    cache.check(cache.run(2));
  }
}

// Output and caches to the bit; where the new token begins a part, ends one, and is alone.
TEST_F(AttentionDecodeGpu, RotatesAndStoresLikeTheKernelOfItsOwn) {
  const std::vector<std::int32_t> lengths{1, 64, 65, 200, 300};
  const DeviceBuffer device_lengths(lengths);
  const DeviceBuffer positions(std::vector<std::int32_t>{0, 63, 64, 199, 299});
  std::uint64_t seed = 900;
  for (const DType dtype : {DType::bf16, DType::f16}) {
    for (const auto& [heads, kv_heads, head_dim] :
         {std::tuple{8, 2, 128}, {16, 1, 128}, {3, 3, 64}, {5, 1, 64}, {12, 4, 96}}) {
      SCOPED_TRACE(fmt::format("{}, {}/{} heads of {}", torch_name(dtype), heads, kv_heads, head_dim));
      const optimized::KeyValueCacheShape cache{5, 300, kv_heads, head_dim, dtype};
      AttentionDecodeShape shape = shape_of(5, heads, kv_heads, head_dim, cache.capacity, dtype);
      shape.q_stride = (heads + 2 * kv_heads) * head_dim + 8;
      const auto random = [&](std::int64_t elements, float deviation) {
        DeviceBuffer values(bytes_of(elements, dtype));
        fill_normal(dtype, elements, ++seed, deviation, values.as<void>());
        return values;
      };
      std::vector<float> angles(cache.capacity * head_dim / 2);
      for (std::size_t i = 0; i < angles.size(); ++i) angles[i] = std::cos(static_cast<float>(i));
      const DeviceBuffer cos(angles);
      for (float& angle : angles) angle = std::sqrt(1 - angle * angle);
      const DeviceBuffer sin(angles);
      const std::int64_t elements = cache.rows * cache.capacity * cache.token_elements();
      const DeviceBuffer qkv = random(shape.rows * shape.q_stride, 1.0F);
      const DeviceBuffer keys = random(elements, 1.0F);
      const DeviceBuffer values = random(elements, 1.0F);
      DeviceBuffer own_qkv(qkv.bytes());
      DeviceBuffer own_keys(keys.bytes());
      DeviceBuffer own_values(values.bytes());
      own_qkv.copy_from(qkv);
      own_keys.copy_from(keys);
      own_values.copy_from(values);
      const DeviceBuffer o(bytes_of(shape.rows * shape.o_stride, dtype));
      const DeviceBuffer own_o(o.bytes());
      const DeviceBuffer workspace(optimized::attention_decode_workspace_bytes(shape));
      const bool done = optimized::rotate_and_attend(
          shape, cos.as<float>(), sin.as<float>(), own_qkv.as<void>(), own_keys.as<void>(), own_values.as<void>(),
          device_lengths.as<std::int32_t>(), own_o.as<void>(), workspace.as<void>(), nullptr);
      EXPECT_EQ(done, head_dim != 96);
      if (!done) continue;
      optimized::rotate_and_store(cache, heads, positions.as<std::int32_t>(), cos.as<float>(), sin.as<float>(),
                                  qkv.as<void>(), shape.q_stride, keys.as<void>(), values.as<void>(), nullptr);
      optimized::attention_decode(shape, qkv.as<void>(), keys.as<void>(), values.as<void>(),
                                  device_lengths.as<std::int32_t>(), o.as<void>(), workspace.as<void>(), nullptr);
      EXPECT_EQ(differing(o.download<std::byte>(), own_o.download<std::byte>()), 0U) << "output";
      EXPECT_EQ(differing(keys.download<std::byte>(), own_keys.download<std::byte>()), 0U) << "keys";
      EXPECT_EQ(differing(values.download<std::byte>(), own_values.download<std::byte>()), 0U) << "values";
    }
  }
}

TEST_F(AttentionDecodeGpu, RefusesBadInput) {
  const DeviceBuffer memory(1 << 20);
  const auto call = [&](AttentionDecodeShape shape, const void* q) {
    optimized::attention_decode(shape, q, memory.as<void>(), memory.as<void>(), memory.as<std::int32_t>(),
                                memory.as<void>(), memory.as<void>(), nullptr);
  };
  const AttentionDecodeShape good = shape_of(2, 8, 2, 64, 100, DType::bf16);
  AttentionDecodeShape shape = good;
  expect_bad_input({"query", "null"}, [&] { call(good, nullptr); });
  shape.kv_heads = 3;
  expect_bad_input({"8 query heads", "3 key/value"}, [&] { call(shape, memory.as<void>()); });
  shape = good;
  shape.head_dim = 300;
  expect_bad_input({"head_dim 300"}, [&] { call(shape, memory.as<void>()); });
  shape = good;
  shape.capacity = 0;
  expect_bad_input({"capacity"}, [&] { call(shape, memory.as<void>()); });
  shape = good;
  shape.o_stride = 511;
  expect_bad_input({"stride", "output"}, [&] { call(shape, memory.as<void>()); });
}

}  // namespace
}  // namespace qshard::test
