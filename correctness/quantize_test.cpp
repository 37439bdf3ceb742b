#include "reference/quantize.h"

#include <bit>
#include <cmath>
#include <functional>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#ifdef _OPENMP
#include <omp.h>
#endif

#include "core/tensor/float16.h"
#include "correctness/expect_error.h"
#include "correctness/quantize_oracle.h"
#include "correctness/random_weights.h"

namespace qshard::reference {
namespace {

constexpr int kBlocksizes[] = {32, 64, 128, 256, 512, 1024, 2048, 4096};
constexpr QuantType kTypes[] = {QuantType::nf4, QuantType::fp4};
constexpr DType kDTypes[] = {DType::f32, DType::bf16, DType::f16};
constexpr Reciprocal kReciprocals[] = {Reciprocal::gpu, Reciprocal::ieee};
constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

// Without double quantization, so that absmax can be compared.
QuantizationOptions one_scale_a_block() {
  QuantizationOptions options;
  options.double_quant = false;
  return options;
}

Weight4bit quantize_floats(const std::vector<float>& values, const QuantizationOptions& options,
                           DType dtype = DType::f32, Reciprocal kind = Reciprocal::gpu) {
  return quantize(from_floats(values, dtype, {std::ssize(values)}).view(), options, "weight", {.reciprocal = kind});
}

int code_at(const Weight4bit& weight, std::size_t i) {
  return i % 2 == 0 ? weight.codes[i / 2] >> 4 : weight.codes[i / 2] & 15;
}

// `values`, then zeros to fill a block of 32.
std::vector<float> block_of(std::vector<float> values, float filler = 0.0F) {
  values.resize(32, filler);
  return values;
}

void expect_like_oracle(const std::vector<float>& values, DType dtype, const QuantizationOptions& options,
                        Reciprocal kind = Reciprocal::gpu) {
  const Tensor tensor = from_floats(values, dtype, {std::ssize(values)});
  const Weight4bit weight = quantize(tensor.view(), options, "weight", {.reciprocal = kind});
  const oracle::Quantized expected = oracle::quantize(to_floats(tensor.view()), options.quant_type, options.blocksize,
                                                      [&](float absmax) { return reciprocal(absmax, kind); });
  ASSERT_EQ(weight.absmax, expected.absmax);
  ASSERT_EQ(2 * weight.codes.size(), expected.codes.size());
  for (std::size_t i = 0; i < expected.codes.size(); ++i) ASSERT_EQ(code_at(weight, i), expected.codes[i]) << i;
}

TEST(Quantize, RandomWeightsLikeTheOracle) {
  std::mt19937_64 generator(20240601);
  for (const int blocksize : kBlocksizes) {
    const auto block = static_cast<std::size_t>(blocksize);
    for (const std::size_t count : {block, block - 1, block + 1, 5 * block + 17, 2 * block + 2}) {
      for (const test::Fill fill : test::kFills) {
        const std::vector<float> values = test::random_values(fill, count, generator);
        for (const QuantType type : kTypes) {
          for (const DType dtype : kDTypes) {
            for (const Reciprocal kind : kReciprocals) {
              SCOPED_TRACE(fmt::format("{} n {} blocksize {} {} fill {} reciprocal {}", to_string(type), count,
                                       blocksize, torch_name(dtype), static_cast<int>(fill), static_cast<int>(kind)));
              QuantizationOptions options = one_scale_a_block();
              options.quant_type = type;
              options.blocksize = blocksize;
              expect_like_oracle(values, dtype, options, kind);
              if (HasFatalFailure()) return;
            }
          }
        }
      }
    }
  }
}

TEST(Quantize, ShortTails) {
  std::mt19937_64 generator(7);
  for (const QuantType type : kTypes) {
    for (std::size_t count = 1; count <= 67; ++count) {
      SCOPED_TRACE(count);
      QuantizationOptions options = one_scale_a_block();
      options.quant_type = type;
      options.blocksize = 32;
      expect_like_oracle(test::random_values(test::Fill::normal, count, generator), DType::bf16, options);
      if (HasFatalFailure()) return;
    }
  }
}

TEST(Quantize, FirstElementIsTheHighNibble) {
  const Weight4bit weight = quantize_floats({-1.0F, 1.0F, 1.0F}, one_scale_a_block());
  EXPECT_EQ(weight.codes, (std::vector<std::uint8_t>{0x0F, 0xF7}));
}

TEST(Quantize, PartnerOfAnOddLastElementCountsAsZero) {
  QuantizationOptions fp4 = one_scale_a_block();
  fp4.quant_type = QuantType::fp4;
  EXPECT_EQ(quantize_floats({1.0F}, one_scale_a_block()).codes.at(0), 0xF7);
  EXPECT_EQ(quantize_floats({1.0F}, fp4).codes.at(0), 0x30);
  EXPECT_EQ(quantize_floats({0.0F}, one_scale_a_block()).codes.at(0), 0x00);
  EXPECT_EQ(quantize_floats({0.0F}, fp4).codes.at(0), 0x00);
}

struct Special {
  const char* what;
  std::vector<float> block;
  float absmax;
  int nf4_first;  // codes of the first and the second element
  int nf4_second;
  int fp4_first;
  int fp4_second;
};

TEST(Quantize, SpecialValues) {
  const float largest = std::numeric_limits<float>::max();
  const Special cases[] = {
      {"zeros", block_of({}), 0.0F, 0, 0, 0, 0},
      {"subnormals", block_of({0x1p-127F, -0x1p-130F}), 0.0F, 0, 0, 0, 0},
      {"past 2^126", block_of({0x1.8p126F, -0x1.8p126F}), 0x1.8p126F, 7, 7, 0, 0},
      {"at 2^126", block_of({0x1p126F, -0x1p126F}), 0x1p126F, 15, 0, 3, 11},
      {"NaN among finite", block_of({kNan, 2.0F}), 2.0F, 0, 15, 0, 3},
      {"all NaN", block_of({kNan, -kNan}, kNan), -largest, 0, 0, 0, 0},
      {"infinity", block_of({kInfinity, -3.0F}), kInfinity, 0, 7, 0, 0},
      {"negative infinity", block_of({-3.0F, -kInfinity}), kInfinity, 7, 0, 0, 0},
      {"tiny negative product", block_of({-0x1p-126F, 0x1p-1F}), 0.5F, 7, 15, 8, 3},
      {"subnormal product", block_of({-0x1p-126F, 2.0F}), 2.0F, 7, 15, 0, 3},
      {"subnormal operand", block_of({-0x1.8p-127F, 0x1p-126F}), 0x1p-126F, 7, 15, 0, 3},
      {"negative zero", block_of({-0.0F, -1.0F}), 1.0F, 7, 0, 0, 11},
  };
  for (const Special& special : cases) {
    SCOPED_TRACE(special.what);
    for (const QuantType type : kTypes) {
      QuantizationOptions options = one_scale_a_block();
      options.quant_type = type;
      options.blocksize = 32;
      const Weight4bit weight = quantize_floats(special.block, options);
      EXPECT_EQ(weight.absmax.at(0), special.absmax);
      EXPECT_EQ(code_at(weight, 0), type == QuantType::nf4 ? special.nf4_first : special.fp4_first);
      EXPECT_EQ(code_at(weight, 1), type == QuantType::nf4 ? special.nf4_second : special.fp4_second);
    }
  }
}

TEST(Quantize, NanInAPaddedBlockLeavesTheZerosOfThePadding) {
  const Weight4bit weight = quantize_floats(std::vector<float>(31, kNan), one_scale_a_block());
  EXPECT_EQ(weight.absmax.at(0), 0.0F);
}

TEST(Quantize, AModelsWeightIsFiniteAndAnyOtherIsRefused) {
  std::vector<float> values(200'000, 65'504.0F);  // the largest float16, in several pieces
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16}) {
    const auto quantized = [&] {
      return quantize_weight(from_floats(values, dtype, {4, 50'000}).view(), {}, "q_proj");
    };
    EXPECT_EQ(quantized().codes, quantize(from_floats(values, dtype, {4, 50'000}).view(), {}, "q_proj").codes);
    for (const float bad : {kNan, -kNan, kInfinity, -kInfinity}) {
      for (const std::size_t place : {std::size_t{0}, std::size_t{123'457}, values.size() - 1}) {
        const float good = std::exchange(values[place], bad);
        expect_bad_input({"q_proj", "finite"}, quantized);
        values[place] = good;
      }
    }
  }
}

TEST(Quantize, HalfPrecisionSubnormalsSurvive) {
  const Weight4bit weight = quantize_floats({0x1p-24F, -0x1p-24F}, one_scale_a_block(), DType::f16);
  EXPECT_EQ(weight.absmax.at(0), 0x1p-24F);
  EXPECT_EQ(weight.codes.at(0), 0xF0);
}

// The one pair of float16 values whose NF4 code hangs on the last bit of the reciprocal: the product with the rounded
// reciprocal is just above -0.6106329262256622; with the next lower reciprocal it would be below.
TEST(Quantize, TheSensitiveHalfPrecisionPair) {
  const float absmax = 1.9287109375F;
  const float x = -1.177734375F;
  const float rounded = 1.0F / absmax;
  ASSERT_EQ(oracle::nf4_code(oracle::product(x, rounded)), 1);
  ASSERT_EQ(oracle::nf4_code(oracle::product(x, std::nextafter(rounded, 0.0F))), 2);
  EXPECT_EQ(code_at(quantize_floats({x, absmax}, one_scale_a_block(), DType::f16, Reciprocal::ieee), 0), 1);
  const int expected = oracle::nf4_code(oracle::product(x, reciprocal(absmax, Reciprocal::gpu)));
  EXPECT_EQ(code_at(quantize_floats({x, absmax}, one_scale_a_block(), DType::f16, Reciprocal::gpu), 0), expected);
}

// Every pair of bfloat16 mantissas, the value up to 12 binary orders below absmax, both signs: how many codes depend
// on the reciprocal.
int bf16_codes_that_depend_on_the_reciprocal(QuantType type) {
  QuantizationOptions options = one_scale_a_block();
  options.quant_type = type;
  options.blocksize = 4096;
  int count = 0;
  for (int absmax = 128; absmax < 256; ++absmax) {
    std::vector<float> values{static_cast<float>(absmax)};
    for (int gap = 0; gap <= 12; ++gap) {
      for (int mantissa = 128; mantissa < (gap == 0 ? absmax + 1 : 256); ++mantissa) {
        values.push_back(std::ldexp(static_cast<float>(mantissa), -gap));
        values.push_back(-values.back());
      }
    }
    const Weight4bit a = quantize_floats(values, options, DType::bf16, Reciprocal::gpu);
    const Weight4bit b = quantize_floats(values, options, DType::bf16, Reciprocal::ieee);
    for (std::size_t i = 0; i < values.size(); ++i) count += code_at(a, i) != code_at(b, i) ? 1 : 0;
  }
  return count;
}

TEST(Quantize, ReciprocalNeverMattersForNf4OfBfloat16) {
  EXPECT_EQ(bf16_codes_that_depend_on_the_reciprocal(QuantType::nf4), 0);
}

TEST(Quantize, ReciprocalMattersForFp4OfBfloat16) {
  EXPECT_GT(bf16_codes_that_depend_on_the_reciprocal(QuantType::fp4), 0);
}

TEST(Quantize, SameBitsOnAnyNumberOfThreads) {
#ifdef _OPENMP
  std::mt19937_64 generator(11);
  const std::vector<float> values = test::random_values(test::Fill::normal, 1'000'003, generator);
  const QuantizationOptions options;  // double quantization included
  const int before = omp_get_max_threads();
  omp_set_num_threads(1);
  const Weight4bit expected = quantize_floats(values, options);
  for (const int threads : {2, 3, 7}) {
    omp_set_num_threads(threads);
    const Weight4bit weight = quantize_floats(values, options);
    EXPECT_EQ(weight.codes, expected.codes) << threads;
    EXPECT_EQ(weight.absmax_codes, expected.absmax_codes) << threads;
    EXPECT_EQ(weight.nested_absmax, expected.nested_absmax) << threads;
    EXPECT_EQ(weight.info.offset, expected.info.offset) << threads;
  }
  omp_set_num_threads(before);
#else
  GTEST_SKIP() << "built without OpenMP";
#endif
}

TEST(Quantize, InputOfAnyAlignmentAndRank) {
  std::mt19937_64 generator(12);
  const std::vector<float> values = test::random_values(test::Fill::normal, 1000, generator);
  const Tensor aligned = from_floats(values, DType::bf16, {1000});
  std::vector<std::byte> shifted(aligned.bytes().size() + 1);
  std::copy(aligned.bytes().begin(), aligned.bytes().end(), shifted.begin() + 1);
  const TensorView view{DType::bf16, {10, 5, 20}, std::span(shifted).subspan(1)};
  const Weight4bit weight = quantize(view, {}, "weight");
  EXPECT_EQ(weight.codes, quantize(aligned.view(), {}, "weight").codes);
  EXPECT_EQ(weight.info.shape, view.shape);
  EXPECT_EQ(weight.info.dtype, DType::bf16);
}

TEST(Quantize, BadInput) {
  const Tensor tensor(DType::bf16, {7, 2});
  for (const int blocksize : {-64, 0, 1, 16, 48, 63, 8192}) {
    QuantizationOptions options = one_scale_a_block();
    options.blocksize = blocksize;
    expect_bad_input({"layer.weight", fmt::format("size {} is", blocksize)},
                     [&] { quantize(tensor.view(), options, "layer.weight"); });
  }
  for (const DType dtype : {DType::bf16, DType::f16, DType::f32}) {
    QuantizationOptions options = one_scale_a_block();
    options.quant_storage = dtype;  // 14 elements take 7 bytes
    expect_bad_input({"layer.weight", std::string(torch_name(dtype))},
                     [&] { quantize(tensor.view(), options, "layer.weight"); });
  }
  for (const DType dtype : {DType::u8, DType::i32, DType::i64}) {
    expect_bad_input({"layer.weight", std::string(torch_name(dtype))},
                     [&] { quantize(Tensor(dtype, {64}).view(), {}, "layer.weight"); });
  }
  expect_bad_input({"layer.weight", "[3, 0]"}, [&] {
    quantize(Tensor(DType::f32, {3, 0}).view(), {}, "layer.weight");
  });
  TensorView truncated = tensor.view();
  truncated.bytes = truncated.bytes.first(27);
  expect_bad_input({"layer.weight", "27 bytes"}, [&] { quantize(truncated, {}, "layer.weight"); });
}

}  // namespace
}  // namespace qshard::reference
