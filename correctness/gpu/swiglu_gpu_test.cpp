#include "correctness/expect_error.h"
#include "correctness/gpu/matrix_gpu_testing.h"
#include "optimized/swiglu.h"
#include "reference/swiglu.h"

namespace qshard::test {
namespace {

constexpr double kUnit = 0x1p-24;

class SwigluGpu : public GpuTest {};

struct Case {
  std::int64_t tokens, size, gate_padding, up_padding, out_padding, first;
};

const std::vector<Case> kCases = {{5, 28672, 0, 0, 0, 0}, {7, 14336, 14336, 14336, 0, 0}, {3, 2048, 64, 8, 0, 8},
                                  {11, 33, 0, 0, 0, 0},   {4, 257, 1, 2, 3, 1},           {1, 1, 0, 0, 0, 0}};

std::string name(const Case& c, DType dtype) {
  return fmt::format("{} tokens {} size {} padding {} {} {} first {}", torch_name(dtype), c.tokens, c.size,
                     c.gate_padding, c.up_padding, c.out_padding, c.first);
}

struct Inputs {
  Inputs(const Case& c, DType dtype, std::uint64_t seed)
      : gate(random_rounded(c.tokens, c.size, dtype, seed, 3.0F)),
        up(random_rounded(c.tokens, c.size, dtype, seed + 1)),
        dout(random_rounded(c.tokens, c.size, dtype, seed + 2)),
        shape{c.tokens, c.size, c.size + c.gate_padding, c.size + c.up_padding, c.size + c.out_padding, dtype},
        first(c.first) {
    // Both ends of exp, and where 1 / (1 + exp) is no longer a normal float.
    const float special[] = {0.0F, -0.0F, 20.0F, -20.0F, 100.0F, -100.0F, -87.5F, -88.5F, 1000.0F, -1000.0F};
    for (std::int64_t i = 0; i < std::min<std::int64_t>(c.size - 1, std::ssize(special)); ++i) gate(0, i) = special[i];
    reference::round_to(dtype, gate);
  }

  [[nodiscard]] DeviceMatrix device_gate() const { return {gate, shape.dtype, shape.gate_stride, first}; }
  [[nodiscard]] DeviceMatrix device_up() const { return {up, shape.dtype, shape.up_stride, first}; }
  [[nodiscard]] DeviceMatrix device_dout() const { return {dout, shape.dtype, shape.out_stride, first}; }
  [[nodiscard]] DeviceMatrix empty(std::int64_t stride) const {
    return {gate.rows(), gate.cols(), shape.dtype, stride, first};
  }

  /// Relative error of the logistic function: that of the exponential (exponential.cuh), of its sum with 1 and of the
  /// division, and one rounding of each product after it.
  [[nodiscard]] double error(Eigen::Index row, Eigen::Index col) const {
    return (1.5 * std::abs(static_cast<double>(gate(row, col))) + 16) * kUnit;
  }
  /// Below this the logistic function may be flushed to zero.
  [[nodiscard]] double flushed(Eigen::Index row, Eigen::Index col) const {
    return 0x1p-125 * (1 + std::abs(static_cast<double>(gate(row, col))));
  }

  Matrix<float> gate, up, dout;
  optimized::SwigluShape shape;
  std::int64_t first;
};

TEST_F(SwigluGpu, ForwardLikeTheReference) {
  std::uint64_t seed = 1;
  for (const DType dtype : kFloatingDTypes) {
    for (const Case& c : kCases) {
      SCOPED_TRACE(name(c, dtype));
      const Inputs in(c, dtype, seed += 10);
      const DeviceMatrix gate = in.device_gate();
      const DeviceMatrix up = in.device_up();
      const DeviceMatrix out = in.empty(in.shape.out_stride);
      optimized::swiglu_forward(in.shape, gate.data(), up.data(), out.data(), nullptr);
      const Matrix<float> found = out.values();

      // In 16 bits each of the two roundings may fall on the other side of a tie: one unit of the last place.
      const Matrix<double> expected =
          reference::swiglu_forward<double>(in.gate.cast<double>(), in.up.cast<double>(), dtype);
      const double flips = dtype == DType::f32 ? 0 : 4 * unit_of(dtype);
      expect_within(
          expected, found,
          [&](auto row, auto col) {
            const double factor = 1 + std::abs(in.up(row, col));
            return (in.error(row, col) + flips) * std::abs(expected(row, col)) +
                   (in.flushed(row, col) + least_of(dtype)) * factor;
          },
          "forward");
      if (dtype != DType::f32 && expected.size() > 1000) {
        EXPECT_LE(differing_share(expected, found), 0.02);
      }

      const DeviceMatrix again = in.empty(in.shape.out_stride);
      optimized::swiglu_forward(in.shape, gate.data(), up.data(), again.data(), nullptr);
      EXPECT_EQ(differing(out.bytes(), again.bytes()), 0U) << "run to run";
      if (in.shape.gate_stride == in.shape.out_stride) {
        optimized::swiglu_forward(in.shape, gate.data(), up.data(), gate.data(), nullptr);
        EXPECT_EQ(differing(out.bytes(), gate.bytes()), 0U) << "out is gate";
      }
    }
  }
}

TEST_F(SwigluGpu, BackwardLikeTheReference) {
  std::uint64_t seed = 1000;
  for (const DType dtype : kFloatingDTypes) {
    for (const Case& c : kCases) {
      SCOPED_TRACE(name(c, dtype));
      const Inputs in(c, dtype, seed += 10);
      const DeviceMatrix gate = in.device_gate();
      const DeviceMatrix up = in.device_up();
      const DeviceMatrix dout = in.device_dout();
      const DeviceMatrix dgate = in.empty(in.shape.gate_stride);
      const DeviceMatrix dup = in.empty(in.shape.up_stride);
      optimized::swiglu_backward(in.shape, gate.data(), up.data(), dout.data(), dgate.data(), dup.data(), nullptr,
                                 nullptr);
      const auto expected = reference::swiglu_backward<double>(in.gate.cast<double>(), in.up.cast<double>(), dtype,
                                                               in.dout.cast<double>());
      const double flips = dtype == DType::f32 ? 0 : 4 * unit_of(dtype);
      expect_within(
          expected.up, dup.values(),
          [&](auto row, auto col) {
            return (in.error(row, col) + flips) * std::abs(expected.up(row, col)) +
                   (in.flushed(row, col) + least_of(dtype)) * (1 + std::abs(in.dout(row, col)));
          },
          "dup");
      // The slope s (1 + g (1 - s)) has the error of s in each of its factors: g (1 - s) is off by |g| times it.
      expect_within(
          expected.gate, dgate.values(),
          [&](auto row, auto col) {
            const double g = std::abs(static_cast<double>(in.gate(row, col)));
            const double s = 1 / (1 + std::exp(-static_cast<double>(in.gate(row, col))));
            const double product = std::abs(static_cast<double>(in.dout(row, col)) * in.up(row, col));
            return 2 * product * s * in.error(row, col) * (1 + g) + flips * std::abs(expected.gate(row, col)) +
                   4 * kUnit * std::abs(expected.gate(row, col)) + (1 + product) * (1 + g) * in.flushed(row, col) +
                   3 * least_of(dtype);
          },
          "dgate");
      if (dtype != DType::f32 && in.gate.size() > 1000) {
        EXPECT_LE(differing_share(expected.gate, dgate.values()), 0.02);
        EXPECT_LE(differing_share(expected.up, dup.values()), 0.02);
      }
      const DeviceMatrix out = in.empty(in.shape.out_stride);
      optimized::swiglu_forward(in.shape, gate.data(), up.data(), out.data(), nullptr);
      optimized::swiglu_backward(in.shape, gate.data(), up.data(), dout.data(), gate.data(), up.data(), dout.data(),
                                 nullptr);
      EXPECT_EQ(differing(dgate.bytes(), gate.bytes()), 0U) << "dgate is gate";
      EXPECT_EQ(differing(dup.bytes(), up.bytes()), 0U) << "dup is up";
      EXPECT_EQ(differing(out.bytes(), dout.bytes()), 0U) << "out, which is dout";
    }
  }
}

TEST_F(SwigluGpu, RefusesBadInput) {
  const DeviceMatrix x(2, 8, DType::bf16, 8);
  const optimized::SwigluShape good{2, 8, 8, 8, 8, DType::bf16};
  const auto refused = [&](const char* text, auto change) {
    optimized::SwigluShape shape = good;
    change(shape);
    expect_bad_input({text}, [&] { optimized::swiglu_forward(shape, x.data(), x.data(), x.data(), nullptr); });
    expect_bad_input({text}, [&] {
      optimized::swiglu_backward(shape, x.data(), x.data(), x.data(), x.data(), x.data(), nullptr, nullptr);
    });
  };
  refused("tokens", [](auto& shape) { shape.tokens = -1; });
  refused("size", [](auto& shape) { shape.size = 0; });
  refused("gate", [](auto& shape) { shape.gate_stride = 7; });
  refused("up", [](auto& shape) { shape.up_stride = 7; });
  refused("output", [](auto& shape) { shape.out_stride = 7; });
  refused("uint8", [](auto& shape) { shape.dtype = DType::u8; });
  expect_bad_input({"null"}, [&] { optimized::swiglu_forward(good, x.data(), nullptr, x.data(), nullptr); });
  expect_bad_input({"null"}, [&] {
    optimized::swiglu_backward(good, x.data(), x.data(), x.data(), x.data(), nullptr, nullptr, nullptr);
  });
}

}  // namespace
}  // namespace qshard::test
