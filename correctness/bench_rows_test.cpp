// The GPU table's own checks, tried on providers that cheat: each must be caught, and the honest one must pass.
#include <functional>
#include <limits>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "bench/gpu/row.h"
#include "core/base/error.h"
#include "optimized/device/cuda_check.h"
#include "optimized/device/stream.h"

namespace qshard::bench {
namespace {

using Damage = std::function<void(const qshard_problem&, const qshard_buffers&, int call)>;

/// This project's kernels, and then something that spoils the result.
class Cheat : public Provider {
 public:
  explicit Cheat(Damage damage) : honest_(make_qshard_provider()), damage_(std::move(damage)) {}

  [[nodiscard]] std::string name() const override { return "cheat"; }
  [[nodiscard]] std::string unsupported(const qshard_problem& problem) const override {
    return honest_->unsupported(problem);
  }
  [[nodiscard]] std::size_t workspace_bytes(const qshard_problem& problem) const override {
    return honest_->workspace_bytes(problem);
  }
  [[nodiscard]] int product_roundings(const qshard_problem& problem) const override {
    return honest_->product_roundings(problem);
  }
  void run(const qshard_problem& problem, const qshard_buffers& buffers, cudaStream_t stream) override {
    if (works) honest_->run(problem, buffers, stream);
    if (damage_) damage_(problem, buffers, calls_);
    ++calls_;
  }

  bool works = true;

 private:
  std::unique_ptr<Provider> honest_;
  Damage damage_;
  int calls_ = 0;
};

constexpr qshard_problem kDequantize{QSHARD_DEQUANTIZE, QSHARD_BF16, QSHARD_NF4, 1, 4096, 4096, 0, 64};
constexpr qshard_problem kQuantize{QSHARD_QUANTIZE, QSHARD_BF16, QSHARD_NF4, 1, 4096, 4096, 0, 64};
constexpr qshard_problem kLinear{QSHARD_LINEAR4BIT, QSHARD_BF16, QSHARD_NF4, 1, 4096, 4096, 4, 64};
constexpr qshard_problem kBackward{QSHARD_LINEAR4BIT_BACKWARD, QSHARD_BF16, QSHARD_NF4, 1, 4096, 4096, 100, 64};

void set(void* data, int value, std::size_t bytes) {
  QSHARD_CUDA_CHECK(cudaMemsetAsync(data, value, bytes, nullptr));
}

class BenchRow : public testing::Test {
 protected:
  void SetUp() override {
    const std::string no_gpu = why_no_gpu();
    if (!no_gpu.empty()) GTEST_SKIP() << no_gpu;
  }

  /// Two repetitions; the error that stopped them, or "".
  static std::string outcome(const qshard_problem& problem, Provider& provider, double ceiling) {
    const DeviceInfo device = device_info();
    const Clocks clocks(device.pci_bus_id);
    const Ceilings ceilings{ceiling, ceiling, ceiling, ceiling, {}};
    Session session{device, clocks, ceilings, nullptr};
    Row row(problem, provider, {}, 1e-3);
    try {
      row.measure(session);
      row.measure(session);
    } catch (const std::exception& error) {
      return error.what();
    }
    return "";
  }

  static std::string outcome(const qshard_problem& problem, Provider& provider) {
    return outcome(problem, provider, std::numeric_limits<double>::infinity());
  }
  static std::string outcome(const qshard_problem& problem, Damage damage) {
    Cheat cheat(std::move(damage));
    return outcome(problem, cheat);
  }
};

TEST_F(BenchRow, HonestWorkPasses) {
  for (const qshard_problem& problem : {kDequantize, kQuantize, kLinear, kBackward}) {
    EXPECT_EQ(outcome(problem, nullptr), "") << problem_name(problem);
  }
}

TEST_F(BenchRow, SustainedCallsGoOnForSoLong) {
  const DeviceInfo device = device_info();
  const Clocks clocks(device.pci_bus_id);
  const Ceilings ceilings{1e15, 1e15, 1e15, 1e18, {}};
  Session session{device, clocks, ceilings, nullptr};
  Cheat honest(nullptr);
  Row row(kLinear, honest, {.sustained_seconds = 1}, 1e-3);
  const Sample sample = row.measure(session);
  EXPECT_GT(sample.calls * sample.seconds, 0.8);
  EXPECT_LT(sample.calls * sample.seconds, 1.5);
  EXPECT_TRUE(sample.joules == 0 || (sample.joules / sample.seconds > 20 && sample.joules / sample.seconds < 2000));
}

TEST_F(BenchRow, DoingNothingIsCaught) {
  for (const qshard_problem& problem : {kDequantize, kQuantize, kLinear, kBackward}) {
    Cheat cheat(nullptr);
    cheat.works = false;
    EXPECT_THAT(outcome(problem, cheat), testing::HasSubstr("before timing")) << problem_name(problem);
  }
}

TEST_F(BenchRow, ASkippedLastBlockIsCaught) {
  EXPECT_THAT(outcome(kDequantize, [](const qshard_problem& p, const qshard_buffers& b,
                                      int) { set(static_cast<char*>(b.weight) + 2 * (p.n * p.k - 64), 0xFF, 128); }),
              testing::HasSubstr("before timing: weight"));
}

TEST_F(BenchRow, OneWrongBitIsCaught) {
  EXPECT_THAT(outcome(kQuantize, [](const qshard_problem&, const qshard_buffers& b, int) { set(b.codes + 77, 0, 1); }),
              testing::HasSubstr("before timing: codes: 1 of"));
}

TEST_F(BenchRow, StoppingToWorkLaterIsCaught) {
  EXPECT_THAT(outcome(kDequantize,
                      [](const qshard_problem&, const qshard_buffers& b, int call) {
                        if (call >= 30) set(b.weight, 0, 2);
                      }),
              testing::HasSubstr("after timing: weight"));
}

TEST_F(BenchRow, WritingAnInputIsCaught) {
  EXPECT_THAT(
      outcome(kDequantize, [](const qshard_problem& p, const qshard_buffers& b,
                              int) { set(b.nested_absmax + block_count(p.n * p.k, p.blocksize) / 256 - 1, 0, 4); }),
      testing::HasSubstr("inputs were changed"));
}

TEST_F(BenchRow, NaNIsCaught) {
  EXPECT_THAT(outcome(kLinear, [](const qshard_problem&, const qshard_buffers& b,
                                  int) { set(static_cast<char*>(b.y) + 2 * 99, 0xFF, 2); }),
              testing::HasSubstr("1 outputs are NaN"));
}

TEST_F(BenchRow, AWrongValueIsCaught) {
  const auto zero = [](const qshard_problem& p, const qshard_buffers& b, int) {
    set(p.operation == QSHARD_LINEAR4BIT ? b.y : b.x, 0, 2 * 64);
  };
  EXPECT_THAT(outcome(kLinear, zero), testing::HasSubstr("outside the bound"));
  EXPECT_THAT(outcome(kBackward, zero), testing::HasSubstr("outside the bound"));
}

TEST_F(BenchRow, AnotherStreamIsCaught) {
  const optimized::Stream other;
  const auto honest = make_qshard_provider();
  Cheat cheat([&](const qshard_problem& p, const qshard_buffers& b, int) { honest->run(p, b, other.get()); });
  cheat.works = false;
  EXPECT_THAT(outcome(kDequantize, cheat), testing::HasSubstr("another stream"));
}

TEST_F(BenchRow, ATimeBelowTheRooflineIsCaught) {
  Cheat honest(nullptr);
  EXPECT_THAT(outcome(kDequantize, honest, 1e9), testing::HasSubstr("below"));
}

}  // namespace
}  // namespace qshard::bench
