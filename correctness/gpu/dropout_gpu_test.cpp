#include "correctness/expect_error.h"
#include "correctness/gpu/matrix_gpu_testing.h"
#include "optimized/dropout.h"
#include "reference/dropout.h"

namespace qshard::test {
namespace {

class DropoutGpu : public GpuTest {};

TokenBatch batch_of_rows(std::uint64_t seed) {
  TokenBatch batch = random_batch({1, 40, 0, 17, 3}, 10, seed);
  batch.row_ids = {0, 7, 1ULL << 32, 0xFFFFFFFFULL, (5ULL << 32) + 3};  // keyed by their lower half
  return batch;
}

struct Case {
  std::int64_t features, x_padding, out_padding, first;
};

void compare(const optimized::DropoutMask& mask, const TokenBatch& batch, const Case& c, DType dtype,
             std::uint64_t seed) {
  SCOPED_TRACE(fmt::format("{} features {} padding {} {} first {} probability {}", torch_name(dtype), c.features,
                           c.x_padding, c.out_padding, c.first, mask.probability));
  const DeviceRows rows(batch);
  const Matrix<float> values = random_rounded(batch.tokens(), c.features, dtype, seed);
  Matrix<float> expected = values;
  reference::dropout({mask.seed, mask.step, mask.layer, mask.projection}, mask.probability, batch, dtype, expected);

  const DeviceMatrix x(values, dtype, c.features + c.x_padding, c.first);
  const DeviceMatrix out(batch.tokens(), c.features, dtype, c.features + c.out_padding, c.first);
  optimized::dropout(mask, rows.view(), c.features, dtype, x.data(), x.stride(), out.data(), out.stride(), nullptr);
  expect_bits(expected, out.values(), "dropout");
  expect_bits(values, x.values(), "x");
  optimized::dropout(mask, rows.view(), c.features, dtype, x.data(), x.stride(), x.data(), x.stride(), nullptr);
  expect_bits(expected, x.values(), "in place");
}

TEST_F(DropoutGpu, EqualsTheReferenceToTheBit) {
  const TokenBatch batch = batch_of_rows(1);
  const optimized::DropoutMask place{0x123456789abcdef0, (1ULL << 32) + 7, 3, 5, 0.1};
  std::uint64_t seed = 10;
  for (const DType dtype : kFloatingDTypes) {
    for (const Case& c : {Case{8192, 0, 0, 0}, Case{4096, 64, 0, 0}, Case{64, 0, 8, 8}, Case{33, 0, 0, 0},
                          Case{1, 2, 3, 1}, Case{1024, 1, 0, 0}, Case{66, 0, 0, 0}, Case{8, 0, 0, 3}}) {
      compare(place, batch, c, dtype, ++seed);
    }
  }
}

TEST_F(DropoutGpu, EveryPartOfThePlaceAndEveryProbability) {
  const TokenBatch batch = batch_of_rows(2);
  std::vector<optimized::DropoutMask> masks(6, {0xFEDCBA9876543210, 11, 4095, 15, 0.1});
  masks[1].seed ^= 1ULL << 63;
  masks[2].step = 0xFFFFFFFF;
  masks[3].layer = 0;
  masks[4].projection = 0;
  masks[5].seed = 0;
  for (const double probability : {0.0, 0.05, 0.5, 0.999, 1 - 0x1p-53, 0x1p-33}) {
    masks.push_back(masks[0]);
    masks.back().probability = probability;
  }
  std::uint64_t seed = 50;
  for (const optimized::DropoutMask& mask : masks) {
    for (const DType dtype : kFloatingDTypes) compare(mask, batch, {256, 0, 0, 0}, dtype, ++seed);
  }
}

TEST_F(DropoutGpu, LargestNumberOfFeatures) {
  const TokenBatch batch = random_batch({2}, 10, 3);
  compare({1, 2, 3, 4, 0.25}, batch, {1 << 18, 0, 0, 0}, DType::bf16, 4);
}

TEST_F(DropoutGpu, RefusesBadInput) {
  const DeviceRows rows(random_batch({2}, 10, 5));
  const DeviceMatrix x(2, 8, DType::bf16, 8);
  const auto call = [&](const optimized::DropoutMask& mask, std::int64_t features, DType dtype, std::int64_t stride,
                        void* data) {
    optimized::dropout(mask, rows.view(), features, dtype, data, stride, data, stride, nullptr);
  };
  for (const double probability : {-0.1, 1.0, std::nan("")}) {
    expect_bad_input({"lora_dropout"}, [&] { call({0, 0, 0, 0, probability}, 8, DType::bf16, 8, x.data()); });
  }
  expect_bad_input({"4096"}, [&] { call({0, 0, 4096, 0, 0.1}, 8, DType::bf16, 8, x.data()); });
  expect_bad_input({"16"}, [&] { call({0, 0, 0, 16, 0.1}, 8, DType::bf16, 8, x.data()); });
  expect_bad_input({"262145"}, [&] { call({}, 262145, DType::bf16, 262145, x.data()); });
  expect_bad_input({"features"}, [&] { call({}, 0, DType::bf16, 8, x.data()); });
  expect_bad_input({"stride"}, [&] { call({}, 8, DType::bf16, 7, x.data()); });
  expect_bad_input({"int64"}, [&] { call({}, 8, DType::i64, 8, x.data()); });
  expect_bad_input({"null"}, [&] { call({}, 8, DType::bf16, 8, nullptr); });
}

}  // namespace
}  // namespace qshard::test
