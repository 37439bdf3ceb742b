#include <cmath>

#include "correctness/expect_error.h"
#include "correctness/gpu/matrix_gpu_testing.h"
#include "optimized/adamw.h"
#include "reference/adamw.h"

namespace qshard::test {
namespace {

class AdamWGpu : public GpuTest {};

Matrix<float> as_matrix(const std::vector<float>& values) {
  return Eigen::Map<const Matrix<float>>(values.data(), 1, std::ssize(values));
}

/// Parameter and moments on the device, `first` elements after an aligned address.
struct DeviceState {
  DeviceState(const std::vector<float>& p, const std::vector<float>& m, const std::vector<float>& v,
              DType parameter_dtype, DType moment_dtype, std::int64_t first)
      : parameter(as_matrix(p), parameter_dtype, std::ssize(p), first),
        exp_avg(as_matrix(m), moment_dtype, std::ssize(p), first),
        exp_avg_sq(as_matrix(v), moment_dtype, std::ssize(p), first),
        count(std::ssize(p)) {}

  void update(const optimized::AdamWStep& step, const std::vector<float>& gradient, float factor) const {
    const DeviceBuffer device_gradient(gradient);
    const DeviceBuffer device_factor(std::vector<float>{factor});
    optimized::adamw_update(step, count, parameter.data(), device_gradient.as<float>(), device_factor.as<float>(),
                            exp_avg.data(), exp_avg_sq.data(), nullptr);
    QSHARD_CUDA_CHECK(cudaDeviceSynchronize());
  }

  DeviceMatrix parameter, exp_avg, exp_avg_sq;
  std::int64_t count;
};

AdamWOptions options_of(int variant) {
  AdamWOptions options;
  if (variant == 1) options = {0.95, 0.98, 1e-6, 0.1};
  return options;
}

TEST_F(AdamWGpu, EqualsTheReferenceToTheBitOverSteps) {
  std::uint64_t seed = 1;
  for (const DType dtype : kFloatingDTypes) {
    for (const std::int64_t count : {1, 7, 8, 9, 2049, 100003}) {
      for (const std::int64_t first : {0, 1}) {
        SCOPED_TRACE(fmt::format("{} count {} first {}", torch_name(dtype), count, first));
        const AdamWOptions options = options_of(first == 0 ? 0 : 1);
        std::vector<float> p = random_vector(count, dtype, ++seed, 0.05F);
        std::vector<float> m(count, 0.0F), v(count, 0.0F);
        const DeviceState device(p, m, v, dtype, dtype, first);
        for (std::int64_t step = 1; step <= 12; ++step) {
          const std::vector<float> g = random_vector(count, DType::f32, ++seed, step % 3 == 0 ? 1e-6F : 0.3F);
          const float factor = step % 2 == 0 ? 1.0F : 0.37F;
          std::vector<float> clipped = g;
          for (float& x : clipped) x *= factor;
          reference::adamw_update(p, clipped, m, v, options, dtype, 1e-3, step);
          device.update({options, 1e-3, step, dtype, dtype}, g, factor);
        }
        expect_bits(as_matrix(p), device.parameter.values(), "parameter");
        expect_bits(as_matrix(m), device.exp_avg.values(), "exp_avg");
        expect_bits(as_matrix(v), device.exp_avg_sq.values(), "exp_avg_sq");
      }
    }
  }
}

// The reference has one dtype for everything. Its moments do not depend on the parameter, so a run in the moments'
// dtype gives these; the parameter's formula is written out here with them.
TEST_F(AdamWGpu, MomentsOfAnotherDType) {
  const std::int64_t count = 5000;
  std::uint64_t seed = 500;
  for (const DType parameter_dtype : kFloatingDTypes) {
    for (const DType moment_dtype : kFloatingDTypes) {
      SCOPED_TRACE(fmt::format("parameter {} moments {}", torch_name(parameter_dtype), torch_name(moment_dtype)));
      const std::vector<float> p = random_vector(count, parameter_dtype, ++seed, 0.05F);
      std::vector<float> m = random_vector(count, moment_dtype, ++seed, 0.1F);
      std::vector<float> v = random_vector(count, moment_dtype, ++seed, 0.1F);
      for (float& x : v) x = std::fabs(x);
      const std::vector<float> g = random_vector(count, DType::f32, ++seed, 0.3F);
      const DeviceState device(p, m, v, parameter_dtype, moment_dtype, 0);
      device.update({options_of(1), 2e-4, 5, parameter_dtype, moment_dtype}, g, 1.0F);

      // The parameter is moved by the moments before they are rounded: those of a step in f32.
      std::vector<float> exact = p;
      std::vector<float> exact_m = m;
      std::vector<float> exact_v = v;
      reference::adamw_update(exact, g, exact_m, exact_v, options_of(1), DType::f32, 2e-4, 5);
      std::vector<float> unused = p;
      reference::adamw_update(unused, g, m, v, options_of(1), moment_dtype, 2e-4, 5);
      expect_bits(as_matrix(m), device.exp_avg.values(), "exp_avg");
      expect_bits(as_matrix(v), device.exp_avg_sq.values(), "exp_avg_sq");

      Matrix<float> expected = as_matrix(exact);
      reference::round_to(parameter_dtype, expected);
      expect_bits(expected, device.parameter.values(), "parameter");
    }
  }
}

TEST_F(AdamWGpu, FactorThatIsNotFiniteChangesNothing) {
  const std::int64_t count = 1001;
  const std::vector<float> p = random_vector(count, DType::bf16, 1, 1.0F);
  const DeviceState device(p, p, p, DType::bf16, DType::bf16, 0);
  std::vector<float> g(count, 1.0F);
  g[5] = std::nanf("");
  for (const float factor : {std::nanf(""), INFINITY, -INFINITY}) {
    device.update({{}, 1e-3, 3, DType::bf16, DType::bf16}, g, factor);
    expect_bits(as_matrix(p), device.parameter.values(), "parameter");
    expect_bits(as_matrix(p), device.exp_avg.values(), "exp_avg");
    expect_bits(as_matrix(p), device.exp_avg_sq.values(), "exp_avg_sq");
  }
}

TEST_F(AdamWGpu, ClipFactorLikeTheReference) {
  DeviceBuffer factor(sizeof(float));
  const auto clip = [&](double norm_squared, double max_norm) {
    factor.poison();
    const DeviceBuffer squared(std::vector<double>{norm_squared});
    optimized::clip_factor(squared.as<double>(), max_norm, factor.as<float>(), nullptr);
    return factor.download<float>().at(0);
  };
  for (const double norm_squared : {0.0, 1e-300, 0.01, 0.09, 1.0, 2.0, 12345.678, 1e76}) {
    for (const double max_norm : {0.0, 0.3, 1.0, 100.0}) {
      EXPECT_EQ(clip(norm_squared, max_norm),
                static_cast<float>(reference::clip_factor(std::sqrt(norm_squared), max_norm)))
          << norm_squared << ", " << max_norm;
    }
  }
  for (const double norm_squared : {std::nan(""), static_cast<double>(INFINITY)}) {
    for (const double max_norm : {0.0, 1.0}) EXPECT_TRUE(std::isnan(clip(norm_squared, max_norm)));
  }
}

TEST_F(AdamWGpu, RefusesBadInput) {
  const DeviceBuffer memory(256);
  const auto call = [&](const optimized::AdamWStep& step, std::int64_t count, void* parameter) {
    optimized::adamw_update(step, count, parameter, memory.as<float>(), memory.as<float>(), memory.as<void>(),
                            memory.as<void>(), nullptr);
  };
  expect_bad_input({"step", "0"}, [&] { call({{}, 1e-3, 0, DType::f32, DType::f32}, 1, memory.as<void>()); });
  expect_bad_input({"elements", "-1"}, [&] { call({{}, 1e-3, 1, DType::f32, DType::f32}, -1, memory.as<void>()); });
  expect_bad_input({"parameter", "uint8"}, [&] { call({{}, 1e-3, 1, DType::u8, DType::f32}, 1, memory.as<void>()); });
  expect_bad_input({"moments", "int64"}, [&] { call({{}, 1e-3, 1, DType::f32, DType::i64}, 1, memory.as<void>()); });
  expect_bad_input({"null"}, [&] { call({{}, 1e-3, 1, DType::f32, DType::f32}, 1, nullptr); });
  expect_bad_input({"aligned"}, [&] { call({{}, 1e-3, 1, DType::f32, DType::f32}, 1, memory.as<std::byte>(2)); });
  expect_bad_input({"null"}, [&] { optimized::clip_factor(nullptr, 1, memory.as<float>(), nullptr); });
}

}  // namespace
}  // namespace qshard::test
