#include <cmath>
#include <random>

#include "correctness/expect_error.h"
#include "correctness/gpu/gpu_testing.h"
#include "optimized/sum.h"

namespace qshard::test {
namespace {

class SumGpu : public GpuTest {};

constexpr double kBefore = 1.5;  // what out_add holds before

std::vector<float> random_floats(std::int64_t count, std::uint64_t seed) {
  std::mt19937_64 generator(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(count);
  for (float& value : values) value = normal(generator) * 100;
  return values;
}

double sum_losses(const DeviceBuffer& values, std::int64_t first, std::int64_t count) {
  const DeviceBuffer sum(std::vector<double>{kBefore});
  optimized::sum_losses(values.as<float>(first * sizeof(float)), count, sum.as<double>(), nullptr);
  return sum.download<double>().at(0);
}

double sum_squares(const DeviceBuffer& values, std::int64_t first, std::int64_t count) {
  const DeviceBuffer sum(std::vector<double>{kBefore});
  const DeviceBuffer partials(std::vector<double>(optimized::kSumPartials, std::nan("")));
  optimized::sum_squares(values.as<float>(first * sizeof(float)), count, partials.as<double>(), sum.as<double>(),
                         nullptr);
  return sum.download<double>().at(0);
}

/// Two sums of `count` doubles in any order differ by at most `count` roundings of the sum of the magnitudes each.
void expect_sum(double found, long double expected, long double magnitudes, std::int64_t count) {
  const long double bound = (static_cast<long double>(count) + 2) * 0x1p-53L * (magnitudes + kBefore);
  EXPECT_TRUE(std::fabs(found - expected) <= bound) << found << " instead of " << static_cast<double>(expected);
}

TEST_F(SumGpu, OfEveryLength) {
  const std::int64_t most = 3'000'003;
  const std::vector<float> values = random_floats(most + 1, 1);
  const DeviceBuffer device(values);
  for (const std::int64_t first : {0, 1}) {
    for (const std::int64_t count :
         std::initializer_list<std::int64_t>{0, 1, 2, 3, 4, 5, 31, 1023, 1025, 4096, 262143, 1048577, most}) {
      SCOPED_TRACE(testing::Message() << count << " values from " << first);
      long double sum = kBefore;
      long double magnitudes = 0;
      long double squares = kBefore;
      for (std::int64_t i = first; i < first + count; ++i) {
        sum += values[i];
        magnitudes += std::fabs(values[i]);
        squares += static_cast<long double>(values[i]) * values[i];
      }
      const double found = sum_losses(device, first, count);
      const double found_squares = sum_squares(device, first, count);
      expect_sum(found, sum, magnitudes, count);
      expect_sum(found_squares, squares, squares, count);
      for (int repeat = 0; repeat < 3; ++repeat) {
        EXPECT_EQ(sum_losses(device, first, count), found);
        EXPECT_EQ(sum_squares(device, first, count), found_squares);
      }
    }
  }
}

TEST_F(SumGpu, SquaresDoNotOverflowAndNaNIsSeen) {
  const DeviceBuffer large(std::vector<float>(1000, 3e38F));
  const auto square = static_cast<double>(3e38F) * static_cast<double>(3e38F);
  EXPECT_NEAR(sum_squares(large, 0, 1000), 1000 * square, 1e-10 * 1000 * square);
  std::vector<float> values(1000, 1.0F);
  values[999] = std::nanf("");
  EXPECT_TRUE(std::isnan(sum_squares(DeviceBuffer(values), 0, 1000)));
  EXPECT_TRUE(std::isnan(sum_losses(DeviceBuffer(values), 0, 1000)));
}

TEST_F(SumGpu, RefusesBadInput) {
  const DeviceBuffer memory(optimized::kSumPartials * sizeof(double));
  auto* values = memory.as<float>();
  auto* doubles = memory.as<double>();
  expect_bad_input({"losses", "-1"}, [&] { optimized::sum_losses(values, -1, doubles, nullptr); });
  expect_bad_input({"null"}, [&] { optimized::sum_losses(nullptr, 1, doubles, nullptr); });
  expect_bad_input({"null"}, [&] { optimized::sum_losses(values, 1, nullptr, nullptr); });
  expect_bad_input({"values", "-1"}, [&] { optimized::sum_squares(values, -1, doubles, doubles, nullptr); });
  expect_bad_input({"null"}, [&] { optimized::sum_squares(values, 1, nullptr, doubles, nullptr); });
  expect_bad_input({"aligned"}, [&] { optimized::sum_squares(values, 1, doubles, memory.as<double>(4), nullptr); });
}

}  // namespace
}  // namespace qshard::test
