#include <algorithm>
#include <cmath>

#include "correctness/expect_error.h"
#include "correctness/gpu/matrix_gpu_testing.h"
#include "optimized/argmax.h"

namespace qshard::test {
namespace {

class ArgmaxGpu : public GpuTest {};

std::vector<std::int32_t> found(const Matrix<float>& values, DType dtype, std::int64_t first) {
  const DeviceMatrix device(values, dtype, values.cols(), first);
  const DeviceBuffer out(values.rows() * sizeof(std::int32_t));
  optimized::argmax(values.rows(), values.cols(), dtype, device.data(), out.as<std::int32_t>(), nullptr);
  return out.download<std::int32_t>();
}

std::vector<std::int32_t> expected(const Matrix<float>& values) {
  std::vector<std::int32_t> result;
  for (Eigen::Index row = 0; row < values.rows(); ++row) {
    const float* begin = values.row(row).data();
    const float* end = begin + values.cols();
    const bool finite = std::all_of(begin, end, [](float value) { return std::isfinite(value); });
    const auto largest = static_cast<std::int32_t>(std::max_element(begin, end) - begin);
    result.push_back(finite ? largest : optimized::kNotFinite);
  }
  return result;
}

TEST_F(ArgmaxGpu, OfEveryLengthTheFirstLargest) {
  std::uint64_t seed = 1;
  for (const DType dtype : kFloatingDTypes) {
    for (const std::int64_t count : {1, 2, 7, 8, 1023, 1025, 32000, 128256, 151937}) {
      for (const std::int64_t first : {0, 1}) {
        SCOPED_TRACE(fmt::format("{} {} values from {}", torch_name(dtype), count, first));
        Matrix<float> values = random_rounded(5, count, dtype, ++seed);
        values.row(1).setConstant(-3.0F);                          // all are equal: the first
        values.row(2) = -values.row(2).cwiseAbs().array() - 1.0F;  // all are negative
        values(2, count - 1) = -0.5F;                              // the last one is the largest
        values.row(3).setConstant(-0.0F);
        values(3, count - 1) = 0.0F;  // equals -0: the first
        reference::round_to(dtype, values);
        EXPECT_EQ(found(values, dtype, first), expected(values));
      }
    }
  }
}

TEST_F(ArgmaxGpu, SeesWhatIsNotFinite) {
  for (const DType dtype : kFloatingDTypes) {
    for (const float bad : {std::nanf(""), -std::nanf(""), INFINITY, -INFINITY}) {
      for (const std::int64_t at : {0, 1, 4000, 8190}) {
        Matrix<float> values = random_rounded(3, 8191, dtype, 99);
        values(1, at) = bad;
        EXPECT_EQ(found(values, dtype, 0), expected(values)) << torch_name(dtype) << ' ' << bad << " at " << at;
      }
    }
  }
}

TEST_F(ArgmaxGpu, RefusesBadInput) {
  const DeviceBuffer memory(64);
  const auto call = [&](std::int64_t rows, std::int64_t count, DType dtype, const void* values, std::int32_t* out) {
    optimized::argmax(rows, count, dtype, values, out, nullptr);
  };
  auto* out = memory.as<std::int32_t>();
  expect_bad_input({"rows", "-1"}, [&] { call(-1, 1, DType::f32, memory.as<float>(), out); });
  expect_bad_input({"values", "0"}, [&] { call(1, 0, DType::f32, memory.as<float>(), out); });
  expect_bad_input({"int32"}, [&] { call(1, 1, DType::i32, memory.as<float>(), out); });
  expect_bad_input({"null"}, [&] { call(1, 1, DType::f32, nullptr, out); });
  expect_bad_input({"null"}, [&] { call(1, 1, DType::f32, memory.as<float>(), nullptr); });
  call(0, 1, DType::f32, nullptr, nullptr);
}

}  // namespace
}  // namespace qshard::test
