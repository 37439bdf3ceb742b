#include "correctness/expect_error.h"
#include "correctness/gpu/matrix_gpu_testing.h"
#include "optimized/rope.h"
#include "reference/rope.h"

namespace qshard::test {
namespace {

class RopeGpu : public GpuTest {};

reference::RopeTable<float> random_table(std::int64_t positions, std::int64_t half, DType dtype, std::uint64_t seed) {
  Matrix<float> angles = 10 * random_matrix<float>(positions, half, seed);
  reference::RopeTable<float> table;
  table.cos = angles.array().cos().matrix();
  table.sin = angles.array().sin().matrix();
  reference::round_to(dtype, table.cos);
  reference::round_to(dtype, table.sin);
  return table;
}

DeviceBuffer upload(const Matrix<float>& values) {
  return DeviceBuffer(std::span<const float>(values.data(), static_cast<std::size_t>(values.size())));
}

struct Shape {
  std::int64_t heads, head_dim, padding, first;
};

void compare(const TokenBatch& batch, const Shape& s, DType dtype, std::uint64_t seed) {
  SCOPED_TRACE(fmt::format("{} heads {} head_dim {} padding {} first {}", torch_name(dtype), s.heads, s.head_dim,
                           s.padding, s.first));
  const reference::RopeTable<float> table = random_table(64, s.head_dim / 2, dtype, seed);
  const DeviceBuffer cos = upload(table.cos);
  const DeviceBuffer sin = upload(table.sin);
  const DeviceRows rows(batch);
  const Matrix<float> x = random_rounded(batch.tokens(), s.heads * s.head_dim, dtype, seed + 1);
  const optimized::RopeShape shape{batch.tokens(), s.heads, s.head_dim, s.heads * s.head_dim + s.padding, dtype};

  Matrix<float> expected = x;
  reference::rope_forward(batch, table, dtype, expected);
  const DeviceMatrix forward(x, dtype, shape.stride, s.first);
  optimized::rope_forward(shape, rows.view().positions, cos.as<float>(), sin.as<float>(), forward.data(), nullptr);
  expect_bits(expected, forward.values(), "forward");

  expected = x;
  reference::rope_backward(batch, table, dtype, expected);
  const DeviceMatrix backward(x, dtype, shape.stride, s.first);
  optimized::rope_backward(shape, rows.view().positions, cos.as<float>(), sin.as<float>(), backward.data(), nullptr);
  expect_bits(expected, backward.values(), "backward");
}

TEST_F(RopeGpu, EqualsTheReferenceToTheBit) {
  const TokenBatch batch = random_batch({1, 64, 33, 2}, 10, 1);
  std::uint64_t seed = 100;
  for (const DType dtype : kFloatingDTypes) {
    for (const Shape& shape : {Shape{64, 128, 0, 0}, Shape{8, 128, 2048, 0}, Shape{3, 16, 8, 8}, Shape{5, 64, 1, 0},
                               Shape{1, 2, 0, 0}, Shape{7, 10, 3, 1}, Shape{9, 80, 0, 0}, Shape{4, 128, 0, 1}}) {
      compare(batch, shape, dtype, seed += 2);
    }
  }
}

TEST_F(RopeGpu, RefusesBadInput) {
  const DeviceMatrix x(2, 8, DType::bf16, 8);
  const DeviceBuffer table(64);
  const DeviceBuffer positions(std::vector<std::int32_t>{0, 1});
  const auto call = [&](const optimized::RopeShape& shape, const std::int32_t* at, void* data) {
    optimized::rope_forward(shape, at, table.as<float>(), table.as<float>(), data, nullptr);
  };
  const auto* at = positions.as<std::int32_t>();
  expect_bad_input({"head_dim", "7"}, [&] { call({2, 1, 7, 8, DType::bf16}, at, x.data()); });
  expect_bad_input({"stride", "7"}, [&] { call({2, 1, 8, 7, DType::bf16}, at, x.data()); });
  expect_bad_input({"heads"}, [&] { call({2, 0, 8, 8, DType::bf16}, at, x.data()); });
  expect_bad_input({"tokens"}, [&] { call({-1, 1, 8, 8, DType::bf16}, at, x.data()); });
  expect_bad_input({"int32"}, [&] { call({2, 1, 8, 8, DType::i32}, at, x.data()); });
  expect_bad_input({"null"}, [&] { call({2, 1, 8, 8, DType::bf16}, nullptr, x.data()); });
  expect_bad_input({"null"}, [&] { call({2, 1, 8, 8, DType::bf16}, at, nullptr); });
  call({0, 1, 8, 8, DType::bf16}, nullptr, nullptr);
}

}  // namespace
}  // namespace qshard::test
