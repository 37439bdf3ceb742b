#include <array>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>

#include "core/formats/safetensors.h"
#include "core/tensor/float16.h"
#include "correctness/expect_error.h"
#include "correctness/golden_cases.h"
#include "correctness/gpu/bitsandbytes_library.h"
#include "correctness/gpu/gpu_testing.h"
#include "correctness/random_weights.h"
#include "optimized/double_quant.h"
#include "reference/double_quant.h"
#include "reference/quantize.h"

namespace qshard::test {
namespace {

class DoubleQuantGpu : public GpuTest {};

/// Poisoned outputs and a poisoned workspace for `blocks` absmax values.
struct Nested {
  explicit Nested(std::int64_t blocks)
      : absmax_codes(blocks),
        nested_absmax(block_count(blocks, kNestedBlocksize) * sizeof(float)),
        offset(sizeof(float)),
        workspace(optimized::nested_workspace_bytes(blocks)) {}

  [[nodiscard]] optimized::NestedOutput output() const {
    return {absmax_codes.as<std::uint8_t>(), nested_absmax.as<float>(), offset.as<float>()};
  }

  DeviceBuffer absmax_codes, nested_absmax, offset, workspace;
};

void expect_equal(const Nested& found, const reference::NestedAbsmax& expected) {
  EXPECT_EQ(differing(found.absmax_codes.download<std::uint8_t>(), expected.codes), 0U);
  EXPECT_EQ(differing(found.nested_absmax.download<float>(), expected.nested_absmax), 0U);
  EXPECT_EQ(differing(found.offset.download<float>(), std::vector<float>{expected.offset}), 0U);
}

void nest(const Nested& nested, const DeviceBuffer& absmax, std::int64_t blocks, const float* given_offset,
          const std::array<float, 256>& nested_map = dynamic_map()) {
  const DeviceBuffer map{std::span<const float>(nested_map)};
  optimized::nest_absmax(absmax.as<float>(), blocks, map.as<float>(), given_offset, nested.output(),
                         nested.workspace.as<void>(), nested.workspace.bytes(), nullptr);
  QSHARD_CUDA_CHECK(cudaDeviceSynchronize());
}

std::vector<float> random_absmax(Fill fill, std::int64_t count, std::mt19937_64& generator) {
  std::vector<float> values = random_values(fill, count, generator);
  if (fill == Fill::normal) {
    for (float& value : values) value = std::fabs(value) + 0.03F;
  }
  return values;
}

TEST_F(DoubleQuantGpu, GivenOffsetLikeTheReference) {
  std::mt19937_64 generator(11);
  for (const std::int64_t blocks : {1, 2, 255, 256, 257, 1000, 100003}) {
    for (const Fill fill : kFills) {
      SCOPED_TRACE(fmt::format("{} blocks, fill {}", blocks, static_cast<int>(fill)));
      const std::vector<float> absmax = random_absmax(fill, blocks, generator);
      for (const float offset : {0.0F, 0.046F, -1.0F}) {
        const Nested nested(blocks);
        nest(nested, DeviceBuffer(absmax), blocks, DeviceBuffer(std::vector<float>{offset}).as<float>());
        expect_equal(nested, reference::nest_absmax(absmax, dynamic_map(), offset, reference::Reciprocal::gpu));
      }
    }
  }
}

TEST_F(DoubleQuantGpu, EveryMapValueAndMidpointKeepsItsSide) {
  std::vector<float> absmax;
  const auto& map = dynamic_map();
  for (std::size_t i = 0; i + 1 < map.size(); ++i) {
    const float middle = 0.5F * (map[i] + map[i + 1]);
    for (const float value : {map[i], middle, std::nextafter(middle, -2.0F), std::nextafter(middle, 2.0F)}) {
      if (absmax.size() % 256 == 0) absmax.push_back(1.0F);  // the nested block's absmax
      absmax.push_back(value);
    }
  }
  const auto blocks = std::ssize(absmax);
  const Nested nested(blocks);
  nest(nested, DeviceBuffer(absmax), blocks, DeviceBuffer(std::vector<float>{0.0F}).as<float>());
  expect_equal(nested, reference::nest_absmax(absmax, map, 0.0F, reference::Reciprocal::gpu));
}

TEST_F(DoubleQuantGpu, EqualNeighboursInTheMap) {
  std::array<float, 256> map{};
  std::vector<float> absmax = {1.0F};
  for (int i = 0; i < 256; ++i) map.at(i) = static_cast<float>(i / 3) / 42.0F - 1.0F;
  for (const float value : map) {
    for (const float near : {std::nextafter(value, -2.0F), value, std::nextafter(value, 2.0F)}) {
      if (absmax.size() % 256 == 0) absmax.push_back(1.0F);
      absmax.push_back(near);
    }
  }
  const auto blocks = std::ssize(absmax);
  const Nested nested(blocks);
  nest(nested, DeviceBuffer(absmax), blocks, DeviceBuffer(std::vector<float>{0.0F}).as<float>(), map);
  expect_equal(nested, reference::nest_absmax(absmax, map, 0.0F, reference::Reciprocal::gpu));
}

// Blocks that the look-up does not take, next to ones that it takes.
TEST_F(DoubleQuantGpu, OneOddValueInABlock) {
  using Limits = std::numeric_limits<float>;
  std::mt19937_64 generator(16);
  const DeviceBuffer no_offset(std::vector<float>{0.0F});
  for (const float odd :
       {Limits::quiet_NaN(), Limits::infinity(), -Limits::infinity(), Limits::max(), 0x1p+21F,
        std::nextafter(0x1p+21F, 0.0F), std::nextafter(0x1p+21F, Limits::max()), -0.0F, Limits::denorm_min()}) {
    SCOPED_TRACE(odd);
    for (const Fill fill : {Fill::normal, Fill::heavy_tailed, Fill::mostly_zero}) {
      std::vector<float> absmax = random_absmax(fill, 1000, generator);
      absmax.at(300) = odd;
      const Nested nested(1000);
      nest(nested, DeviceBuffer(absmax), 1000, no_offset.as<float>());
      expect_equal(nested, reference::nest_absmax(absmax, dynamic_map(), 0.0F, reference::Reciprocal::gpu));
    }
  }
}

TEST_F(DoubleQuantGpu, LikeBitsandbytes) {
  const BitsandbytesLibrary bitsandbytes;
  if (!bitsandbytes.found()) GTEST_SKIP() << "not run: " << bitsandbytes.why();
  std::mt19937_64 generator(12);
  const DeviceBuffer map{std::span<const float>(dynamic_map())};
  for (const Fill fill : kFills) {
    const int blocks = 200003;
    const std::vector<float> values = random_absmax(fill, blocks, generator);
    const DeviceBuffer absmax(values);
    const Nested found(blocks);
    nest(found, absmax, blocks, DeviceBuffer(std::vector<float>{0.0F}).as<float>());
    const Nested expected(blocks);
    const DeviceBuffer expected_absmax(expected.nested_absmax.bytes() + 256);
    bitsandbytes.quantize_8bit(map.as<float>(), absmax.as<float>(), blocks, expected.absmax_codes.as<std::uint8_t>(),
                               expected_absmax.as<float>());
    std::vector<float> scales = expected_absmax.download<float>();
    scales.resize(block_count(blocks, kNestedBlocksize));
    EXPECT_EQ(differing(found.absmax_codes.download<std::uint8_t>(), expected.absmax_codes.download<std::uint8_t>()),
              0U)
        << static_cast<int>(fill);
    EXPECT_EQ(differing(found.nested_absmax.download<float>(), scales), 0U) << static_cast<int>(fill);
  }
}

// n positive floats summed pairwise or in double: at most a few roundings of a partial sum of a thread block.
void expect_mean(float found, std::span<const float> absmax) {
  const double mean = std::accumulate(absmax.begin(), absmax.end(), 0.0) / static_cast<double>(absmax.size());
  EXPECT_TRUE(std::fabs(found - mean) <= 32 * 0x1p-24 * mean) << found << " instead of " << mean;
}

TEST_F(DoubleQuantGpu, ComputedOffsetIsTheMeanAndRepeats) {
  std::mt19937_64 generator(13);
  for (const std::int64_t blocks : {1, 5, 1023, 1025, 123457, 17'000'003}) {
    SCOPED_TRACE(blocks);
    const std::vector<float> absmax = random_absmax(Fill::normal, blocks, generator);
    const DeviceBuffer input(absmax);
    const Nested first(blocks);
    nest(first, input, blocks, nullptr);
    const float offset = first.offset.download<float>().at(0);
    expect_mean(offset, absmax);
    expect_equal(first, reference::nest_absmax(absmax, dynamic_map(), offset, reference::Reciprocal::gpu));
    for (int repeat = 0; repeat < 3; ++repeat) {
      const Nested again(blocks);
      nest(again, input, blocks, nullptr);
      EXPECT_EQ(differing(again.offset.download<float>(), {offset}), 0U);
    }
  }
}

// Quantizes normal deviates twice: to the bit as the reference with the same offset, which is the mean.
void expect_quantize_then_nest(DType dtype, int blocksize, std::int64_t count, std::mt19937_64& generator) {
  SCOPED_TRACE(fmt::format("{} blocksize {} n {}", torch_name(dtype), blocksize, count));
  const DeviceBuffer map{std::span<const float>(dynamic_map())};
  const Tensor weight = from_floats(random_values(Fill::normal, count, generator), dtype, {count});
  const DeviceBuffer input(weight.view().bytes);
  const std::int64_t blocks = block_count(count, blocksize);
  QuantizationOptions options;
  options.double_quant = false;
  options.blocksize = blocksize;
  const Weight4bit plain = reference::quantize(weight.view(), options, "weight");
  std::vector<float> offset;
  for (int repeat = 0; repeat < 2; ++repeat) {
    const Nested nested(blocks);
    const DeviceBuffer codes(packed_bytes(count));
    optimized::quantize_nested(input.as<void>(), dtype, count, QuantType::nf4, blocksize, codes.as<std::uint8_t>(),
                               map.as<float>(), nullptr, nested.output(), nested.workspace.as<void>(),
                               nested.workspace.bytes(), nullptr);
    QSHARD_CUDA_CHECK(cudaDeviceSynchronize());
    EXPECT_EQ(differing(codes.download<std::uint8_t>(), plain.codes), 0U);
    if (repeat == 0) offset = nested.offset.download<float>();
    expect_mean(offset.at(0), plain.absmax);
    expect_equal(nested, reference::nest_absmax(plain.absmax, dynamic_map(), offset.at(0), reference::Reciprocal::gpu));
  }
}

TEST_F(DoubleQuantGpu, QuantizeNestedIsQuantizeThenNest) {
  std::mt19937_64 generator(14);
  for (const int blocksize : {32, 64, 256, 512, 4096}) {
    for (const std::int64_t count : {blocksize + 1, 3 * 8192 + 2916, 1 << 20}) {
      for (const DType dtype : {DType::bf16, DType::f16, DType::f32}) {
        expect_quantize_then_nest(dtype, blocksize, count, generator);
      }
    }
  }
}

// More tiles than run at once: nesting must not begin before the last is done.
TEST_F(DoubleQuantGpu, QuantizeNestedManyTiles) {
  std::mt19937_64 generator(15);
  expect_quantize_then_nest(DType::bf16, 32, 40'000'100, generator);
}

TEST_F(DoubleQuantGpu, GoldenCasesOfBitsandbytes) {
  const Json cases = read_golden_cases().at("cases");
  const SafetensorsFile file = SafetensorsFile::open(golden_directory() + "/quant_cases.safetensors");
  const DeviceBuffer map{std::span<const float>(dynamic_map())};
  int checked = 0;
  for (const Json& golden : cases) {
    if (!golden.at("double_quant").get<bool>()) continue;
    SCOPED_TRACE(golden.dump());
    const auto name = golden.at("name").get<std::string>();
    const TensorView input = file.tensor(name + ".input");
    const std::int64_t count = element_count(input.shape);
    const int blocksize = golden.at("blocksize");
    const Nested nested(block_count(count, blocksize));
    const DeviceBuffer codes(packed_bytes(count));
    const DeviceBuffer offset(to_floats(file.tensor(name + ".offset")));
    optimized::quantize_nested(DeviceBuffer(input.bytes).as<void>(), input.dtype, count,
                               parse_quant_type(golden.at("quant_type").get<std::string>(), name), blocksize,
                               codes.as<std::uint8_t>(), map.as<float>(), offset.as<float>(), nested.output(),
                               nested.workspace.as<void>(), nested.workspace.bytes(), nullptr);
    EXPECT_TRUE(std::ranges::equal(codes.download<std::byte>(), file.tensor(name + ".packed").bytes));
    EXPECT_TRUE(std::ranges::equal(nested.absmax_codes.download<std::byte>(), file.tensor(name + ".absmax").bytes));
    const std::vector<float> scales = to_floats(file.tensor(name + ".nested_absmax"));
    const std::vector<float> found = nested.nested_absmax.download<float>();
    for (std::size_t i = 0; i < scales.size(); ++i) {
      EXPECT_TRUE(std::bit_cast<std::uint32_t>(scales[i]) == std::bit_cast<std::uint32_t>(found[i]) ||
                  (std::isnan(scales[i]) && std::isnan(found[i])));
    }
    ++checked;
  }
  EXPECT_GT(checked, 50);
}

TEST_F(DoubleQuantGpu, RefusesBadInput) {
  const Nested nested(256);
  const DeviceBuffer absmax(1024);
  const DeviceBuffer map(1024);
  const auto call = [&](const float* a, std::int64_t blocks, const float* m, void* workspace, std::size_t bytes) {
    optimized::nest_absmax(a, blocks, m, nullptr, nested.output(), workspace, bytes, nullptr);
  };
  auto* a = absmax.as<float>();
  auto* m = map.as<float>();
  auto* w = nested.workspace.as<void>();
  const std::size_t bytes = nested.workspace.bytes();
  expect_bad_input({"null"}, [&] { call(nullptr, 256, m, w, bytes); });
  expect_bad_input({"absmax values"}, [&] { call(a, 0, m, w, bytes); });
  expect_bad_input({"null"}, [&] { call(a, 256, nullptr, w, bytes); });
  expect_bad_input({"workspace"}, [&] { call(a, 256, m, w, bytes - 1); });
  expect_bad_input({"null"}, [&] { call(a, 256, m, nullptr, bytes); });
}

}  // namespace
}  // namespace qshard::test
