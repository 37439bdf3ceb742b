#include <random>

#include "core/base/error.h"
#include "core/formats/safetensors.h"
#include "core/tensor/float16.h"
#include "correctness/expect_error.h"
#include "correctness/golden_cases.h"
#include "correctness/gpu/bitsandbytes_library.h"
#include "correctness/gpu/gpu_testing.h"
#include "correctness/gpu/literal_kernels.h"
#include "correctness/random_weights.h"
#include "optimized/quantize.h"
#include "reference/quantize.h"

namespace qshard::test {
namespace {

constexpr int kBlocksizes[] = {32, 64, 128, 256, 512, 1024, 2048, 4096};
constexpr QuantType kTypes[] = {QuantType::nf4, QuantType::fp4};
constexpr DType kDTypes[] = {DType::f32, DType::bf16, DType::f16};

class QuantizeGpu : public GpuTest {};

struct Quantized {
  std::vector<std::uint8_t> codes;
  std::vector<float> absmax;
};

// Quantizes into poisoned memory with room behind it, which must stay untouched.
Quantized quantize_on_gpu(const DeviceBuffer& weight, DType dtype, std::int64_t elements, QuantType type,
                          int blocksize) {
  constexpr std::size_t kBehind = 64;
  const std::size_t code_bytes = packed_bytes(elements);
  const std::size_t blocks = block_count(elements, blocksize);
  const DeviceBuffer codes(code_bytes + kBehind);
  const DeviceBuffer absmax((blocks + kBehind) * sizeof(float));
  optimized::quantize(weight.as<void>(), dtype, elements, type, blocksize, codes.as<std::uint8_t>(), absmax.as<float>(),
                      nullptr);
  Quantized result{codes.download<std::uint8_t>(), absmax.download<float>()};
  for (std::size_t i = code_bytes; i < result.codes.size(); ++i) EXPECT_EQ(result.codes[i], DeviceBuffer::kPoison);
  for (std::size_t i = blocks; i < result.absmax.size(); ++i) {
    EXPECT_EQ(std::bit_cast<std::uint32_t>(result.absmax[i]), 0xA5A5A5A5U);
  }
  result.codes.resize(code_bytes);
  result.absmax.resize(blocks);
  return result;
}

void expect_like_reference(const TensorView& weight, QuantType type, int blocksize) {
  QuantizationOptions options;
  options.double_quant = false;
  options.quant_type = type;
  options.blocksize = blocksize;
  const Weight4bit expected = reference::quantize(weight, options, "weight");
  const DeviceBuffer input(weight.bytes);
  const Quantized found = quantize_on_gpu(input, weight.dtype, element_count(weight.shape), type, blocksize);
  EXPECT_EQ(differing(found.codes, expected.codes), 0U);
  EXPECT_EQ(differing(found.absmax, expected.absmax), 0U);
  const auto after = input.download<std::byte>();
  EXPECT_TRUE(std::ranges::equal(after, weight.bytes)) << "the input changed";
}

TEST_F(QuantizeGpu, GoldenCasesOfBitsandbytes) {
  const Json cases = read_golden_cases().at("cases");
  const SafetensorsFile file = SafetensorsFile::open(golden_directory() + "/quant_cases.safetensors");
  for (const Json& golden : cases) {
    SCOPED_TRACE(golden.dump());
    const auto name = golden.at("name").get<std::string>();
    const TensorView input = file.tensor(name + ".input");
    const DeviceBuffer weight(input.bytes);
    const Quantized found =
        quantize_on_gpu(weight, input.dtype, element_count(input.shape),
                        parse_quant_type(golden.at("quant_type").get<std::string>(), name), golden.at("blocksize"));
    EXPECT_TRUE(std::ranges::equal(std::as_bytes(std::span(found.codes)), file.tensor(name + ".packed").bytes));
    if (!golden.at("double_quant").get<bool>()) {
      EXPECT_TRUE(std::ranges::equal(std::as_bytes(std::span(found.absmax)), file.tensor(name + ".absmax").bytes));
    }
  }
}

TEST_F(QuantizeGpu, RandomWeightsLikeTheReference) {
  std::mt19937_64 generator(20240701);
  for (const int blocksize : kBlocksizes) {
    for (const std::int64_t count :
         {blocksize - 1, blocksize + 1, 8192 + blocksize, 3 * 8192 + 17, 3 * 8192 + 2833, 65536}) {
      for (const Fill fill : kFills) {
        const std::vector<float> values = random_values(fill, count, generator);
        for (const DType dtype : kDTypes) {
          const Tensor weight = from_floats(values, dtype, {count});
          for (const QuantType type : kTypes) {
            SCOPED_TRACE(fmt::format("{} {} n {} blocksize {} fill {}", to_string(type), torch_name(dtype), count,
                                     blocksize, static_cast<int>(fill)));
            expect_like_reference(weight.view(), type, blocksize);
            if (HasFailure()) return;
          }
        }
      }
    }
  }
}

TEST_F(QuantizeGpu, ShortTails) {
  std::mt19937_64 generator(7);
  for (std::int64_t count = 1; count <= 70; ++count) {
    SCOPED_TRACE(count);
    const std::vector<float> values = random_values(Fill::normal, count, generator);
    for (const DType dtype : kDTypes) expect_like_reference(from_floats(values, dtype, {count}).view(), kTypes[0], 32);
  }
}

TEST_F(QuantizeGpu, RandomWeightsLikeBitsandbytes) {
  const BitsandbytesLibrary bitsandbytes;
  if (!bitsandbytes.found()) GTEST_SKIP() << "not run: " << bitsandbytes.why();
  std::mt19937_64 generator(20240702);
  for (const int blocksize : kBlocksizes) {
    for (const int count : {3 * blocksize - 5, 1 << 20}) {
      for (const Fill fill : kFills) {
        const std::vector<float> values = random_values(fill, count, generator);
        for (const DType dtype : kDTypes) {
          const Tensor tensor = from_floats(values, dtype, {count});
          const DeviceBuffer weight(std::span(tensor.bytes()));
          for (const QuantType type : kTypes) {
            SCOPED_TRACE(fmt::format("{} {} n {} blocksize {} fill {}", to_string(type), torch_name(dtype), count,
                                     blocksize, static_cast<int>(fill)));
            const DeviceBuffer codes(packed_bytes(count));
            const DeviceBuffer absmax((block_count(count, blocksize) + 64) * sizeof(float));
            bitsandbytes.quantize(weight.as<void>(), dtype, count, type, blocksize, codes.as<std::uint8_t>(),
                                  absmax.as<float>());
            std::vector<float> expected = absmax.download<float>();
            expected.resize(block_count(count, blocksize));
            const Quantized found = quantize_on_gpu(weight, dtype, count, type, blocksize);
            ASSERT_EQ(differing(found.codes, codes.download<std::uint8_t>()), 0U);
            ASSERT_EQ(differing(found.absmax, expected), 0U);
          }
        }
      }
    }
  }
}

TEST_F(QuantizeGpu, MoreThanTwoToThe31Elements) {
  const std::int64_t count = (std::int64_t{1} << 31) + std::int64_t{3} * 8192 + 17;
  const DeviceBuffer weight(count * sizeof(bfloat16));
  const DeviceBuffer codes(packed_bytes(count));
  const DeviceBuffer absmax(block_count(count, 64) * sizeof(float));
  fill_normal(DType::bf16, count, 3, 0.02F, weight.as<void>());
  optimized::quantize(weight.as<void>(), DType::bf16, count, QuantType::nf4, 64, codes.as<std::uint8_t>(),
                      absmax.as<float>(), nullptr);
  EXPECT_EQ(wrong_codes(weight.as<void>(), DType::bf16, count, QuantType::nf4, 64, codes.as<std::uint8_t>(),
                        absmax.as<float>()),
            0U);
}

TEST_F(QuantizeGpu, SeveralStreamsAtOnce) {
  constexpr std::int64_t kCount = 1 << 22;
  on_streams(4, [](int s, cudaStream_t stream) {
    const DeviceBuffer weight(kCount * sizeof(bfloat16));
    const DeviceBuffer codes(kCount / 2);
    const DeviceBuffer absmax(kCount / 64 * sizeof(float));
    fill_normal(DType::bf16, kCount, 100 + s, 1.0F, weight.as<void>());
    for (int repeat = 0; repeat < 5; ++repeat) {
      QSHARD_CUDA_CHECK(cudaMemsetAsync(codes.as<void>(), 0xA5, codes.bytes(), stream));
      optimized::quantize(weight.as<void>(), DType::bf16, kCount, QuantType::nf4, 64, codes.as<std::uint8_t>(),
                          absmax.as<float>(), stream);
      QSHARD_CUDA_CHECK(cudaStreamSynchronize(stream));
      EXPECT_EQ(wrong_codes(weight.as<void>(), DType::bf16, kCount, QuantType::nf4, 64, codes.as<std::uint8_t>(),
                            absmax.as<float>()),
                0U);
    }
  });
}

TEST_F(QuantizeGpu, RefusesBadInput) {
  const DeviceBuffer weight(1024);
  const DeviceBuffer codes(1024);
  const DeviceBuffer absmax(1024);
  const auto call = [&](void* w, DType dtype, std::int64_t n, int blocksize, std::uint8_t* c, float* a) {
    optimized::quantize(w, dtype, n, QuantType::nf4, blocksize, c, a, nullptr);
  };
  auto* c = codes.as<std::uint8_t>();
  auto* a = absmax.as<float>();
  expect_bad_input({"null"}, [&] { call(nullptr, DType::bf16, 64, 64, c, a); });
  expect_bad_input({"not aligned to 16"}, [&] { call(weight.as<void>(2), DType::bf16, 64, 64, c, a); });
  expect_bad_input({"not aligned to 4"}, [&] { call(weight.as<void>(), DType::bf16, 64, 64, c + 1, a); });
  expect_bad_input({"null"}, [&] { call(weight.as<void>(), DType::bf16, 64, 64, c, nullptr); });
  expect_bad_input({"int64"}, [&] { call(weight.as<void>(), DType::i64, 64, 64, c, a); });
  expect_bad_input({"number of elements"}, [&] { call(weight.as<void>(), DType::bf16, 0, 64, c, a); });
  expect_bad_input({"block size 16"}, [&] { call(weight.as<void>(), DType::bf16, 64, 16, c, a); });
  expect_bad_input({"block size 96"}, [&] { call(weight.as<void>(), DType::bf16, 64, 96, c, a); });
}

}  // namespace
}  // namespace qshard::test
