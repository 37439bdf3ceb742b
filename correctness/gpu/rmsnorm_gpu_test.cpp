#include "correctness/expect_error.h"
#include "correctness/gpu/matrix_gpu_testing.h"
#include "optimized/rmsnorm.h"
#include "reference/rmsnorm.h"

namespace qshard::test {
namespace {

constexpr double kEpsilon = 1e-5;
constexpr double kUnit = 0x1p-24;

class RmsNormGpu : public GpuTest {};

struct Case {
  std::int64_t tokens, groups, size, x_padding, y_padding, first;
};

const std::vector<Case> kCases = {{9, 1, 8192, 0, 0, 0},  {5, 1, 4096, 64, 8, 0}, {3, 1, 16384, 0, 0, 0},
                                  {2, 1, 30000, 8, 0, 8}, {17, 8, 128, 0, 0, 0},  {6, 5, 64, 2048, 0, 0},
                                  {33, 1, 37, 0, 0, 0},   {4, 3, 101, 1, 2, 1},   {2, 1, 2561, 0, 0, 0},
                                  {1, 1, 1, 0, 0, 0},     {20, 1, 5120, 0, 0, 0}, {3, 2, 1032, 0, 0, 0}};

std::string name(const Case& c, DType dtype) {
  return fmt::format("{} tokens {} groups {} size {} padding {} {} first {}", torch_name(dtype), c.tokens, c.groups,
                     c.size, c.x_padding, c.y_padding, c.first);
}

/// Roundings to float in a chain of the kernel's sums: at most 32 elements a thread or its share of a long row, then a
/// tree; and those of the formula around them.
double roundings(std::int64_t size) {
  return static_cast<double>(size) / 256 + 32 + 8 + 8;
}

/// One row a group, as the reference takes them.
Matrix<double> by_group(const Matrix<float>& values, std::int64_t size) {
  return Eigen::Map<const Matrix<float>>(values.data(), values.size() / size, size).cast<double>();
}

Matrix<float> grouped(const Matrix<float>& values, std::int64_t size) {
  return Eigen::Map<const Matrix<float>>(values.data(), values.size() / size, size);
}

/// Random inputs of one case, and where they lie on the device.
struct Inputs {
  Inputs(const Case& c, DType dtype, std::uint64_t seed)
      : x(random_rounded(c.tokens, c.groups * c.size, dtype, seed)),
        dy(random_rounded(c.tokens, c.groups * c.size, dtype, seed + 1)),
        addend(random_rounded(c.tokens, c.groups * c.size, dtype, seed + 2)),
        weight(random_rounded(1, c.size, dtype, seed + 3)),
        shape{c.tokens, c.groups, c.size, c.groups * c.size + c.x_padding, c.groups * c.size + c.y_padding,
              kEpsilon, dtype},
        device_x(x, dtype, shape.x_stride, c.first),
        device_dy(dy, dtype, shape.y_stride, c.first),
        device_addend(addend, dtype, shape.x_stride, c.first),
        device_weight(weight, dtype, c.size, c.first),
        y(c.tokens, c.groups * c.size, dtype, shape.y_stride, c.first) {}

  [[nodiscard]] reference::Vector<double> weights() const { return weight.transpose().cast<double>(); }

  Matrix<float> x, dy, addend, weight;
  optimized::NormShape shape;
  DeviceMatrix device_x, device_dy, device_addend, device_weight, y;
};

TEST_F(RmsNormGpu, ForwardLikeTheReference) {
  std::uint64_t seed = 1;
  for (const DType dtype : kFloatingDTypes) {
    for (const Case& c : kCases) {
      SCOPED_TRACE(name(c, dtype));
      const Inputs in(c, dtype, seed += 10);
      optimized::rmsnorm_forward(in.shape, in.device_x.data(), in.device_weight.data(), in.y.data(), nullptr);
      const Matrix<float> y = grouped(in.y.values(), c.size);

      // The reference in double, but for the roundings to dtype. The root halves the sum's error. In 16 bits a value
      // beside a tie may be rounded to the other side, twice: two units of the last place, which is rare.
      const Matrix<double> expected = reference::rmsnorm_forward(by_group(in.x, c.size), in.weights(), kEpsilon, dtype);
      const double error = roundings(c.size) * kUnit;
      const double relative = dtype == DType::f32 ? error : error + 4 * unit_of(dtype);
      expect_within(
          expected, y,
          [&](auto row, auto col) {
            return relative * std::abs(expected(row, col)) + least_of(dtype) * (1 + std::abs(in.weight(col)));
          },
          "forward");
      if (dtype != DType::f32 && expected.size() > 1000) {
        EXPECT_LE(differing_share(expected, y), 0.02);
      }

      const DeviceMatrix again(c.tokens, c.groups * c.size, dtype, in.shape.y_stride, c.first);
      optimized::rmsnorm_forward(in.shape, in.device_x.data(), in.device_weight.data(), again.data(), nullptr);
      EXPECT_EQ(differing(in.y.bytes(), again.bytes()), 0U) << "run to run";
      if (in.shape.x_stride == in.shape.y_stride) {
        optimized::rmsnorm_forward(in.shape, in.device_x.data(), in.device_weight.data(), in.device_x.data(), nullptr);
        EXPECT_EQ(differing(in.y.bytes(), in.device_x.bytes()), 0U) << "in place";
      }
    }
  }
}

TEST_F(RmsNormGpu, SumAndNormHaveTheBitsOfBothAlone) {
  std::uint64_t seed = 500;
  for (const DType dtype : kFloatingDTypes) {
    for (const Case& c : kCases) {
      SCOPED_TRACE(name(c, dtype));
      const Inputs in(c, dtype, seed += 10);
      Matrix<float> sum = in.x + in.addend;
      reference::round_to(dtype, sum);
      const DeviceMatrix device_sum(sum, dtype, in.shape.x_stride, c.first);
      const DeviceMatrix alone(c.tokens, c.groups * c.size, dtype, in.shape.y_stride, c.first);
      optimized::rmsnorm_forward(in.shape, device_sum.data(), in.device_weight.data(), alone.data(), nullptr);
      optimized::add_rmsnorm_forward(in.shape, in.device_addend.data(), in.device_weight.data(), in.device_x.data(),
                                     in.y.data(), nullptr);
      expect_bits(sum, in.device_x.values(), "sum");
      EXPECT_EQ(differing(alone.bytes(), in.y.bytes()), 0U) << "norm";

      const Inputs fresh(c, dtype, seed);
      optimized::rmsnorm_forward(in.shape, fresh.device_x.data(), in.device_weight.data(), alone.data(), nullptr);
      optimized::add_rmsnorm_forward(in.shape, nullptr, in.device_weight.data(), fresh.device_x.data(), fresh.y.data(),
                                     nullptr);
      expect_bits(in.x, fresh.device_x.values(), "x without an addend");
      EXPECT_EQ(differing(alone.bytes(), fresh.y.bytes()), 0U) << "norm without an addend";
    }
  }
}

TEST_F(RmsNormGpu, BackwardLikeTheReference) {
  std::uint64_t seed = 1000;
  for (const DType dtype : kFloatingDTypes) {
    for (const Case& c : kCases) {
      SCOPED_TRACE(name(c, dtype));
      const Inputs in(c, dtype, seed += 10);
      const Matrix<double> x = by_group(in.x, c.size);
      const Matrix<double> dy = by_group(in.dy, c.size);
      const Matrix<double> addend = by_group(in.addend, c.size);
      const Matrix<double> gradient = reference::rmsnorm_backward(x, in.weights(), kEpsilon, dtype, dy);
      Matrix<double> with_addend = gradient + addend;
      reference::round_to(dtype, with_addend);

      // dx is a difference of g and x r^2 mean(g x), with an error of so many roundings of either, the mean's relative
      // to the mean of |g x|; then it is rounded to dtype, and its sum with the addend again.
      const Matrix<double> g = (dy.array().rowwise() * in.weights().transpose().array()).matrix();
      const Eigen::ArrayXd r = (x.rowwise().squaredNorm().array() / static_cast<double>(c.size) + kEpsilon).rsqrt();
      const Eigen::ArrayXd mean = g.cwiseProduct(x).cwiseAbs().rowwise().mean().array() * r.square();
      const auto error = [&](auto row, auto col) {
        return roundings(c.size) * kUnit * r(row) * (std::abs(g(row, col)) + 2 * std::abs(x(row, col)) * mean(row)) +
               2 * unit_of(dtype) * std::abs(gradient(row, col)) + least_of(dtype);
      };
      optimized::rmsnorm_backward(in.shape, in.device_x.data(), in.device_weight.data(), in.device_dy.data(), nullptr,
                                  in.y.data(), nullptr, nullptr);
      Matrix<float> found = grouped(in.y.values(), c.size);
      expect_within(gradient, found, error, "backward");
      if (dtype != DType::f32 && gradient.size() > 1000) {
        EXPECT_LE(differing_share(gradient, found), 0.02);
      }

      optimized::rmsnorm_backward(in.shape, in.device_x.data(), in.device_weight.data(), in.device_dy.data(),
                                  in.device_addend.data(), in.y.data(), nullptr, nullptr);
      found = grouped(in.y.values(), c.size);
      expect_within(
          with_addend, found,
          [&](auto row, auto col) {
            return error(row, col) + 2 * unit_of(dtype) * std::abs(with_addend(row, col)) + least_of(dtype);
          },
          "with an addend");
      if (dtype != DType::f32 && gradient.size() > 1000) {
        EXPECT_LE(differing_share(with_addend, found), 0.02);
      }

      const std::vector<std::uint8_t> bytes = in.y.bytes();
      const auto expect_same = [&](const DeviceMatrix& dx, const char* what) {
        optimized::rmsnorm_backward(in.shape, in.device_x.data(), in.device_weight.data(), in.device_dy.data(),
                                    in.device_addend.data(), dx.data(), nullptr, nullptr);
        EXPECT_EQ(differing(bytes, dx.bytes()), 0U) << what;
      };
      expect_same(DeviceMatrix(c.tokens, c.groups * c.size, dtype, in.shape.y_stride, c.first), "run to run");
      if (in.shape.x_stride == in.shape.y_stride) {
        expect_same(in.device_addend, "dx is the addend");
        const Inputs fresh(c, dtype, seed);
        optimized::rmsnorm_backward(in.shape, in.device_x.data(), in.device_weight.data(), in.device_dy.data(),
                                    fresh.device_addend.data(), in.device_dy.data(), nullptr, nullptr);
        EXPECT_EQ(differing(bytes, in.device_dy.bytes()), 0U) << "dx is dy";
      }

      const Inputs fresh(c, dtype, seed);
      const DeviceMatrix dx(c.tokens, c.groups * c.size, dtype, in.shape.y_stride, c.first);
      optimized::rmsnorm_forward(fresh.shape, fresh.device_x.data(), in.device_weight.data(), in.y.data(), nullptr);
      optimized::rmsnorm_backward(fresh.shape, fresh.device_x.data(), in.device_weight.data(), fresh.device_dy.data(),
                                  fresh.device_addend.data(), dx.data(), fresh.device_dy.data(), nullptr);
      EXPECT_EQ(differing(bytes, dx.bytes()), 0U) << "dx beside y";
      EXPECT_EQ(differing(in.y.bytes(), fresh.device_dy.bytes()), 0U) << "y, which is dy";
    }
  }
}

TEST_F(RmsNormGpu, RowOfZerosStaysZero) {
  const optimized::NormShape shape{1, 1, 64, 64, 64, kEpsilon, DType::bf16};
  const Matrix<float> zeros = Matrix<float>::Zero(1, 64);
  const DeviceMatrix x(zeros, DType::bf16, 64);
  const DeviceMatrix y(1, 64, DType::bf16, 64);
  optimized::rmsnorm_forward(shape, x.data(), x.data(), y.data(), nullptr);
  expect_bits(zeros, y.values(), "forward");
}

TEST_F(RmsNormGpu, RefusesBadInput) {
  const DeviceMatrix x(2, 8, DType::bf16, 8);
  const auto call = [&](const optimized::NormShape& shape, void* y) {
    optimized::rmsnorm_forward(shape, x.data(), x.data(), y, nullptr);
    optimized::rmsnorm_backward(shape, x.data(), x.data(), x.data(), nullptr, y, nullptr, nullptr);
  };
  const optimized::NormShape good{2, 1, 8, 8, 8, kEpsilon, DType::bf16};
  const auto refused = [&](const char* text, auto change) {
    optimized::NormShape shape = good;
    change(shape);
    expect_bad_input({text}, [&] { call(shape, x.data()); });
    expect_bad_input({text}, [&] {
      optimized::rmsnorm_backward(shape, x.data(), x.data(), x.data(), nullptr, x.data(), nullptr, nullptr);
    });
  };
  refused("tokens", [](auto& shape) { shape.tokens = -1; });
  refused("groups", [](auto& shape) { shape.groups = 0; });
  refused("size", [](auto& shape) { shape.size = 0; });
  refused("stride", [](auto& shape) { shape.x_stride = 7; });
  refused("stride", [](auto& shape) { shape.groups = 2, shape.x_stride = 16; });
  refused("int64", [](auto& shape) { shape.dtype = DType::i64; });
  expect_bad_input({"null"}, [&] { call(good, nullptr); });
  expect_bad_input({"aligned"}, [&] { call(good, static_cast<std::byte*>(x.data()) + 1); });
  call({0, 1, 8, 8, 8, kEpsilon, DType::bf16}, nullptr);
}

}  // namespace
}  // namespace qshard::test
