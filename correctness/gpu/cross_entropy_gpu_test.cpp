#include "correctness/expect_error.h"
#include "correctness/gpu/matrix_gpu_testing.h"
#include "optimized/cross_entropy.h"
#include "reference/cross_entropy.h"

namespace qshard::test {
namespace {

constexpr double kUnit = 0x1p-24;
constexpr float kScale = 0.0123F;

class CrossEntropyGpu : public GpuTest {};

struct Case {
  std::int64_t rows, vocab, padding, first;
  float deviation;
};

const std::vector<Case> kCases = {
    {6, 32000, 0, 0, 2}, {5, 128256, 0, 0, 1}, {3, 256000, 0, 0, 3}, {4, 32000, 64, 8, 30}, {7, 32001, 0, 0, 2},
    {9, 37, 3, 1, 2},    {4, 256, 0, 0, 0.1F}, {3, 1, 0, 0, 1},      {2, 151936, 0, 0, 2},  {4, 4097, 0, 0, 1}};

std::string name(const Case& c, DType dtype) {
  return fmt::format("{} rows {} vocab {} padding {} first {} deviation {}", torch_name(dtype), c.rows, c.vocab,
                     c.padding, c.first, c.deviation);
}

/// Random targets; the first row's is the last of the vocabulary, the third row is ignored.
std::vector<std::int32_t> random_targets(const Case& c, std::uint64_t seed) {
  std::mt19937_64 generator(seed);
  std::vector<std::int32_t> targets(c.rows);
  for (std::int32_t& target : targets) target = static_cast<std::int32_t>(generator() % c.vocab);
  targets[0] = static_cast<std::int32_t>(c.vocab - 1);
  if (c.rows > 2) targets[2] = kIgnoredLabel;
  return targets;
}

/// One call on fresh copies of the inputs, and what it left.
struct Outcome {
  Outcome(const Matrix<float>& values, const std::vector<std::int32_t>& targets, DType dtype, const Case& c,
          bool gradient)
      : logits(values, dtype, c.vocab + c.padding, c.first) {
    const DeviceBuffer device_losses(c.rows * sizeof(float));
    const DeviceBuffer device_targets(targets);
    const DeviceBuffer scale(std::vector<float>{kScale});
    optimized::cross_entropy(c.rows, c.vocab, logits.stride(), dtype, logits.data(), device_targets.as<std::int32_t>(),
                             gradient ? scale.as<float>() : nullptr, gradient, device_losses.as<float>(), nullptr);
    losses = device_losses.download<float>();
  }

  DeviceMatrix logits;
  std::vector<float> losses;
};

/// Relative error of a row's sum of exponentials, with `range` the distance of its logits: a chain of the elements of a
/// thread and a tree; the running sum is scaled anew at most once a vector; exp as exponential.cuh bounds it.
double error_of_total(const Case& c, double range) {
  return (7.0 * static_cast<double>(c.vocab) / 1024 + 3 * range + 64) * kUnit;
}

TEST_F(CrossEntropyGpu, LikeTheReference) {
  std::uint64_t seed = 1;
  for (const DType dtype : kFloatingDTypes) {
    for (const Case& c : kCases) {
      SCOPED_TRACE(name(c, dtype));
      const Matrix<float> logits = random_rounded(c.rows, c.vocab, dtype, seed += 10, c.deviation);
      const std::vector<std::int32_t> targets = random_targets(c, seed + 1);
      const Outcome found(logits, targets, dtype, c, true);
      const Matrix<float> dlogits = found.logits.values();
      for (Eigen::Index row = 0; row < c.rows; ++row) {
        const Matrix<double> z = logits.row(row).cast<double>();
        Matrix<double> expected;
        const double loss = reference::cross_entropy<double>(z, {&targets[row], 1}, kScale, dtype, &expected);
        const Matrix<float> gradient = dlogits.row(row);
        if (targets[row] == kIgnoredLabel) {
          EXPECT_EQ(found.losses[row], 0.0F);
          expect_bits(Matrix<float>::Zero(1, c.vocab), gradient, "ignored");
          continue;
        }
        const double range = z.maxCoeff() - z.minCoeff();
        const double error = error_of_total(c, range);
        const double loss_bound = error + 8 * kUnit * (std::log(static_cast<double>(c.vocab)) + range);
        EXPECT_TRUE(std::abs(found.losses[row] - loss) <= loss_bound)
            << "row " << row << ": " << found.losses[row] << " instead of " << loss << ", bound " << loss_bound;

        const double greatest = z.maxCoeff();
        const double total = (z.array() - greatest).exp().sum();
        expect_within(
            expected, gradient,
            [&](auto, auto col) {
              const double p = std::exp(z(0, col) - greatest) / total;
              const double onehot = col == targets[row] ? 1 : 0;
              return kScale * (p * (error + (1.5 * range + 8) * kUnit) + 4 * kUnit * (onehot + p) + 0x1p-126) +
                     2 * unit_of(dtype) * std::abs(expected(0, col)) + least_of(dtype);
            },
            "dlogits");
        if (dtype != DType::f32 && c.vocab > 1000) {
          EXPECT_LE(differing_share(expected, gradient), 0.05);
        }
      }
      const Outcome again(logits, targets, dtype, c, true);
      EXPECT_EQ(differing(found.losses, again.losses), 0U) << "run to run";
      EXPECT_EQ(differing(found.logits.bytes(), again.logits.bytes()), 0U) << "run to run";
    }
  }
}

TEST_F(CrossEntropyGpu, WithoutGradientOnlyReads) {
  std::uint64_t seed = 1000;
  for (const DType dtype : kFloatingDTypes) {
    for (const Case& c : kCases) {
      SCOPED_TRACE(name(c, dtype));
      const Matrix<float> logits = random_rounded(c.rows, c.vocab, dtype, seed += 10, c.deviation);
      const std::vector<std::int32_t> targets = random_targets(c, seed + 1);
      const Outcome found(logits, targets, dtype, c, false);
      expect_bits(logits, found.logits.values(), "logits");
      EXPECT_EQ(differing(found.losses, Outcome(logits, targets, dtype, c, true).losses), 0U);
    }
  }
}

TEST_F(CrossEntropyGpu, LargeAndInfiniteLogits) {
  for (const DType dtype : kFloatingDTypes) {
    SCOPED_TRACE(torch_name(dtype));
    Matrix<float> logits = Matrix<float>::Constant(4, 4096, -60000);
    logits(0, 5) = 60000;  // far above the others: certain
    logits(1, 4095) = -3;  // the target's place, a thread's last one
    logits.row(2).setConstant(-INFINITY);
    logits(2, 77) = 1;
    logits(3, 9) = NAN;
    reference::round_to(dtype, logits);
    const Case c{4, 4096, 0, 0, 1};
    const Outcome found(logits, {5, 4095, 77, 3}, dtype, c, true);
    for (int row = 0; row < 3; ++row) EXPECT_EQ(found.losses[row], 0.0F) << row;
    EXPECT_TRUE(std::isnan(found.losses[3]));
    const Matrix<float> dlogits = found.logits.values();
    EXPECT_TRUE((dlogits.topRows(3).array() == 0).all()) << "certain and right: no gradient";
    EXPECT_TRUE(dlogits.row(3).array().isNaN().all());
  }
}

TEST_F(CrossEntropyGpu, TargetOutsideOfTheVocabularyGivesNaN) {
  const Case c{4, 64, 0, 0, 1};
  const Matrix<float> logits = random_rounded(4, 64, DType::bf16, 3);
  for (const bool gradient : {false, true}) {
    const Outcome found(logits, {64, -1, 5, INT32_MIN}, DType::bf16, c, gradient);
    const Matrix<float> after = found.logits.values();
    for (const int row : {0, 1, 3}) {
      EXPECT_TRUE(std::isnan(found.losses[row])) << row;
      if (gradient) {
        EXPECT_TRUE(after.row(row).array().isNaN().all()) << row;
      }
    }
    EXPECT_TRUE(std::isfinite(found.losses[2]));
    EXPECT_TRUE(after.row(2).array().isFinite().all());
  }
}

TEST_F(CrossEntropyGpu, RefusesBadInput) {
  const DeviceMatrix logits(2, 8, DType::bf16, 8);
  const DeviceBuffer memory(64);
  const auto call = [&](std::int64_t rows, std::int64_t vocab, std::int64_t stride, DType dtype, void* z,
                        const float* scale) {
    optimized::cross_entropy(rows, vocab, stride, dtype, z, memory.as<std::int32_t>(), scale, true, memory.as<float>(),
                             nullptr);
  };
  auto* scale = memory.as<float>();
  expect_bad_input({"rows"}, [&] { call(-1, 8, 8, DType::bf16, logits.data(), scale); });
  expect_bad_input({"vocabulary"}, [&] { call(2, 0, 8, DType::bf16, logits.data(), scale); });
  expect_bad_input({"stride"}, [&] { call(2, 8, 7, DType::bf16, logits.data(), scale); });
  expect_bad_input({"int32"}, [&] { call(2, 8, 8, DType::i32, logits.data(), scale); });
  expect_bad_input({"null"}, [&] { call(2, 8, 8, DType::bf16, nullptr, scale); });
  expect_bad_input({"null"}, [&] { call(2, 8, 8, DType::bf16, logits.data(), nullptr); });
}

}  // namespace
}  // namespace qshard::test
