// Random weights for measurements: each element is the function of (seed, place) that the header names, and their mean
// and deviation are those asked for.
#include <cmath>

#include <gtest/gtest.h>

#include "correctness/expect_error.h"
#include "correctness/gpu/gpu_testing.h"
#include "optimized/random_values.h"

namespace qshard::test {
namespace {

using RandomValuesGpu = GpuTest;

std::uint64_t mix(std::uint64_t value) {
  value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9ULL;
  value = (value ^ value >> 27) * 0x94D049BB133111EBULL;
  return value ^ value >> 31;
}

std::vector<float> expected(std::uint64_t seed, double mean, double deviation, std::int64_t count) {
  const auto scale = static_cast<float>(deviation / (65536.0 / std::sqrt(3.0)));
  std::vector<float> values;
  for (std::int64_t i = 0; i < count; ++i) {
    const std::uint64_t bits = mix(seed + 0x9E3779B97F4A7C15ULL * static_cast<std::uint64_t>(i + 1));
    std::int64_t sum = -131070;
    for (int part = 0; part < 4; ++part) sum += static_cast<std::int64_t>(bits >> 16 * part & 0xFFFF);
    values.push_back(std::fmaf(scale, static_cast<float>(sum), static_cast<float>(mean)));
  }
  return values;
}

TEST_F(RandomValuesGpu, AreTheFunctionOfSeedAndPlace) {
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16}) {
    for (const std::int64_t count : {1, 255, 257, 70001}) {
      const std::size_t bytes = static_cast<std::size_t>(count) * size_of(dtype);
      const DeviceBuffer values(bytes + 64);
      optimized::random_values(7, 1, 0.02, count, dtype, values.as<void>(), nullptr);
      const auto got = values.download<std::byte>();
      const Tensor wanted = from_floats(expected(7, 1, 0.02, count), dtype, {count});
      EXPECT_EQ(std::memcmp(got.data(), wanted.bytes().data(), bytes), 0) << torch_name(dtype) << " " << count;
      for (std::size_t i = bytes; i < got.size(); ++i) ASSERT_EQ(got[i], std::byte{DeviceBuffer::kPoison});
    }
  }
}

TEST_F(RandomValuesGpu, HaveTheMeanAndDeviation) {
  constexpr std::int64_t kCount = 1 << 20;
  const DeviceBuffer values(kCount * sizeof(float));
  optimized::random_values(11, 0.5, 2, kCount, DType::f32, values.as<void>(), nullptr);
  double sum = 0;
  double squares = 0;
  for (const float value : values.download<float>()) {
    sum += value;
    squares += (value - 0.5) * (value - 0.5);
  }
  EXPECT_NEAR(sum / kCount, 0.5, 0.01);  // five deviations of a mean of so many
  EXPECT_NEAR(std::sqrt(squares / kCount), 2, 0.01);
}

TEST_F(RandomValuesGpu, RefusesBadInput) {
  const DeviceBuffer memory(64);
  auto* values = memory.as<void>();
  expect_bad_input({"-1"}, [&] { optimized::random_values(1, 0, 1, -1, DType::f32, values, nullptr); });
  expect_bad_input({"null"}, [&] { optimized::random_values(1, 0, 1, 4, DType::f32, nullptr, nullptr); });
  expect_bad_input({"random values"}, [&] { optimized::random_values(1, 0, 1, 4, DType::u8, values, nullptr); });
}

}  // namespace
}  // namespace qshard::test
