#include <array>
#include <cmath>

#include "core/tensor/codebook.h"
#include "correctness/expect_error.h"
#include "correctness/gpu/bitsandbytes_library.h"
#include "correctness/gpu/matrix_gpu_testing.h"
#include "optimized/adamw8bit.h"
#include "reference/adamw8bit.h"

namespace qshard::test {
namespace {

class AdamW8bitGpu : public GpuTest {};

DeviceBuffer in_dtype(const std::vector<float>& values, DType dtype) {
  return DeviceBuffer(std::span<const std::byte>(from_floats(values, dtype, {std::ssize(values)}).bytes()));
}

/// Parameter and moments on the host.
struct HostState {
  explicit HostState(std::vector<float> parameter)
      : p(std::move(parameter)),
        m_codes(p.size()),
        v_codes(p.size()),
        m_absmax((p.size() + kMomentBlocksize - 1) / kMomentBlocksize),
        v_absmax(m_absmax.size()) {}

  void update(const optimized::AdamWStep& step, std::vector<float> g, float factor) {
    for (float& x : g) x *= factor;
    reference::adamw8bit_update(p, g, {m_codes, m_absmax}, {v_codes, v_absmax}, step.options, step.parameter_dtype,
                                step.learning_rate, step.step);
  }

  std::vector<float> p;
  std::vector<std::uint8_t> m_codes, v_codes;
  std::vector<float> m_absmax, v_absmax;
};

/// The same on the device.
struct DeviceState {
  DeviceState(const HostState& host, DType parameter_dtype)
      : dtype(parameter_dtype),
        count(std::ssize(host.p)),
        p(in_dtype(host.p, dtype)),
        m_codes(host.m_codes),
        v_codes(host.v_codes),
        m_absmax(host.m_absmax),
        v_absmax(host.v_absmax),
        map(std::span<const float>(dynamic_map())),
        map_sq(std::span<const float>(unsigned_dynamic_map())) {}

  void update(const optimized::AdamWStep& step, const std::vector<float>& g, float factor) const {
    const DeviceBuffer gradient(g);
    const DeviceBuffer device_factor(std::vector<float>{factor});
    optimized::adamw8bit_update(step, count, p.as(), gradient.as<float>(), device_factor.as<float>(), exp_avg(),
                                exp_avg_sq(), nullptr);
    QSHARD_CUDA_CHECK(cudaDeviceSynchronize());
  }

  [[nodiscard]] optimized::Moment8bit exp_avg() const {
    return {m_codes.as<std::uint8_t>(), m_absmax.as<float>(), map.as<float>()};
  }
  [[nodiscard]] optimized::Moment8bit exp_avg_sq() const {
    return {v_codes.as<std::uint8_t>(), v_absmax.as<float>(), map_sq.as<float>()};
  }
  [[nodiscard]] std::vector<float> parameter() const {
    const std::vector<std::uint8_t> bytes = p.download<std::uint8_t>();
    return to_floats({dtype, {count}, std::as_bytes(std::span(bytes))});
  }

  DType dtype;
  std::int64_t count;
  DeviceBuffer p, m_codes, v_codes, m_absmax, v_absmax, map, map_sq;
};

void expect_equal(const DeviceState& device, const HostState& host) {
  EXPECT_EQ(differing(device.parameter(), host.p), 0U) << "parameters";
  EXPECT_EQ(differing(device.m_codes.download<std::uint8_t>(), host.m_codes), 0U) << "codes of exp_avg";
  EXPECT_EQ(differing(device.v_codes.download<std::uint8_t>(), host.v_codes), 0U) << "codes of exp_avg_sq";
  EXPECT_EQ(differing(device.m_absmax.download<float>(), host.m_absmax), 0U) << "absmax of exp_avg";
  EXPECT_EQ(differing(device.v_absmax.download<float>(), host.v_absmax), 0U) << "absmax of exp_avg_sq";
}

TEST_F(AdamW8bitGpu, EqualsTheReferenceToTheBitOverSteps) {
  std::uint64_t seed = 1;
  for (const DType dtype : kFloatingDTypes) {
    for (const std::int64_t count : {1, 7, 255, 256, 257, 2049, 100003, 3000000}) {
      const std::int64_t variant = count % 2;
      SCOPED_TRACE(fmt::format("{} count {} variant {}", torch_name(dtype), count, variant));
      const AdamWOptions options = variant == 0 ? AdamWOptions{} : AdamWOptions{0.95, 0.98, 1e-6, 0.1};
      HostState host(random_vector(count, dtype, ++seed, 0.05F));
      const DeviceState device(host, dtype);
      for (std::int64_t step = 1; step <= (count > 1000000 ? 2 : 12); ++step) {
        std::vector<float> g = random_vector(count, DType::f32, ++seed, step % 3 == 0 ? 1e-6F : 0.3F);
        if (step % 4 == 0) std::fill(g.begin(), g.begin() + std::min<std::int64_t>(count, 300), 0.0F);
        if (step % 5 == 0) g[static_cast<std::size_t>(count / 2)] = step == 5 ? INFINITY : -1e-30F;
        const float factor = step % 2 == 0 ? 1.0F : 0.37F;
        host.update({options, 1e-3, step, dtype}, g, factor);
        device.update({options, 1e-3, step, dtype}, g, factor);
      }
      expect_equal(device, host);
    }
  }
}

TEST_F(AdamW8bitGpu, FactorThatIsNotFiniteChangesNothing) {
  const std::int64_t count = 1001;
  HostState host(random_vector(count, DType::bf16, 1, 1.0F));
  host.update({{}, 1e-3, 1, DType::bf16}, random_vector(count, DType::f32, 2, 1.0F), 1.0F);
  const DeviceState device(host, DType::bf16);
  for (const float factor : {std::nanf(""), INFINITY, -INFINITY}) {
    device.update({{}, 1e-3, 3, DType::bf16}, std::vector<float>(count, 1.0F), factor);
    expect_equal(device, host);
  }
}

// bitsandbytes' own kernel from the same state, each step anew. Its powers come from the hardware's logarithm (2^-22
// absolute, so that 1 - 0.999 is within 2e-4 of itself) and move the whole update; its fused sums and approximate
// divisions move a moment by 2^-22, so that a value in the middle of two entries may get the other code.
TEST_F(AdamW8bitGpu, LikeBitsandbytes) {
  const BitsandbytesLibrary library;
  if (!library.found()) GTEST_SKIP() << library.why();
  const std::int64_t count = 300000;
  for (const DType dtype : kFloatingDTypes) {
    for (const double decay : {0.0, 0.1}) {
      AdamWOptions options;
      options.weight_decay = decay;
      HostState host(random_vector(count, dtype, 7, 0.05F));
      std::size_t codes = 0;
      double worst_absmax = 0;
      double worst_update = 0;
      for (std::int64_t step = 1; step <= 5; ++step) {
        const std::vector<float> before = host.p;
        const std::vector<float> g = random_vector(count, dtype, 20 + step, 0.3F);
        const DeviceState theirs(host, dtype);
        const DeviceBuffer gradient = in_dtype(g, dtype);
        library.adam_8bit(dtype, theirs.p.as(), gradient.as(), theirs.exp_avg(), theirs.exp_avg_sq(), options, 1e-3,
                          static_cast<int>(step), static_cast<int>(count));
        const DeviceState ours(host, dtype);
        ours.update({options, 1e-3, step, dtype}, g, 1.0F);
        host.update({options, 1e-3, step, dtype}, g, 1.0F);
        expect_equal(ours, host);
        const auto compare = [&](const DeviceBuffer& of, const std::vector<std::uint8_t>& mine) {
          const auto other = of.download<std::uint8_t>();
          for (std::size_t i = 0; i < mine.size(); ++i) {
            if (other[i] == mine[i]) continue;
            ++codes;
            EXPECT_LE(std::abs(other[i] - mine[i]), 1) << i;
          }
        };
        compare(theirs.m_codes, host.m_codes);
        compare(theirs.v_codes, host.v_codes);
        const std::vector<float> m_absmax = theirs.m_absmax.download<float>();
        for (std::size_t i = 0; i < m_absmax.size(); ++i) {
          worst_absmax = std::max(worst_absmax, std::abs(m_absmax[i] / static_cast<double>(host.m_absmax[i]) - 1));
        }
        const std::vector<float> p = theirs.parameter();
        for (std::size_t i = 0; i < p.size(); ++i) {
          // Two roundings to the dtype where there is decay, each of which may fall on the other side.
          const double rounding =
              4 * unit_of(dtype) * std::max(std::fabs(p[i]), std::fabs(host.p[i])) + least_of(dtype);
          const double excess = std::fabs(static_cast<double>(p[i]) - host.p[i]) - rounding;
          worst_update =
              std::max(worst_update, excess / (std::fabs(static_cast<double>(host.p[i]) - before[i]) + 1e-9));
        }
      }
      std::printf("%s, decay %.1f: %zu of %zu codes differ, absmax by %.2g, updates by %.2g\n",
                  std::string(torch_name(dtype)).c_str(), decay, codes, static_cast<std::size_t>(10 * count),
                  worst_absmax, worst_update);
      EXPECT_LE(codes, static_cast<std::size_t>(10 * count) / 1000);
      EXPECT_LE(worst_absmax, 1e-6);
      EXPECT_LE(worst_update, 5e-4);
    }
  }
}

TEST_F(AdamW8bitGpu, RefusesBadInput) {
  const DeviceBuffer memory(1024);
  const optimized::Moment8bit moment{memory.as<std::uint8_t>(), memory.as<float>(), memory.as<float>()};
  const auto call = [&](const optimized::AdamWStep& step, std::int64_t count, void* parameter,
                        const optimized::Moment8bit& exp_avg) {
    optimized::adamw8bit_update(step, count, parameter, memory.as<float>(), memory.as<float>(), exp_avg, moment,
                                nullptr);
  };
  const optimized::AdamWStep good{{}, 1e-3, 1, DType::f32};
  expect_bad_input({"step", "0"}, [&] { call({{}, 1e-3, 0, DType::f32}, 1, memory.as(), moment); });
  expect_bad_input({"elements", "-1"}, [&] { call(good, -1, memory.as(), moment); });
  expect_bad_input({"parameter", "uint8"}, [&] { call({{}, 1e-3, 1, DType::u8}, 1, memory.as(), moment); });
  expect_bad_input({"null"}, [&] { call(good, 1, nullptr, moment); });
  expect_bad_input({"aligned"}, [&] { call(good, 1, memory.as<std::byte>(8), moment); });
  expect_bad_input({"exp_avg", "aligned"}, [&] {
    call(good, 1, memory.as(), {memory.as<std::uint8_t>(8), memory.as<float>(), memory.as<float>()});
  });
  expect_bad_input({"exp_avg", "null"}, [&] { call(good, 1, memory.as(), {memory.as<std::uint8_t>(), nullptr}); });
}

}  // namespace
}  // namespace qshard::test
