#include <cmath>
#include <random>

#include "core/tensor/float16.h"
#include "correctness/expect_error.h"
#include "correctness/gpu/gpu_testing.h"
#include "optimized/matmul.h"

namespace qshard::test {
namespace {

class MatmulGpu : public GpuTest {};

/// A matrix as it is stored, with elements between its rows.
struct Stored {
  std::int64_t rows;
  std::int64_t columns;
  std::int64_t stride;
  DType dtype;
  std::vector<float> values;  // rounded to dtype

  Stored(std::int64_t count, std::int64_t width, std::int64_t padding, DType of, std::uint64_t seed)
      : rows(count), columns(width), stride(width + padding), dtype(of), values(rows * stride) {
    std::mt19937_64 generator(seed);
    std::normal_distribution<float> normal;
    for (float& value : values) value = normal(generator);
    values = to_floats(tensor().view());
  }

  [[nodiscard]] Tensor tensor() const { return from_floats(values, dtype, {std::ssize(values)}); }
  [[nodiscard]] double at(std::int64_t row, std::int64_t column) const { return values[row * stride + column]; }
};

struct Case {
  std::int64_t rows, columns, inner;
  bool a_transposed, b_transposed;
  DType dtype, out_dtype;
  float alpha = 1.0F, beta = 0.0F;
  bool in_place = false;
  std::size_t workspace = optimized::kMatmulWorkspaceBytes;
};

/// The largest error of rounding to nearest, relative to the result.
double unit_roundoff(DType dtype) {
  return dtype == DType::bf16 ? 0x1p-8 : dtype == DType::f16 ? 0x1p-11 : 0x1p-24;
}

void check(const Case& c, std::uint64_t seed) {
  SCOPED_TRACE(fmt::format("[{}, {}, {}] transposed {} {} {} to {} alpha {} beta {} in place {} workspace {}", c.rows,
                           c.columns, c.inner, c.a_transposed, c.b_transposed, torch_name(c.dtype),
                           torch_name(c.out_dtype), c.alpha, c.beta, c.in_place, c.workspace));
  const Stored a(c.a_transposed ? c.inner : c.rows, c.a_transposed ? c.rows : c.inner, 3, c.dtype, seed);
  const Stored b(c.b_transposed ? c.columns : c.inner, c.b_transposed ? c.inner : c.columns, 0, c.dtype, seed + 1);
  const Stored addend(c.rows, c.columns, 8, c.out_dtype, seed + 2);
  const std::int64_t c_stride = c.in_place ? addend.stride : c.columns + 1;
  optimized::MatmulPlans plans(c.workspace);
  const DeviceBuffer workspace(c.workspace);
  const DeviceBuffer a_memory{std::span<const std::byte>(a.tensor().bytes())};
  const DeviceBuffer b_memory{std::span<const std::byte>(b.tensor().bytes())};
  std::vector<std::byte> first;
  for (int repeat = 0; repeat < 2; ++repeat) {
    const DeviceBuffer addend_memory{std::span<const std::byte>(addend.tensor().bytes())};
    const DeviceBuffer own(c.rows * c_stride * size_of(c.out_dtype));
    const DeviceBuffer& out = c.in_place ? addend_memory : own;
    optimized::MatmulShape shape{.rows = c.rows,
                                 .columns = c.columns,
                                 .inner = c.inner,
                                 .a_stride = a.stride,
                                 .b_stride = b.stride,
                                 .c_stride = c_stride,
                                 .b_transposed = c.b_transposed,
                                 .dtype = c.dtype,
                                 .a_transposed = c.a_transposed,
                                 .out_dtype = c.out_dtype,
                                 .addend_stride = addend.stride};
    const optimized::MatmulScaling scaling{c.alpha, c.beta, c.beta == 0.0F ? nullptr : addend_memory.as<void>()};
    matmul(plans, shape, scaling, a_memory.as<void>(), b_memory.as<void>(), out.as<void>(), workspace.as<void>(),
           workspace.bytes(), nullptr);
    QSHARD_CUDA_CHECK(cudaDeviceSynchronize());
    const auto bytes = out.download<std::byte>();
    if (repeat == 1) {
      EXPECT_EQ(differing(first, bytes), 0U) << "a second run gave other bits";
      continue;
    }
    first = bytes;
    const auto found = to_floats({c.out_dtype, {c.rows * c_stride}, bytes});
    for (std::int64_t row = 0; row < c.rows; ++row) {
      for (std::int64_t column = 0; column < c.columns; ++column) {
        double sum = 0;
        double magnitude = 0;
        for (std::int64_t k = 0; k < c.inner; ++k) {
          const double product =
              (c.a_transposed ? a.at(k, row) : a.at(row, k)) * (c.b_transposed ? b.at(column, k) : b.at(k, column));
          sum += product;
          magnitude += std::fabs(product);
        }
        const double wanted = c.alpha * sum + (c.beta == 0.0F ? 0.0 : c.beta * addend.at(row, column));
        // One rounding of the result, and an addition in float, truncated perhaps, for each inner term.
        const double bound = unit_roundoff(c.out_dtype) * std::fabs(wanted) +
                             static_cast<double>(c.inner + 4) * 0x1p-23 * (std::fabs(c.alpha) * magnitude + 1) +
                             0x1p-24;
        const double value = found[row * c_stride + column];
        ASSERT_TRUE(std::fabs(value - wanted) <= bound)
            << "row " << row << " column " << column << ": " << value << " instead of " << wanted << " +- " << bound;
      }
      if (row + 1 == c.rows || c.in_place) continue;
      const std::size_t between = (row * c_stride + c.columns) * size_of(c.out_dtype);
      ASSERT_EQ(bytes[between], std::byte{DeviceBuffer::kPoison}) << "written between the rows";
    }
  }
}

TEST_F(MatmulGpu, EveryTransposeAndDtype) {
  std::uint64_t seed = 300;
  for (const auto& [dtype, out] : {std::pair{DType::bf16, DType::bf16},
                                   {DType::f16, DType::f16},
                                   {DType::f32, DType::f32},
                                   {DType::bf16, DType::f32},
                                   {DType::f16, DType::f32}}) {
    for (const bool a_transposed : {false, true}) {
      for (const bool b_transposed : {false, true}) {
        check({33, 70, 130, a_transposed, b_transposed, dtype, out}, seed += 3);
        check({1, 257, 64, a_transposed, b_transposed, dtype, out, -0.5F, 2.0F}, seed += 3);
        check({40, 64, 96, a_transposed, b_transposed, dtype, out, 1.0F, 1.0F, true}, seed += 3);
        if (HasFailure()) return;
      }
    }
  }
}

// Few outputs of long sums: where cuBLASLt splits the inner dimension.
TEST_F(MatmulGpu, LongSumsWithLittleWorkspace) {
  std::uint64_t seed = 900;
  for (const std::size_t workspace : {std::size_t{32} << 20, std::size_t{4} << 20, std::size_t{0}}) {
    check({16, 64, 20'000, true, false, DType::bf16, DType::f32, 1.0F, 1.0F, true, workspace}, seed += 3);
    check({16, 64, 20'000, false, true, DType::bf16, DType::bf16, 1.0F, 0.0F, false, workspace}, seed += 3);
  }
}

// The plan of a product without an addend is not taken for one with it, nor the other way round.
TEST_F(MatmulGpu, OnePlanForEachStrideOfTheAddend) {
  optimized::MatmulPlans plans;
  const DeviceBuffer workspace(plans.workspace_bytes());
  const DeviceBuffer a(std::vector<float>(16, 1.0F));
  const DeviceBuffer addend(std::vector<float>{1, 2, 0, 0, 3, 4, 0, 0});
  const DeviceBuffer out(4 * sizeof(float));
  optimized::MatmulShape shape{.rows = 2,
                               .columns = 2,
                               .inner = 4,
                               .a_stride = 4,
                               .b_stride = 4,
                               .c_stride = 2,
                               .dtype = DType::f32,
                               .addend_stride = 4};
  const auto run = [&](const optimized::MatmulScaling& scaling) {
    matmul(plans, shape, scaling, a.as(), a.as(), out.as(), workspace.as(), workspace.bytes(), nullptr);
    return out.download<float>();
  };
  EXPECT_EQ(run({}), (std::vector<float>{4, 4, 4, 4}));
  EXPECT_EQ(run({1.0F, 1.0F, addend.as()}), (std::vector<float>{5, 6, 7, 8}));
  EXPECT_EQ(run({2.0F, 0.0F, nullptr}), (std::vector<float>{8, 8, 8, 8}));
}

TEST_F(MatmulGpu, RefusesBadInput) {
  optimized::MatmulPlans plans(4 << 20);
  const DeviceBuffer memory(plans.workspace_bytes());
  const optimized::MatmulShape good{
      .rows = 8, .columns = 16, .inner = 32, .a_stride = 32, .b_stride = 32, .c_stride = 16};
  const auto run = [&](const optimized::MatmulShape& shape, const optimized::MatmulScaling& scaling,
                       std::size_t bytes) {
    matmul(plans, shape, scaling, memory.as<void>(), memory.as<void>(8192), memory.as<void>(16384), memory.as<void>(),
           bytes, nullptr);
  };
  const auto refused = [&](std::string_view what, const auto& spoil) {
    optimized::MatmulShape shape = good;
    spoil(shape);
    expect_bad_input({what}, [&] { run(shape, {}, memory.bytes()); });
  };
  refused("first operand", [](auto& s) { s.a_stride = 31; });
  refused("first operand", [](auto& s) {
    s.a_transposed = true;
    s.a_stride = 7;
  });
  refused("second operand", [](auto& s) { s.b_stride = 31; });
  refused("result", [](auto& s) { s.c_stride = 15; });
  refused("addend", [](auto& s) { s.addend_stride = 15; });
  refused("cannot give float16", [](auto& s) { s.out_dtype = DType::f16; });
  expect_bad_input({"addend", "null"}, [&] { run(good, {1.0F, 1.0F, nullptr}, memory.bytes()); });
  expect_bad_input({"workspace", "4194304"}, [&] { run(good, {}, 1 << 20); });
}

}  // namespace
}  // namespace qshard::test
