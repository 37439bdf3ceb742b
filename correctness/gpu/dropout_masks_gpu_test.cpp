#include "correctness/expect_error.h"
#include "correctness/gpu/matrix_gpu_testing.h"
#include "optimized/dropout_masks.h"
#include "reference/dropout.h"

namespace qshard::test {
namespace {

class DropoutMasksGpu : public GpuTest {};

/// The bits of the reference's mask: what it leaves of ones.
std::vector<std::uint8_t> expected_bits(const optimized::DropoutMask& mask, const TokenBatch& batch,
                                        std::int64_t features) {
  Matrix<float> ones = Matrix<float>::Ones(batch.tokens(), features);
  reference::dropout({mask.seed, mask.step, mask.layer, mask.projection}, mask.probability, batch, DType::f32, ones);
  const std::int64_t stride = optimized::dropout_mask_stride(features);
  std::vector<std::uint8_t> bits(batch.tokens() * stride, 0);
  for (Eigen::Index token = 0; token < ones.rows(); ++token) {
    for (Eigen::Index feature = 0; feature < features; ++feature) {
      if (ones(token, feature) != 0) bits[token * stride + feature / 8] |= 1 << feature % 8;
    }
  }
  return bits;
}

void compare(optimized::DropoutMask mask, const TokenBatch& batch, const std::vector<std::int64_t>& features) {
  const DeviceRows rows(batch);
  std::vector<std::unique_ptr<DeviceBuffer>> memory;
  std::vector<optimized::DropoutMaskBits> masks;
  for (const std::int64_t count : features) {
    memory.push_back(std::make_unique<DeviceBuffer>(batch.tokens() * optimized::dropout_mask_stride(count)));
    masks.push_back({static_cast<std::uint32_t>(15 - masks.size()), count, memory.back()->as<std::uint8_t>()});
  }
  optimized::dropout_masks(mask, rows.view(), masks, nullptr);
  for (std::size_t i = 0; i < masks.size(); ++i) {
    SCOPED_TRACE(fmt::format("mask {} of {} features", i, features[i]));
    mask.projection = masks[i].projection;
    EXPECT_EQ(differing(expected_bits(mask, batch, features[i]), memory[i]->download<std::uint8_t>()), 0U);
  }
}

TEST_F(DropoutMasksGpu, BitsAreTheReferences) {
  TokenBatch batch = random_batch({1, 40, 0, 17, 3}, 10, 1);
  batch.row_ids = {0, 7, 1ULL << 32, 0xFFFFFFFFULL, (5ULL << 32) + 3};  // keyed by their lower half
  compare({0x123456789ABCDEF0, (1ULL << 32) + 7, 3, 0, 0.1}, batch, {8192, 1024, 8193, 1, 127, 128, 28672});
  compare({1, 2, 4095, 0, 0.999}, batch, {33});
  compare({~0ULL, ~0ULL, 0, 0, 0x1p-33}, batch, {640, 64});
}

TEST_F(DropoutMasksGpu, RefusesBadInput) {
  const DeviceRows rows(random_batch({2}, 10, 5));
  const DeviceBuffer memory(64);
  const auto call = [&](const optimized::DropoutMask& mask, const optimized::DropoutMaskBits& bits, std::size_t count) {
    optimized::dropout_masks(mask, rows.view(), std::vector<optimized::DropoutMaskBits>(count, bits), nullptr);
  };
  const optimized::DropoutMask mask{1, 2, 3, 0, 0.1};
  std::uint8_t* const bits = memory.as<std::uint8_t>();
  expect_bad_input({"lora_dropout"}, [&] { call({1, 2, 3, 0, 1.0}, {0, 8, bits}, 1); });
  expect_bad_input({"needs no mask"}, [&] { call({1, 2, 3, 0, 0.0}, {0, 8, bits}, 1); });
  expect_bad_input({"projection 16"}, [&] { call(mask, {16, 8, bits}, 1); });
  expect_bad_input({"features"}, [&] { call(mask, {0, 0, bits}, 1); });
  expect_bad_input({"null"}, [&] { call(mask, {0, 8, nullptr}, 1); });
  expect_bad_input({"8"}, [&] { call(mask, {0, 8, bits}, 8); });
}

}  // namespace
}  // namespace qshard::test
