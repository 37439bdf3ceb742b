#include <random>

#include "core/formats/safetensors.h"
#include "core/tensor/float16.h"
#include "correctness/differing_elements.h"
#include "correctness/expect_error.h"
#include "correctness/gpu/bitsandbytes_library.h"
#include "correctness/gpu/gpu_testing.h"
#include "correctness/gpu/literal_kernels.h"
#include "correctness/random_weights.h"
#include "optimized/dequantize.h"
#include "reference/dequantize.h"
#include "reference/quantize.h"

namespace qshard::test {
namespace {

constexpr DType kDTypes[] = {DType::f32, DType::bf16, DType::f16};

class DequantizeGpu : public GpuTest {};

void expect_like_reference(const Weight4bitView& weight) {
  const DeviceWeight on_device(weight);
  const std::int64_t count = element_count(weight.info->shape);
  for (const DType dtype : kDTypes) {
    constexpr std::size_t kBehind = 64;
    const std::size_t bytes = count * size_of(dtype);
    const DeviceBuffer out(bytes + kBehind);
    optimized::dequantize(on_device.view(), dtype, out.as<void>(), nullptr);
    const auto found = out.download<std::byte>();
    const Tensor expected = reference::dequantize(weight, dtype);
    const TensorView rebuilt{dtype, {count}, std::span(found).first(bytes)};
    EXPECT_EQ(differing_elements(rebuilt, expected.view()), 0U) << torch_name(dtype);
    for (std::size_t i = bytes; i < found.size(); ++i) EXPECT_EQ(found[i], std::byte{DeviceBuffer::kPoison});
  }
}

TEST_F(DequantizeGpu, RandomWeightsLikeTheReference) {
  std::mt19937_64 generator(21);
  for (const int blocksize : {32, 64, 128, 256, 512, 1024, 2048, 4096}) {
    for (const std::int64_t count : {1, 7, blocksize - 1, blocksize + 3, 8192, 3 * 8192 + 4096 + 17}) {
      for (const Fill fill : kFills) {
        for (const QuantType type : {QuantType::nf4, QuantType::fp4}) {
          for (const bool nested : {false, true}) {
            SCOPED_TRACE(fmt::format("{} n {} blocksize {} fill {} nested {}", to_string(type), count, blocksize,
                                     static_cast<int>(fill), nested));
            QuantizationOptions options;
            options.quant_type = type;
            options.blocksize = blocksize;
            options.double_quant = nested;
            const Tensor tensor = from_floats(random_values(fill, count, generator), DType::f32, {count});
            expect_like_reference(reference::quantize(tensor.view(), options, "weight").view());
            if (HasFailure()) return;
          }
        }
      }
    }
  }
}

// Each 16-bit pattern as absmax, all sixteen codes twice in every block.
void check_every_scale(float (*value_of)(std::uint16_t)) {
  Weight4bit weight;
  weight.info.blocksize = 32;
  weight.info.shape = {65536, 32};
  for (std::uint32_t pattern = 0; pattern < 65536; ++pattern) {
    weight.absmax.push_back(value_of(static_cast<std::uint16_t>(pattern)));
    for (const int byte :
         {0x01, 0x23, 0x45, 0x67, 0x89, 0xAB, 0xCD, 0xEF, 0xFE, 0xDC, 0xBA, 0x98, 0x76, 0x54, 0x32, 0x10}) {
      weight.codes.push_back(static_cast<std::uint8_t>(byte));
    }
  }
  for (const QuantType type : {QuantType::nf4, QuantType::fp4}) {
    weight.info.quant_type = type;
    expect_like_reference(weight.view());
  }
}

TEST_F(DequantizeGpu, EveryBfloat16ScaleAndCode) {
  check_every_scale([](std::uint16_t bits) { return to_float(bfloat16{bits}); });
}

TEST_F(DequantizeGpu, EveryFloat16ScaleAndCode) {
  check_every_scale([](std::uint16_t bits) { return to_float(float16{bits}); });
}

TEST_F(DequantizeGpu, LikeBitsandbytes) {
  const BitsandbytesLibrary bitsandbytes;
  if (!bitsandbytes.found()) GTEST_SKIP() << "not run: " << bitsandbytes.why();
  std::mt19937_64 generator(22);
  for (const int blocksize : {32, 64, 128, 256, 512, 1024, 2048, 4096}) {
    for (const QuantType type : {QuantType::nf4, QuantType::fp4}) {
      const int count = (1 << 18) + 33;
      QuantizationOptions options;
      options.double_quant = false;
      options.quant_type = type;
      options.blocksize = blocksize;
      const Tensor tensor = from_floats(random_values(Fill::heavy_tailed, count, generator), DType::f32, {count});
      Weight4bit weight = reference::quantize(tensor.view(), options, "weight");
      weight.absmax.resize(weight.absmax.size() + 64);  // bitsandbytes reads past the end
      const DeviceBuffer absmax(weight.absmax);
      weight.absmax.resize(weight.absmax.size() - 64);
      const DeviceWeight on_device(weight.view());
      for (const DType dtype : kDTypes) {
        const DeviceBuffer found(count * size_of(dtype));
        const DeviceBuffer expected(count * size_of(dtype));
        optimized::dequantize(on_device.view(), dtype, found.as<void>(), nullptr);
        bitsandbytes.dequantize(on_device.view().codes, absmax.as<float>(), dtype, count, type, blocksize,
                                expected.as<void>());
        EXPECT_EQ(differing(found.download<std::byte>(), expected.download<std::byte>()), 0U)
            << to_string(type) << ' ' << blocksize << ' ' << torch_name(dtype);
      }
    }
  }
}

TEST_F(DequantizeGpu, MoreThanTwoToThe31ElementsNested) {
  const std::int64_t count = (std::int64_t{1} << 31) + std::int64_t{5} * 8192 + 19;
  const std::int64_t blocks = block_count(count, 64);
  const DeviceBuffer codes(packed_bytes(count));
  const DeviceBuffer absmax_codes(blocks);
  fill_normal(DType::f32, packed_bytes(count) / 4, 5, 1.0F, codes.as<void>());  // any bytes do
  fill_normal(DType::f32, blocks / 4, 6, 1.0F, absmax_codes.as<void>());
  const DeviceBuffer nested_absmax(std::vector<float>(block_count(blocks, kNestedBlocksize), 0.01F));
  const DeviceBuffer map{std::span<const float>(dynamic_map())};
  const DeviceBuffer offset(std::vector<float>{0.05F});
  const DeviceBuffer absmax(blocks * sizeof(float));
  decode_absmax(absmax_codes.as<std::uint8_t>(), nested_absmax.as<float>(), map.as<float>(), offset.as<float>(), blocks,
                absmax.as<float>());
  const DeviceBuffer out(count * sizeof(bfloat16));
  const optimized::DeviceWeight4bit weight{QuantType::nf4,
                                           64,
                                           count,
                                           codes.as<std::uint8_t>(),
                                           nullptr,
                                           absmax_codes.as<std::uint8_t>(),
                                           nested_absmax.as<float>(),
                                           map.as<float>(),
                                           offset.as<float>()};
  optimized::dequantize(weight, DType::bf16, out.as<void>(), nullptr);
  EXPECT_EQ(wrong_values(codes.as<std::uint8_t>(), absmax.as<float>(), count, QuantType::nf4, 64, DType::bf16,
                         out.as<void>()),
            0U);
}

TEST_F(DequantizeGpu, RefusesBadInput) {
  const DeviceBuffer memory(4096);
  optimized::DeviceWeight4bit weight{QuantType::nf4, 64, 64, memory.as<std::uint8_t>(), memory.as<float>()};
  const auto call = [&](DType dtype = DType::bf16, std::size_t shift = 0) {
    optimized::dequantize(weight, dtype, memory.as<void>(shift), nullptr);
  };
  expect_bad_input({"uint8"}, [&] { call(DType::u8); });
  expect_bad_input({"not aligned to 16"}, [&] { call(DType::bf16, 2); });
  weight.blocksize = 100;
  expect_bad_input({"block size 100"}, [&] { call(); });
  weight.blocksize = 64;
  weight.elements = -1;
  expect_bad_input({"number of elements"}, [&] { call(); });
  weight.elements = 64;
  weight.codes += 1;
  expect_bad_input({"not aligned to 16"}, [&] { call(); });
  weight.codes -= 1;
  weight.absmax = nullptr;
  expect_bad_input({"neither absmax nor nested"}, [&] { call(); });
}

}  // namespace
}  // namespace qshard::test
