// Every float32, and every pair of a 16-bit value and a 16-bit absmax, against the literal procedure on the GPU;
// samples of the same sweep against the CPU reference.

#include <bit>

#include "core/tensor/float16.h"
#include "correctness/gpu/bitsandbytes_library.h"
#include "correctness/gpu/gpu_testing.h"
#include "correctness/gpu/literal_kernels.h"
#include "optimized/quantize.h"
#include "reference/quantize.h"

namespace qshard::test {
namespace {

constexpr QuantType kTypes[] = {QuantType::nf4, QuantType::fp4};

class QuantizeExhaustiveGpu : public GpuTest {};

/// A sweep on the device: each block is an anchor and consecutive patterns, so that the anchor is the absmax of the
/// patterns up to it.
class Sweep {
 public:
  Sweep(DType dtype, std::int64_t blocks, int blocksize)
      : dtype_(dtype),
        blocksize_(blocksize),
        elements_(blocks * blocksize),
        weight_(elements_ * size_of(dtype)),
        codes_(elements_ / 2),
        absmax_(blocks * sizeof(float)) {}

  void check(const std::vector<std::uint32_t>& anchors, const std::vector<std::uint32_t>& first_patterns) {
    const DeviceBuffer device_anchors(anchors);
    const DeviceBuffer device_patterns(first_patterns);
    const auto blocks = std::ssize(anchors);
    fill_sweep(dtype_, blocks, blocksize_, device_anchors.as<std::uint32_t>(), device_patterns.as<std::uint32_t>(),
               weight_.as<void>());
    for (const QuantType type : kTypes) {
      codes_.poison();
      optimized::quantize(weight_.as<void>(), dtype_, blocks * blocksize_, type, blocksize_, codes_.as<std::uint8_t>(),
                          absmax_.as<float>(), nullptr);
      ASSERT_EQ(wrong_codes(weight_.as<void>(), dtype_, blocks * blocksize_, type, blocksize_,
                            codes_.as<std::uint8_t>(), absmax_.as<float>()),
                0U)
          << to_string(type) << " anchor " << anchors.front() << " pattern " << first_patterns.front();
    }
  }

  /// The last check()'s FP4 codes against bitsandbytes' own kernel.
  void check_bitsandbytes(const BitsandbytesLibrary& bitsandbytes) const {
    const auto blocks = elements_ / blocksize_;
    const DeviceBuffer codes(elements_ / 2);
    const DeviceBuffer absmax((blocks + 64) * sizeof(float));
    bitsandbytes.quantize(weight_.as<void>(), dtype_, static_cast<int>(elements_), QuantType::fp4, blocksize_,
                          codes.as<std::uint8_t>(), absmax.as<float>());
    EXPECT_EQ(differing(codes_.download<std::uint8_t>(), codes.download<std::uint8_t>()), 0U);
  }

  /// The last check()'s FP4 codes of its first `count` elements against the CPU reference.
  void sample(std::int64_t count) {
    std::vector<std::byte> bytes(count * size_of(dtype_));
    QSHARD_CUDA_CHECK(cudaMemcpy(bytes.data(), weight_.as<void>(), bytes.size(), cudaMemcpyDeviceToHost));
    std::vector<std::uint8_t> codes(count / 2);
    QSHARD_CUDA_CHECK(cudaMemcpy(codes.data(), codes_.as<void>(), codes.size(), cudaMemcpyDeviceToHost));
    QuantizationOptions options;
    options.double_quant = false;
    options.quant_type = QuantType::fp4;
    options.blocksize = blocksize_;
    const Weight4bit expected = reference::quantize({dtype_, {count}, bytes}, options, "sample");
    EXPECT_EQ(differing(codes, expected.codes), 0U);
  }

 private:
  DType dtype_;
  int blocksize_;
  std::int64_t elements_;
  DeviceBuffer weight_, codes_, absmax_;
};

TEST_F(QuantizeExhaustiveGpu, EveryFloatUnderSeveralAbsmax) {
  constexpr int kBlocksize = 64;
  constexpr std::uint64_t kPatterns = std::uint64_t{1} << 32;
  constexpr std::int64_t kBlocks = 1 << 20;
  Sweep sweep(DType::f32, kBlocks, kBlocksize);
  // 1; the mantissas of 1.5 and 1.9287109375, sensitive to the reciprocal; a tiny one; the edges of its range;
  // infinity.
  for (const float anchor : {1.0F, 1.5F, 1.9287109375F, 3.1e-5F, 1.5e-38F, 8.6e37F, 3.0e38F}) {
    std::uint64_t pattern = 0;
    while (pattern < kPatterns) {
      std::vector<std::uint32_t> first_patterns;
      for (; pattern < kPatterns && std::ssize(first_patterns) < kBlocks; pattern += kBlocksize - 1) {
        first_patterns.push_back(static_cast<std::uint32_t>(pattern));
      }
      sweep.check(std::vector<std::uint32_t>(first_patterns.size(), std::bit_cast<std::uint32_t>(anchor)),
                  first_patterns);
      if (HasFailure()) return;
    }
    sweep.sample(1 << 18);
  }
}

// All magnitudes up to the anchor with both signs, for every positive anchor: 2^31 pairs and more.
void check_every_pair(DType dtype) {
  constexpr int kBlocksize = 128;
  constexpr std::int64_t kBlocks = 1 << 20;
  Sweep sweep(dtype, kBlocks, kBlocksize);
  std::vector<std::uint32_t> anchors;
  std::vector<std::uint32_t> first_patterns;
  const BitsandbytesLibrary bitsandbytes;
  const auto flush = [&] {
    sweep.check(anchors, first_patterns);
    if (bitsandbytes.found() && std::ssize(anchors) == kBlocks) sweep.check_bitsandbytes(bitsandbytes);
    anchors.clear();
    first_patterns.clear();
  };
  for (std::uint32_t anchor = 0; anchor < 0x8000; ++anchor) {
    for (std::uint32_t sign : {0U, 0x8000U}) {
      for (std::uint32_t pattern = 0; pattern <= anchor; pattern += kBlocksize - 1) {
        anchors.push_back(anchor);
        first_patterns.push_back(sign | pattern);
        if (std::ssize(anchors) == kBlocks) flush();
        if (testing::Test::HasFailure()) return;
      }
    }
  }
  flush();
  sweep.sample(1 << 18);
}

TEST_F(QuantizeExhaustiveGpu, EveryPairOfBfloat16) {
  check_every_pair(DType::bf16);
}

TEST_F(QuantizeExhaustiveGpu, EveryPairOfFloat16) {
  check_every_pair(DType::f16);
}

}  // namespace
}  // namespace qshard::test
